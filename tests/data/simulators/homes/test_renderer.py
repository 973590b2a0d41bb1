"""Tests of the renderer; skipped if moderngl or EGL is missing."""

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.scenes import TEXTURED, box, home, panel, room, textures

from mirage_sim.data.simulators.homes.rendering.culling import Culling
from mirage_sim.data.simulators.homes.rendering.renderer import SKY_DEPTH, Renderer
from mirage_sim.data.simulators.homes.scene import Lamp, Mesh, Scene
from mirage_sim.data.simulators.miniworld import MiniWorldSimulator
from mirage_sim.data.simulators.simulator import CameraMount
from mirage_sim.geometry import Camera

SIZE = (96, 128)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    try:
        made = Renderer(SIZE)
    except ImportError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def camera_at(x: float, z: float, heading: float, pitch_deg: float = 0.0, roll: float = 0.0, **K: float) -> Camera:
    c2w = CameraMount(height=1.3, pitch_deg=pitch_deg).camera_to_world(np.array([x, 0, z]), heading)
    c2w[:3, :2] = c2w[:3, :2] @ [[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]]
    camera = Camera.from_fov(torch.from_numpy(c2w).float(), 60.0, SIZE)
    intrinsics = camera.K.clone()
    for name, value in K.items():
        intrinsics[{"fx": (0, 0), "fy": (1, 1), "cx": (0, 2), "cy": (1, 2)}[name]] = value
    return replace(camera, K=intrinsics)


def scene_of(*parts: Mesh) -> Scene:
    return Scene(parts, (0,) * len(parts), textures(), ())


