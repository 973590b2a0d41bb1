import math

import numpy as np
import pytest
import torch

from mirage_sim.envs.tasks.goal_sampling import BODY, draw_place, free_ways, look_from
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


def test_the_way_is_free_up_to_the_wall():
    directions, free = free_ways(room(wall=5.0))
    assert np.all(np.diff(directions) > 0)
    assert directions[-1] == -directions[0] > math.radians(25)
    middle = len(directions) // 2
    assert free[middle] == pytest.approx(5.0 - BODY, abs=1e-4)
    # a body BODY wide to each side touches a slanted wall a little earlier than its middle does
    expected = 5.0 / np.cos(directions) - BODY * np.tan(np.abs(directions)) - BODY
    np.testing.assert_allclose(free, expected, atol=0.1)


def test_a_low_box_is_in_the_way_and_a_lintel_and_the_floor_are_not():
    directions, free = free_ways(room(wall=6.0, box=2.0, lintel=1.5))
    middle = len(directions) // 2
    assert free[middle] == pytest.approx(2.0 - BODY, abs=1e-4)
    beside = np.abs(2.0 * np.tan(directions)) > 0.4 + 1.5 * BODY
    assert beside.any()
    assert np.all(free[beside] > 5.0)


def test_where_depth_is_unknown_nothing_is_free():
    view = room()
    view.depth[:, :32] = 0.0
    directions, free = free_ways(view)
    assert np.all(free[directions < -0.1] < 0)
    assert np.all(free[directions > 0.1] > 4)


def test_places_lie_on_free_ways_and_look_along_them():
    view = room(wall=4.0, box=1.8)
    directions, free = free_ways(view)
    drawn = [draw_place(view, (1.0, 3.0), np.random.default_rng(seed)) for seed in range(200)]
    for pose in drawn:
        x, _, z = pose[:3, 3]
        direction, distance = math.atan2(x, z), math.hypot(x, z)
        (way,) = np.flatnonzero(np.isclose(directions, direction))
        assert 1.0 <= distance <= min(3.0, free[way])
        np.testing.assert_allclose(pose[:3, 2], pose[:3, 3] / distance, atol=1e-12)
        assert is_rigid(torch.from_numpy(pose), 1e-9)
    distances = [np.linalg.norm(pose[:3, 3]) for pose in drawn]
    assert min(distances) < 1.1
    assert max(distances) > 2.8


def test_places_are_relative_to_the_camera():
    view = room()
    c2w = torch.tensor([[0.0, 0, 1, 4], [0, 1, 0, 0], [-1, 0, 0, 2], [0, 0, 0, 1]])
    moved = Observation(view.frames, view.depth, view.remembered, Camera(c2w, view.camera.K, SIZE), {})
    here, there = (draw_place(v, (1.0, 4.0), np.random.default_rng(0)) for v in (view, moved))
    np.testing.assert_allclose(there, c2w.double().numpy() @ here, atol=1e-12)


def test_a_view_that_leads_nowhere_is_refused():
    with pytest.raises(ValueError, match=r"goal: expected a start view with 1 m of free way, got at most 0\.\d\d m"):
        draw_place(room(wall=0.9), (1.0, 4.0), np.random.default_rng(0))


def test_the_walk_to_a_goal_arrives_and_leaves_the_world_alone(world: World):
    world.reset(start=0, seed=5)
    before = world.snapshot()
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    pose[:3, 3] = [0.3, 0.0, 0.4]
    frame = look_from(world, pose)
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
