"""Poses between poses."""

from pathlib import Path

import numpy as np
import pytest

from mirage_sim.data.recordings.poses import Track, check_poses, motions_of, nearest

SOURCE = Path("recording")


def about_z(degrees: float) -> list[float]:
    return [0.0, 0.0, np.sin(np.radians(degrees) / 2), np.cos(np.radians(degrees) / 2)]


def track(stamps: list[float], degrees: list[float]) -> Track:
    positions = np.array([[10 * stamp, 0, 0] for stamp in stamps])
    return Track(np.array(stamps), positions, np.array([about_z(angle) for angle in degrees]))


def test_motion_of_a_quaternion_turns_as_it_says() -> None:
    (motion,) = motions_of(SOURCE, np.array([[1.0, 2.0, 3.0]]), np.array([about_z(90)]))
    np.testing.assert_allclose(motion, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-15)


def test_rotation_between_poses_has_constant_speed() -> None:
    poses, known = track([0.0, 0.4], [0.0, 80.0]).at(SOURCE, np.array([0.0, 0.1, 0.3, 0.4]))
    assert known.all()
    angles = np.degrees(np.arctan2(poses[:, 1, 0], poses[:, 0, 0]))
    np.testing.assert_allclose(angles, [0, 20, 60, 80], atol=1e-9)
    np.testing.assert_allclose(poses[:, 0, 3], [0, 1, 3, 4])


def test_the_shorter_arc_is_taken() -> None:
    """A quaternion and its negative are one rotation."""
    one = track([0.0, 0.4], [0.0, 40.0])
    other = Track(one.stamps, one.positions, one.quaternions * [[1], [-1]])
    np.testing.assert_allclose(one.at(SOURCE, np.array([0.2]))[0], other.at(SOURCE, np.array([0.2]))[0], atol=1e-12)


def test_poses_are_unknown_outside_and_over_gaps() -> None:
    times = np.array([-0.1, 0.0, 0.3, 0.6, 1.2, 1.3])
    assert track([0.0, 0.2, 1.2], [0, 10, 20]).at(SOURCE, times)[1].tolist() == [False, True, False, False, True, False]
    still = Track(np.array([0.0, 9.0]), np.array([[1.0, 2, 3], [1.0, 2, 3.01]]), np.array([about_z(0), about_z(1)]))
    assert still.at(SOURCE, np.array([4.5]))[1].all(), "what hardly moves is known over any gap"


def test_static_poses_hold_at_any_time() -> None:
    static = Track(np.array([5.0]), np.array([[1.0, 2, 3]]), np.array([about_z(30)]), static=True)
    poses, known = static.at(SOURCE, np.array([0.0, 100.0]))
    assert known.all() and (poses[0] == poses[1]).all() and poses[0, :3, 3].tolist() == [1, 2, 3]


def test_nearest_stamps_are_within_the_tolerance() -> None:
    stamps = np.array([0.0, 1.0, 2.0])
    assert nearest(stamps, np.array([-0.1, 0.4, 0.95, 1.05, 2.3, 9.0]), 0.3).tolist() == [0, -1, 1, 1, 2, -1]
    assert nearest(np.empty(0), np.array([1.0]), 0.3).tolist() == [-1]


@pytest.mark.parametrize(
    ("step", "interval", "fine"), [(6.0, 0.1, False), (4.9, 0.1, True), (6.0, 0.7, True), (6.0, 0.5, False)]
)
def test_jumps_are_far_and_fast(step: float, interval: float, fine: bool) -> None:
    c2w = np.tile(np.eye(4), (3, 1, 1))
    c2w[2, 0, 3] = step
    stamps = np.array([0.0, 0.1, 0.1 + interval])
    check_poses(SOURCE, stamps, c2w, timed=False)
    if fine:
        check_poses(SOURCE, stamps, c2w, timed=True)
        return
    with pytest.raises(
        ValueError, match=r"recording: expected poses of a camera that moves .* got 6 m at .*images 1 to 2"
    ):
        check_poses(SOURCE, stamps, c2w, timed=True)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.2, -1.0])
def test_poses_that_are_not_rigid_are_refused(wrong: float) -> None:
    c2w = np.tile(np.eye(4), (2, 1, 1))
    c2w[1, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"recording: expected rigid poses .*\(image 1\)"):
        check_poses(SOURCE, np.arange(2.0), c2w, timed=True)


def test_positions_beyond_float32_are_refused() -> None:
    c2w = np.eye(4)[None].copy()
    c2w[0, 1, 3] = 5_000_000.0
    with pytest.raises(ValueError, match="expected positions within 10000 m of the origin, got 5e"):
        check_poses(SOURCE, np.zeros(1), c2w, timed=True)
