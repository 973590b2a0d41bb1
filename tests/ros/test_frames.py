"""Poses between OpenCV axes and REP-103 axes; needs no ROS."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mirage_sim.geometry import VelocityLimits, quaternions, se3_exp
from mirage_sim.ros import frames
from mirage_sim.world import Body

TWISTS = arrays(np.float64, 6, elements=st.floats(-3, 3))
HEIGHTS = st.floats(0.1, 3)
FEW = settings(max_examples=40, deadline=None)
EYE = np.eye(4)


def motion(twist: np.ndarray) -> np.ndarray:
    return se3_exp(torch.from_numpy(twist)).numpy()


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = x, y, z
    return out


def test_base_from_camera_matches_body():
    assert frames.CAMERA_HEIGHT == Body().camera_height
    base_from_camera = frames.base_from_camera()
    np.testing.assert_array_equal(base_from_camera @ [0, 0, 1, 1], [1, 0, 1.5, 1])  # ahead
    np.testing.assert_array_equal(base_from_camera @ [-1, 0, 0, 1], [0, 1, 1.5, 1])  # left
    np.testing.assert_array_equal(base_from_camera @ [0, -1, 0, 1], [0, 0, 2.5, 1])  # up
    np.testing.assert_array_equal(base_from_camera @ [0, 1.5, 0, 1], [0, 0, 0, 1])  # the floor
    np.testing.assert_allclose(quaternions.quaternion_of(base_from_camera[:3, :3]), [-0.5, 0.5, -0.5, 0.5])


def test_identity_pose_is_origin_of_map():
    np.testing.assert_allclose(frames.map_from_base(EYE), EYE, atol=1e-12)


@pytest.mark.parametrize(
    ("camera", "base"),
    [((0, 0, 2), (2, 0, 0)), ((-2, 0, 0), (0, 2, 0)), ((0, -2, 0), (0, 0, 2))],  # forward, left, up
)
def test_forward_left_up_are_x_y_z(camera: tuple[float, ...], base: tuple[float, ...]):
    np.testing.assert_allclose(frames.map_from_base(moved(*camera)), moved(*base), atol=1e-12)


def test_positive_turn_is_left():
    limits = VelocityLimits()
    c2w = limits.motion(torch.tensor([1.0, 1.0])).double().numpy()
    map_from_base = frames.map_from_base(c2w)
    assert map_from_base[0, 3] > 0.1 and map_from_base[1, 3] > 0.005  # an arc ahead and to the left, where +y is
    np.testing.assert_allclose(map_from_base[:3, 2], [0, 0, 1], atol=1e-6)  # about z
    assert math.atan2(map_from_base[1, 0], map_from_base[0, 0]) == pytest.approx(limits.max_turn_rate * limits.dt)
    expected = [limits.max_speed, 0, 0, 0, 0, limits.max_turn_rate]
    np.testing.assert_allclose(frames.velocity(EYE, c2w, limits.dt), expected, atol=1e-5)


@FEW
@given(TWISTS, HEIGHTS)
def test_pose_round_trip(twist: np.ndarray, height: float):
    c2w = motion(twist)
    np.testing.assert_allclose(frames.camera_pose(frames.map_from_base(c2w, height), height), c2w, atol=1e-9)


@FEW
@given(TWISTS, HEIGHTS)
def test_map_from_base_agrees_with_camera_chain(twist: np.ndarray, height: float):
    """A world point has the same position in the map with and without the detour through the camera."""
    c2w, seen = motion(twist), np.array([0.3, -0.2, 2.0, 1.0])
    by_camera = frames.map_from_base(c2w, height) @ frames.base_from_camera(height) @ seen
    np.testing.assert_allclose(by_camera, frames.base_from_camera(height) @ c2w @ seen, atol=1e-9)


@FEW
@given(TWISTS)
def test_quaternion_round_trip(twist: np.ndarray):
    rotation = motion(twist)[:3, :3]
    quaternion = quaternions.quaternion_of(rotation)
    assert np.linalg.norm(quaternion) == pytest.approx(1.0) and quaternion[3] >= 0
    np.testing.assert_allclose(quaternions.rotation_of(quaternion), rotation, atol=1e-9)
    np.testing.assert_allclose(quaternions.rotation_of(-3 * quaternion), rotation, atol=1e-9)


@pytest.mark.parametrize("axis", range(3))
def test_quaternion_of_half_turns(axis: int):
    diagonal = -np.ones(3)
    diagonal[axis] = 1
    quaternion = quaternions.quaternion_of(np.diag(diagonal))
    np.testing.assert_allclose(np.abs(quaternion), np.eye(4)[axis], atol=1e-12)


@FEW
@given(arrays(np.float64, 6, elements=st.floats(-1, 1)), TWISTS, HEIGHTS)
def test_velocity_inverts_motion(twist: np.ndarray, start: np.ndarray, height: float):
    before = motion(start)
    base = frames.map_from_base(before, height) @ motion(twist * 0.1)
    after = frames.camera_pose(base, height)
    np.testing.assert_allclose(frames.velocity(before, after, 0.1, height), twist, atol=1e-6)


@FEW
@given(TWISTS, TWISTS, TWISTS)
def test_teleported_origin_keeps_odometry(origin: np.ndarray, before: np.ndarray, after: np.ndarray):
    start, here, there = motion(origin), motion(before), motion(after)
    new = frames.teleported(start, here, there)
    odometry = [
        frames.inverse(frames.map_from_base(a)) @ frames.map_from_base(b) for a, b in ((start, here), (new, there))
    ]
    np.testing.assert_allclose(odometry[0], odometry[1], atol=1e-8)


@pytest.mark.parametrize(
    "wrong", [2 * EYE, np.diag([1.0, 1, -1, 1]), np.full((4, 4), np.nan), EYE[:3], np.diag([1.0, 1, 1, 2])]
)
def test_map_from_base_refuses_non_rigid_motions(wrong: np.ndarray):
    with pytest.raises(ValueError, match="c2w: expected a rigid motion"):
        frames.map_from_base(wrong)


@pytest.mark.parametrize("dt", [0.0, -0.1, math.nan])
def test_velocity_refuses_nonpositive_dt(dt: float):
    with pytest.raises(ValueError, match="dt: expected positive seconds"):
        frames.velocity(EYE, EYE, dt)
