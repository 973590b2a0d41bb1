"""Messages of a robot become observations; transforms are plain objects, because there is no wheel of tf2_msgs."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.recordings import toy_frames

from mirage_sim.ros import conversions
from mirage_sim.ros.synchroniser import DEPTH_WAIT, POSE_WAIT, Problems, Synchroniser


def namespace(fields):
    if isinstance(fields, list):
        return [namespace(entry) for entry in fields]
    if not isinstance(fields, dict):
        return fields
    return SimpleNamespace(**{name: namespace(value) for name, value in fields.items()})


@pytest.fixture
def frame():
    return toy_frames(1)[0]


@pytest.fixture
def problems():
    return Problems(lambda text: None)


def filled(problems, frame, mounted=True):
    """A synchroniser that has everything but a pose."""
    synchroniser = Synchroniser(problems, 1.5, mounted)
    synchroniser.add_camera_info(
        namespace(conversions.camera_info(frame.camera.K.numpy(), frame.camera.size, frame.stamp))
    )
    synchroniser.add_depth(namespace(conversions.depth_image(frame.depth, frame.stamp + 0.01)), 0.0)
    synchroniser.add_image(namespace(conversions.image(frame.image, frame.stamp)), 0.0)
    return synchroniser


def moving(frame, delay=0.0):
    return namespace(conversions.transforms(frame.camera.c2w.double().numpy(), np.eye(4), frame.stamp + delay))


def test_transforms_place_the_camera(problems, frame):
    synchroniser = filled(problems, frame)
    synchroniser.add_transforms(namespace(conversions.static_transforms()), static=True)
    synchroniser.add_transforms(moving(frame, -0.1), static=False)
    assert synchroniser.take(0.1) is None  # a later transform is needed
    synchroniser.add_transforms(moving(frame, 0.1), static=False)
    seen = synchroniser.take(0.2)
    np.testing.assert_allclose(seen.camera.c2w, frame.camera.c2w, atol=1e-5)
    np.testing.assert_allclose(seen.camera.K, frame.camera.K, atol=1e-4)
    np.testing.assert_array_equal(seen.image, frame.image)
    np.testing.assert_array_equal(seen.depth, frame.depth)
    assert synchroniser.take(0.3) is None
    assert problems.take() == {}


def test_unknown_frame_is_a_problem_after_a_second(problems, frame):
    synchroniser = filled(problems, frame)
    synchroniser.add_transforms(moving(frame), static=False)  # no mount
    assert synchroniser.take(POSE_WAIT / 2) is None
    assert problems.take() == {}
    assert synchroniser.take(POSE_WAIT + 0.1) is None
    assert "camera_optical_frame" in problems.take()["pose"]
    assert not synchroniser.waiting


def test_newest_complete_image_is_observed(problems, frame):
    first, second, third = toy_frames(3)
    synchroniser = filled(problems, first, mounted=False)
    for other in (second, third):
        synchroniser.add_image(namespace(conversions.image(other.image, other.stamp)), 0.1)
    synchroniser.add_depth(namespace(conversions.depth_image(second.depth, second.stamp)), 0.1)
    for each in (first, second, third):
        c2w = each.camera.c2w.double().numpy()
        synchroniser.add_odometry(namespace(conversions.odometry(c2w, np.eye(4), np.zeros(6), each.stamp)))
    assert synchroniser.take(0.2).stamp == pytest.approx(second.stamp)
    assert synchroniser.take(0.2) is None
    late = synchroniser.take(0.1 + DEPTH_WAIT)
    assert late.stamp == pytest.approx(third.stamp) and late.depth is None
    assert "expected depth within" in problems.take()["depth"]
