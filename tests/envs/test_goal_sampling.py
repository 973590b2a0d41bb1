import math

import numpy as np
import pytest
import torch

from mirage_sim.envs.tasks.goal_sampling import BODY, free_ways, generate_view, sample_goal
from mirage_sim.geometry import Camera, is_rigid
from mirage_sim.world import Observation, World

SIZE = (48, 64)
HEIGHT = 1.5  # metres of the camera above the floor


def room(wall: float = 5.0, box: float | None = None, lintel: float | None = None) -> Observation:
    """A level floor, a wall ahead, perhaps a low box in the middle and something that hangs high."""
    camera = Camera.from_fov(torch.eye(4), 60.0, SIZE)
    K = camera.K.numpy()
    right = ((np.arange(SIZE[1]) + 0.5 - K[0, 2]) / K[0, 0])[None]
    down = ((np.arange(SIZE[0]) + 0.5 - K[1, 2]) / K[1, 1])[:, None]
    floor = np.where(down > 0, HEIGHT / np.maximum(down, 1e-9), np.inf)
    depth = np.minimum(floor, wall) + 0 * right
    if box is not None:  # 0.8 m high, 0.8 m wide
        depth[(np.abs(right * box) < 0.4) & (down * box > HEIGHT - 0.8) & (depth > box)] = box
    if lintel is not None:  # from 0.6 m above the camera upwards
        depth[(down * lintel < -0.6) & (depth > lintel)] = lintel
    return Observation(np.zeros((1, *SIZE, 3), np.uint8), depth.astype(np.float32), np.ones(SIZE, bool), camera, {})


def test_path_is_free_up_to_the_wall():
    directions, free = free_ways(room(wall=5.0))
    assert np.all(np.diff(directions) > 0)
    assert directions[-1] == -directions[0] > math.radians(25)
    middle = len(directions) // 2
    assert free[middle] == pytest.approx(5.0 - BODY, abs=1e-4)
    # a body BODY wide to each side touches a slanted wall a little earlier than its middle does
    expected = 5.0 / np.cos(directions) - BODY * np.tan(np.abs(directions)) - BODY
    np.testing.assert_allclose(free, expected, atol=0.1)


def test_low_box_blocks_but_lintel_and_floor_do_not():
    directions, free = free_ways(room(wall=6.0, box=2.0, lintel=1.5))
    middle = len(directions) // 2
    assert free[middle] == pytest.approx(2.0 - BODY, abs=1e-4)
    beside = np.abs(2.0 * np.tan(directions)) > 0.4 + 1.5 * BODY
    assert beside.any()
    assert np.all(free[beside] > 5.0)


def test_unknown_depth_is_not_free():
    view = room()
    view.depth[:, :32] = 0.0
    directions, free = free_ways(view)
    assert np.all(free[directions < -0.1] < 0)
    assert np.all(free[directions > 0.1] > 4)


def test_goals_lie_on_free_paths_and_face_along_them():
    view = room(wall=4.0, box=1.8)
    directions, free = free_ways(view)
    samples = [sample_goal(view, (1.0, 3.0), np.random.default_rng(seed)) for seed in range(200)]
    for pose in samples:
        x, _, z = pose[:3, 3]
        direction, distance = math.atan2(x, z), math.hypot(x, z)
        (way,) = np.flatnonzero(np.isclose(directions, direction))
        assert 1.0 <= distance <= min(3.0, free[way])
        np.testing.assert_allclose(pose[:3, 2], pose[:3, 3] / distance, atol=1e-12)
        assert is_rigid(torch.from_numpy(pose), 1e-9)
    distances = [np.linalg.norm(pose[:3, 3]) for pose in samples]
    assert min(distances) < 1.1
    assert max(distances) > 2.8


def test_goals_are_relative_to_the_camera():
    view = room()
    c2w = torch.tensor([[0.0, 0, 1, 4], [0, 1, 0, 0], [-1, 0, 0, 2], [0, 0, 0, 1]])
    moved = Observation(view.frames, view.depth, view.remembered, Camera(c2w, view.camera.K, SIZE), {})
    here, there = (sample_goal(v, (1.0, 4.0), np.random.default_rng(0)) for v in (view, moved))
    np.testing.assert_allclose(there, c2w.double().numpy() @ here, atol=1e-12)


def test_view_without_free_path_is_rejected():
    with pytest.raises(ValueError, match=r"goal: expected a start view with 1 m of free way, got at most 0\.\d\d m"):
        sample_goal(room(wall=0.9), (1.0, 4.0), np.random.default_rng(0))


def test_generated_view_reaches_goal_and_keeps_world(world: World):
    world.reset(start=0, seed=5)
    before = world.snapshot()
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    pose[:3, 3] = [0.3, 0.0, 0.4]
    frame = generate_view(world, pose)
    assert world.snapshot() is before
    (fork,) = world.fork(1)
    steps = 15  # of 6 degrees
    for i in range(1, steps + 1):
        angle = i / steps * math.pi / 2
        c2w = torch.eye(4)
        c2w[0, 0] = c2w[2, 2] = math.cos(angle)
        c2w[0, 2], c2w[2, 0] = math.sin(angle), -math.sin(angle)
        c2w[:3, 3] = torch.tensor([0.3, 0.0, 0.4]) * i / steps
        shown = fork.step(Camera(c2w, world.camera.K, world.camera.size))
    assert np.abs(shown.frame.astype(int) - frame).mean() < 1
