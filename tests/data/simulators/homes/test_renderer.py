"""The renderer: skipped, with the reason, where moderngl or EGL is missing."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_home import panel, textures

from mirage_sim.data.simulators.homes.renderer import Renderer
from mirage_sim.data.simulators.homes.scene import Scene
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


def scene_of(*parts, **changes) -> Scene:
    return replace(Scene(parts, (0,) * len(parts), textures(), ()), **changes)


def depth_of_plane(camera: Camera, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """z-depth along the rays through the pixel centres, in double precision."""
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
def test_depth_is_that_of_a_tilted_plane(renderer: Renderer, camera: Camera, distance: float) -> None:
    c2w = camera.c2w.double().numpy()
    normal = c2w[:3, :3] @ np.array([0.5, -0.3, -1.0]) / math.sqrt(1.34)
    centre = c2w[:3, 3] + distance * c2w[:3, 2]
    along = np.cross(normal, [0, 1, 0])
    up = np.cross(along, normal)
    plane = panel(centre - 60 * along - 60 * up, 120 * along, 120 * up)
    renderer.load(scene_of(plane))
    depth = renderer.render(camera).depth
    expected = depth_of_plane(camera, centre, normal)
    near = expected < 20
    assert near.mean() > 0.2 and depth.dtype == np.float32
    assert np.abs(depth[near] / expected[near] - 1).max() < 1e-3
