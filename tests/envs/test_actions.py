import math

import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction

from mirage_sim.envs.actions import Actions, moved
from mirage_sim.geometry import Camera, VelocityLimits, is_rigid


def displacement(mode, action) -> tuple[np.ndarray, float]:
    """Where one action takes the origin, and how far it turns to the left, in degrees."""
    motion = Actions(mode, VelocityLimits()).motion(action)
    forward = motion[:3, 2]
    return motion[:3, 3].numpy(), math.degrees(math.atan2(-forward[0], forward[2]))


@pytest.mark.parametrize(
    ("mode", "action", "metres", "left"),
    [
        ("discrete", 0, (0, 0, 0.15), 0),
        ("discrete", np.int64(1), (0, 0, 0), 6),
        ("discrete", 2, (0, 0, 0), -6),
        ("discrete", np.array(3), (0, 0, -0.15), 0),
        ("twist", np.array([1.0, 0.0], np.float32), (0, 0, 0.15), 0),
        ("twist", [-0.5, 0.0], (0, 0, -0.075), 0),
        ("twist", np.array([0, 1]), (0, 0, 0), 6),
        ("se3", [1, 0, 0, 0, 0, 0], (0.15, 0, 0), 0),
        ("se3", [0, -1, 0.5, 0, 0, 0], (0, -0.15, 0.075), 0),
        ("se3", [0, 0, 0, 0, -1, 0], (0, 0, 0), 6),
    ],
)
def test_actions_move_as_documented(mode, action, metres, left):
    position, turned = displacement(mode, action)
    np.testing.assert_allclose(position, metres, atol=1e-6)
    assert turned == pytest.approx(left, abs=1e-4)


@pytest.mark.parametrize(
    ("mode", "action"),
    [
        ("twist", [1.1, 0.0]),
        ("twist", [0.0, -1.0001]),
        ("twist", [float("nan"), 0.0]),
        ("twist", [float("inf"), 0.0]),
        ("twist", [0.0]),
        ("twist", [[0.0, 0.0]]),
        ("twist", [0.0, [1.0, 2.0]]),
        ("twist", "forward"),
        ("twist", None),
        ("twist", [True, False]),
        ("twist", 0),
        ("se3", [0.0, 0.0]),
        ("se3", [2.0, 0, 0, 0, 0, 0]),
        ("discrete", 4),
        ("discrete", -1),
        ("discrete", 1.0),
        ("discrete", True),
        ("discrete", [0]),
        ("discrete", "forward"),
        ("discrete", None),
        ("discrete", [0, [1, 2]]),
    ],
)
def test_invalid_actions_are_rejected(mode, action):
    with pytest.raises(InvalidAction, match="action: expected .*, got "):
        Actions(mode, VelocityLimits()).motion(action)


def test_rounding_beyond_bounds_is_clipped():
    actions = Actions("twist", VelocityLimits())
    beyond = actions.motion(np.nextafter(np.ones(2, np.float32), np.float32(2)))
    assert torch.equal(beyond, actions.motion([1.0, 1.0]))


def test_unknown_mode_is_rejected():
    with pytest.raises(ValueError, match="action_mode: expected 'twist', 'discrete' or 'se3', got 'fly'"):
        Actions("fly", VelocityLimits())


def test_poses_stay_rigid_over_a_long_episode():
    rng = np.random.default_rng(0)
    actions = Actions("se3", VelocityLimits())
    camera = Camera.from_fov(torch.eye(4), 60.0, (48, 64))
    for _ in range(1000):
        camera = moved(camera, actions.motion(rng.uniform(-1, 1, 6)))
    assert is_rigid(camera.c2w, tolerance=1e-6)


def test_moved_is_composition():
    actions = Actions("se3", VelocityLimits())
    camera = Camera.from_fov(actions.motion([0.3, 0.1, -1, 0.2, 1, -0.4]), 60.0, (48, 64))
    motion = actions.motion([1, -0.5, 0.2, 0.9, -1, 0.1])
    torch.testing.assert_close(moved(camera, motion).c2w, camera.c2w @ motion, atol=1e-6, rtol=0)
