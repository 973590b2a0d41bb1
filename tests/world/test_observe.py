import numpy as np
import pytest
import torch
from support.toy_world import SIZE, toy_model

from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.world import NotReset, World

FAR = 3.0


@pytest.fixture
def here(world: World) -> World:
    world.reset(start=0, seed=3)
    return world


def image(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def flat(metres: float = FAR) -> np.ndarray:
    return np.full(SIZE, metres, np.float32)


def ahead(world: World, command=(1.0, 0.0)) -> Camera:
    one = world.camera
    return Camera(one.c2w @ VelocityLimits().motion(torch.tensor(command)), one.K, one.size)


def same_state(a, b) -> bool:
    first, second = a.map.tensors(), b.map.tensors()
    return all(torch.equal(first[name], second[name]) for name in first) and torch.equal(a.preceding, b.preceding)


def test_next_frame_shows_the_observed_image(here):
    here.observe(image(5), depth=flat())
    shown = here.step(here.camera).frame
    np.testing.assert_allclose(shown.astype(int), image(5), atol=1)


def test_measured_depth_is_the_frames_depth(here):
    here.observe(image(5), depth=flat())
    assert np.allclose(here.step(ahead(here)).depth[8:-8, 8:-8], FAR - 0.15, atol=0.01)


def test_observation_from_elsewhere_is_seen_from_there(here):
    camera = ahead(here, (0.0, 1.0))
    for _ in range(5):
        camera = Camera(camera.c2w @ VelocityLimits().motion(torch.tensor((0.0, 1.0))), camera.K, camera.size)
    here.observe(image(5), camera, flat())
    assert torch.equal(here.camera.c2w, torch.eye(4))
    np.testing.assert_allclose(here.step(camera).frame.astype(int), image(5), atol=1)


def test_world_goes_on_from_an_observation_with_move(here):
    camera = ahead(here, (1.0, 1.0))
    observation = here.observe(image(5), camera, flat(), move=True)
    assert np.array_equal(observation.frame, image(5)) and observation.remembered.all()
    assert torch.equal(here.camera.c2w, camera.c2w) and np.allclose(observation.depth, FAR)


def test_forks_and_snapshots_keep_what_they_knew(here):
    before, (fork,) = here.snapshot(), here.fork(1)
    plain = fork.step(ahead(here)).frame
    here.observe(image(5), depth=flat())
    here.restore(before)
    assert np.array_equal(here.step(ahead(here)).frame, plain)


def test_depth_is_estimated_where_none_was_measured(here):
    points = here.state.map.points
    here.observe(image(5), ahead(here, (0.0, 1.0)))
    assert here.state.map.points > points and not here.state.keyframes.entries[-1].measured


def test_saved_world_keeps_its_observations(here, tmp_path):
    here.observe(image(5), ahead(here), flat())
    here.save(tmp_path / "place.world")
    other = World(toy_model())
    other.load(tmp_path / "place.world")
    assert same_state(here.state, other.state) and len(other.state.keyframes) == 2
    assert np.array_equal(here.step(ahead(here)).frame, other.step(ahead(other)).frame)


def test_restart_begins_at_a_keyframe_with_the_memory(here):
    camera = ahead(here, (1.0, 1.0))
    here.observe(image(5), camera, flat())
    here.step(ahead(here))
    observation = here.restart(9, keyframe=1)
    assert np.array_equal(observation.frame, image(5)) and here.state.step == 0 and here.state.seed == 9
    assert torch.equal(here.camera.c2w, camera.c2w) and len(here.state.keyframes) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((4, 4, 3), np.uint8)}, "image: expected"),
        ({"image": image(), "depth": flat().astype(np.uint16)}, "depth: expected z-depth in metres"),
        ({"image": image(), "depth": flat()[:10]}, "depth: expected .* like the image"),
        ({"image": image(), "depth": flat(3000.0)}, "depth: expected metres, with a median"),
        ({"image": image(), "depth": flat(0.0)}, "depth: expected some positive values"),
        ({"image": image(), "camera": "here"}, "camera: expected a Camera"),
    ],
)
def test_bad_observations_change_nothing(here, arguments, message):
    before = here.snapshot()
    with pytest.raises(ValueError, match=message):
        here.observe(**arguments)
    assert here.snapshot() is before


def test_missing_depth_file_is_named(here, tmp_path):
    with pytest.raises(FileNotFoundError, match="depth: expected a depth map, got .*none.npy"):
        here.observe(image(), depth=tmp_path / "none.npy")


def test_depth_files_are_read_in_their_units(here, tmp_path):
    from PIL import Image

    np.save(tmp_path / "depth.npy", flat())
    Image.fromarray((flat() * 1000).astype(np.uint16)).save(tmp_path / "depth.png")
    for name in ("depth.npy", "depth.png"):
        here.observe(image(), depth=tmp_path / name)
        assert torch.allclose(here.state.keyframes.entries[-1].depth, torch.tensor(FAR))


def test_observe_needs_a_reset(model):
    with pytest.raises(NotReset):
        World(model).observe(image())


@pytest.mark.parametrize(("keyframe", "seed"), [(1, 0), (-1, 0), (True, 0), (0, -1)])
def test_restart_refuses_unknown_keyframes_and_seeds(here, keyframe, seed):
    with pytest.raises(ValueError, match=r"^(start|seed): expected"):
        here.restart(seed, keyframe)