def depth_of_plane(camera: Camera, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the z-depth of a plane along the rays through pixel centres, in double precision."""
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    rays = np.stack([columns, rows, np.ones(SIZE)], -1) @ np.linalg.inv(camera.K.double().numpy()).T
    c2w = camera.c2w.double().numpy()
    return ((point - c2w[:3, 3]) @ normal) / (rays @ c2w[:3, :3].T @ normal)


CAMERAS = [
    camera_at(0, 0, 0.0),
    camera_at(1, -2, 0.3, pitch_deg=20),
    camera_at(-1, 1, -0.2, pitch_deg=-5, roll=0.4, fx=70, fy=90, cx=50.5, cy=61),
]


@pytest.mark.parametrize("camera", CAMERAS, ids=["level", "pitched", "rolled"])
@pytest.mark.parametrize("distance", [0.3, 3.0, 19.0])
def test_depth_of_tilted_plane_is_exact(renderer: Renderer, camera: Camera, distance: float) -> None:
    c2w = camera.c2w.double().numpy()
    normal = c2w[:3, :3] @ np.array([0.5, -0.3, -1.0]) / math.sqrt(1.34)
    centre = c2w[:3, 3] + distance * c2w[:3, 2]
    along = np.cross(normal, [0, 1, 0])
    up = np.cross(along, normal)
    plane = panel(centre - 30 * along - 30 * up, 60 * along, 60 * up)
    renderer.load(scene_of(plane))
    depth = renderer.render(camera).depth
    expected = depth_of_plane(camera, centre, normal)
    near = expected < 20
    assert near.mean() > 0.2 and depth.dtype == np.float32
    assert np.abs(depth[near] / expected[near] - 1).max() < 1e-3


def test_image_and_depth_agree_at_edges(renderer: Renderer) -> None:
    camera = camera_at(0, 0, 0.0, pitch_deg=10, roll=0.3)
    renderer.load(scene_of(box((3, 0.3, -0.8), (4, 1.9, 0.7), colour=(0, 0, 0))))
    seen = renderer.render(camera)
    in_depth, in_image = seen.depth < SKY_DEPTH, seen.image.max(-1) < 40
    assert in_depth.mean() > 0.1
    grown = np.stack([np.roll(in_depth, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    edge = grown.any(0) & ~grown.all(0)
    np.testing.assert_array_equal(in_image[~edge], in_depth[~edge])
    between = (seen.image.max(-1) > 40) & (seen.image.max(-1) < 150)
    assert between[edge].mean() > 0.15 and not between[~edge & in_depth].any(), "edges are smooth"


def test_colour_is_product_of_light_and_albedo(renderer: Renderer) -> None:
    """Outside the light is known: daylight times the colour, both linear, then the tone curve and sRGB."""
    ground = panel((-60, -2, 60), (120, 0, 0), (0, 0, -120), colour=(188, 255, 99))
    inside = box((0, -0.2, 0), (0.1, -0.1, 0.1))
    scene = replace(scene_of(inside, ground), rooms=(0, -1), daylight=(0.2, 0.4, 0.6))
    renderer.load(scene)
    found = renderer.render(camera_at(5, 0, 0.0, pitch_deg=30)).image[-1, 60]
    srgb = np.array([188, 255, 99]) / 255
    linear = 1.5 * ((srgb + 0.055) / 1.055) ** 2.4 * [0.2, 0.4, 0.6]
    toned = linear * (1 + linear / 9) / (1 + linear)
    expected = 255 * (1.055 * toned ** (1 / 2.4) - 0.055)
    assert np.abs(found - expected).max() < 2.5
    renderer.load(replace(scene, daylight=(0.0, 0.0, 0.0)))
    assert renderer.render(camera_at(5, 0, 0.0, pitch_deg=30)).image.max() == 0, "without light the image is black"


def test_textures_are_upright_and_have_holes(renderer: Renderer) -> None:
    layers = textures()
    layers[TEXTURED] = 255
    layers[TEXTURED, 32:] = [0, 0, 0, 255]  # the lower half is black
    layers[TEXTURED, :, 32:, 3] = 0  # the right half is a hole
    sheet = panel((3, 0.3, -1), (0, 0, 2), (0, 2, 0), layer=TEXTURED, repeat=2.0)
    renderer.load(replace(scene_of(sheet), textures=layers, daylight=(2.0, 2.0, 2.0)))
    seen = renderer.render(camera_at(0, 0, 0.0))
    assert seen.depth[40, 50] < 4 and seen.depth[56, 50] < 4
    assert seen.depth[40, 78] == SKY_DEPTH and seen.depth[56, 78] == SKY_DEPTH
    assert seen.image[40, 50].min() > seen.image[56, 50].max() + 20


def views(count: int) -> list[Camera]:
    rng = np.random.default_rng(3)
    places = home()[1].places(0.3)
    return [camera_at(*rng.choice(places), rng.uniform(-4, 4), rng.uniform(-10, 40)) for _ in range(count)]


def test_culling_never_changes_the_image(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer.load(home()[0])
    cameras = views(40)
    culled = [renderer.render(camera) for camera in cameras]
    parts = []

    def all_parts(culling: Culling, clip: np.ndarray, *_: np.ndarray) -> np.ndarray:
        parts.append(int(may_show(culling, clip, *_).sum()))
        return np.ones(len(clip), bool)

    may_show = Culling._may_show
    monkeypatch.setattr(Culling, "_may_show", all_parts)
    for camera, expected in zip(cameras, culled, strict=True):
        found = renderer.render(camera)
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.depth, expected.depth)
    assert 3 < np.mean(parts) < 0.4 * len(home()[0].parts), "culling culls"


def test_mask_shows_where_movers_are(renderer: Renderer) -> None:
    scene = replace(scene_of(*room()), lamps=(Lamp((0, 2, 0), (3, 3, 3)),))
    renderer.load(replace(scene, movers=(box((-0.2, 0, -0.2), (0.2, 0.3, 0.2), colour=(90, 20, 20)),)))
    camera, pose = camera_at(-1.5, 0, 0.0, pitch_deg=25), np.eye(4)
    pose[:3, 3] = 0.4, 0.0, 0.1
    without, seen = renderer.render(camera), renderer.render(camera, [pose])
    assert without.static.all()
    moved = ~seen.static
    assert 30 < moved.sum() < 2000
    np.testing.assert_array_equal(seen.image[~moved], without.image[~moved])
    np.testing.assert_array_equal(seen.depth[~moved], without.depth[~moved])
    nearer = seen.depth < without.depth
    assert nearer.sum() > 0.6 * moved.sum() and (moved | ~nearer).all()
    assert (seen.image != without.image).any(-1)[moved].mean() > 0.95
    pose[0, 3] = -30.0  # behind walls
    assert renderer.render(camera, [pose]).static.all()


def test_same_scene_gives_same_bits(renderer: Renderer) -> None:
    scene, cameras = home()[0], views(5)
    renderer.load(scene)
    first = [renderer.render(camera) for camera in cameras]
    renderer.load(home(1)[0])
    renderer.render(cameras[0])
    renderer.load(scene)
    other = Renderer(SIZE)
    other.load(scene)
    try:
        for camera, expected in zip(cameras, first, strict=True):
            for each in (renderer, other):
                found = each.render(camera)
                np.testing.assert_array_equal(found.image, expected.image)
                np.testing.assert_array_equal(found.depth, expected.depth)
    finally:
        other.close()
    expected_image = renderer.render(cameras[1]).image  # closing another renderer has no effect
    np.testing.assert_array_equal(expected_image, first[1].image)


HASH = """
import hashlib
from test_renderer import SIZE, Renderer, home, views
renderer = Renderer(SIZE)
renderer.load(home()[0])
seen = [renderer.render(camera) for camera in views(5)]
print(hashlib.sha256(b"".join(each.image.tobytes() + each.depth.tobytes() for each in seen)).hexdigest())
"""


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    settings = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False)


def test_number_of_threads_does_not_change_bits(renderer: Renderer) -> None:
    renderer.load(home()[0])
    seen = [renderer.render(camera) for camera in views(5)]
    expected = hashlib.sha256(b"".join(each.image.tobytes() + each.depth.tobytes() for each in seen)).hexdigest()
    threads = "1" if (os.cpu_count() or 1) > 1 else "3"
    done = in_a_process(HASH, LP_NUM_THREADS=threads)
    assert done.stdout.strip() == expected, done.stderr


def test_renderer_takes_turns_with_miniworld(renderer: Renderer, simulator: MiniWorldSimulator) -> None:
    camera = views(1)[0]
    renderer.load(home()[0])
    simulator.reset(5)
    home_view, maze_view = renderer.render(camera), simulator.render()
    for _ in range(3):
        renderer.load(home()[0])
        found = renderer.render(camera)
        np.testing.assert_array_equal(found.image, home_view.image)
        simulator.reset(5)  # creates textures and display lists
        for expected, each in zip(maze_view, simulator.render(), strict=True):
            np.testing.assert_array_equal(each, expected)
        Renderer((8, 8)).close()
        np.testing.assert_array_equal(simulator.render()[0], maze_view[0])
        np.testing.assert_array_equal(renderer.render(camera).depth, home_view.depth)


def test_invalid_scene_camera_and_poses_raise(renderer: Renderer) -> None:
    scene, camera = home()[0], views(1)[0]
    renderer.load(scene)
    before = renderer.render(camera).image
    with pytest.raises(ValueError, match=r"^scene: expected a room for each of 1 parts, got \(-1,\)"):
        renderer.load(replace(scene, parts=scene.parts[:1], rooms=(-1,)))
    used = max(part.layer.max() for part in scene.parts) + 1
    with pytest.raises(ValueError, match=rf"^scene.textures: expected {used} or more layers, got 2"):
        renderer.load(replace(scene, textures=scene.textures[:2]))
    with pytest.raises(ValueError, match=r"^camera: expected one of size \(96, 128\), got \[\] \(48, 64\)"):
        renderer.render(camera.resize((48, 64)))
    with pytest.raises(ValueError, match=r"^mover_poses: expected 0 or none, got 2"):
        renderer.render(camera, [np.eye(4)] * 2)
    np.testing.assert_array_equal(renderer.render(camera).image, before)
    fresh = Renderer((8, 8))
    with pytest.raises(ValueError, match=r"^scene: expected load\(\) before render\(\)"):
        fresh.render(camera.resize((8, 8)))
    fresh.close()


def test_description_names_renderer_and_version(renderer: Renderer) -> None:
    assert set(renderer.description) == {"renderer", "version"} and all(renderer.description.values())


def test_missing_moderngl_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moderngl", None)  # makes the import fail
    with pytest.raises(
        ImportError, match=r"needs moderngl and EGL.*pip install mirage_sim\[homes\]; Debian: apt install"
    ):
        Renderer()


def test_missing_egl_driver_raises(renderer: Renderer) -> None:
    code = "from mirage_sim.data.simulators.homes.rendering.renderer import Renderer; Renderer()"
    done = in_a_process(code, __EGL_VENDOR_LIBRARY_FILENAMES="/nowhere.json")
    assert done.returncode == 1
    assert "ImportError: the homes simulator needs moderngl and EGL" in done.stderr.splitlines()[-1]
