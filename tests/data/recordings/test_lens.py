"""Distortion is undone, and frames come at a world's size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.clips import cast

from mirage_sim.data.recordings import RecordedFrame, to_size
from mirage_sim.data.recordings.lens import BROWN, FISHEYE, Lens, lens_of, undistort
from mirage_sim.geometry import Camera

SIZE = (96, 128)
PHASE = torch.tensor([1.0, 2.0, 3.0])
SOURCE = Path("recording")


def seen_through(lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """The toy room through a lens: each pixel's ray is the one that OpenCV says."""
    height, width = lens.size
    K = lens.K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    v, u = np.indices(lens.size).astype(np.float64)
    pixels, coefficients = np.stack([u, v], -1).reshape(-1, 1, 2), np.array(lens.distortion)
    if lens.model == FISHEYE:
        rays = cv2.fisheye.undistortPoints(pixels, K, coefficients)
    else:
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
        rays = cv2.undistortPoints(pixels, K, coefficients, criteria=criteria)
    x, y = rays.reshape(height, width, 2).astype(np.float32).transpose(2, 0, 1)
    scale = 8 * lens.focal[0]  # of a pinhole camera so fine that its nearest pixel is exact enough
    reach = int(np.ceil(max(np.abs(x).max(), np.abs(y).max()) * scale)) + 1
    camera = Camera(torch.eye(4), torch.tensor([[scale, 0, reach], [0, scale, reach], [0, 0, 1.0]]), (2 * reach,) * 2)
    image, depth = cast(camera, PHASE)
    rows, columns = (y * scale + reach).astype(int), (x * scale + reach).astype(int)
    return image.numpy()[rows, columns], depth.numpy()[rows, columns]


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        (BROWN, (-0.25, 0.06, 0.001, -0.002, 0.0)),
        (BROWN, (0.15, -0.05, 0.0, 0.0)),
        (BROWN, (0.2, 0.1, 0.001, 0.001, 0.01, 0.3, 0.1, 0.01)),
        (FISHEYE, (0.02, -0.01, 0.003, 0.0)),
    ],
)
def test_undistorted_frames_are_those_of_a_pinhole(model: str, distortion: tuple[float, ...]) -> None:
    lens = Lens((90.0, 92.0), (66.0, 45.0), SIZE, distortion, model)
    image, depth = seen_through(lens)
    image, depth, K = undistort(SOURCE, lens, image, depth)
    true_image, true_depth = cast(Camera(torch.eye(4), torch.from_numpy(K).float(), SIZE), PHASE)
    assert np.abs(image.astype(int) - true_image.numpy()).mean() < 1.5
    relative = np.abs(depth - true_depth.numpy()) / true_depth.numpy()
    assert np.median(relative) < 0.005 and np.quantile(relative, 0.99) < 0.03
    assert (depth > 0).all(), "every pixel was seen"
    # without it, the same comparison fails
    raw_image, _ = seen_through(lens)
    pinhole, _ = cast(Camera(torch.eye(4), torch.from_numpy(lens.K).float(), SIZE), PHASE)
    assert np.abs(raw_image.astype(int) - pinhole.numpy()).mean() > 2.5


def test_unknown_depth_stays_zero_when_distortion_is_undone() -> None:
    lens = Lens((90.0, 90.0), (64.0, 48.0), SIZE, (-0.25, 0.06, 0.0, 0.0))
    depth = np.where(np.arange(128) % 8 < 4, 0.0, 5.0).astype(np.float32) + np.zeros((96, 1), np.float32)
    _, depth, _ = undistort(SOURCE, lens, np.zeros((*SIZE, 3), np.uint8), depth)
    assert set(np.unique(depth)) == {0.0, 5.0}


def test_lens_of_ros_has_its_centre_half_a_pixel_further() -> None:
    K = np.array([[50.0, 0, 31.5], [0, 51.0, 23.5], [0, 0, 1]])
    lens = lens_of(SOURCE, "plumb_bob", K, (48, 64), (0.0,) * 5)
    assert lens.K.tolist() == [[50, 0, 32], [0, 51, 24], [0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "focal", "distortion", "said"),
    [
        ("omni", 50.0, (), "expected a distortion model among"),
        ("plumb_bob", 50.0, (0.1,), "expected .* coefficients of 'plumb_bob', got 1"),
        ("plumb_bob", 0.0, (), "expected finite intrinsics with positive focal lengths"),
        ("plumb_bob", float("nan"), (), "expected finite intrinsics with positive focal lengths"),
    ],
)
def test_unusable_lenses_are_refused(name: str, focal: float, distortion: tuple[float, ...], said: str) -> None:
    K = np.array([[focal, 0, 31.5], [0, focal, 23.5], [0, 0, 1]])
    with pytest.raises(ValueError, match=f"recording: {said}"):
        lens_of(SOURCE, name, K, (48, 64), distortion)


def frame_of(camera: Camera) -> RecordedFrame:
    image, depth = cast(camera, PHASE)
    return RecordedFrame(image.numpy(), depth.numpy(), camera, 1.5)


@pytest.mark.parametrize("size", [(96, 128), (48, 96), (96, 64), (480, 640), (50, 70)])
def test_frames_of_another_size_are_what_that_camera_sees(size: tuple[int, int]) -> None:
    K = torch.tensor([[400.0, 0, 330.0], [0, 410.0, 236.0], [0, 0, 1]])
    frame = to_size(frame_of(Camera(torch.eye(4), K, (480, 640))), size)
    true = frame_of(frame.camera)
    assert frame.image.shape == (*size, 3) and frame.depth is not None and frame.depth.shape == size
    assert frame.camera.size == size and frame.stamp == 1.5
    assert np.abs(frame.image.astype(int) - true.image).mean() < 2
    assert np.median(np.abs(frame.depth - true.depth)) < 0.02


def test_smaller_depth_never_mixes_metres_with_unknown() -> None:
    camera = Camera(torch.eye(4), torch.tensor([[40.0, 0, 32], [0, 40.0, 24], [0, 0, 1]]), (48, 64))
    depth = np.where(np.arange(64) % 3 == 0, 0.0, 5.0).astype(np.float32) + np.zeros((48, 1), np.float32)
    frame = to_size(RecordedFrame(np.zeros((48, 64, 3), np.uint8), depth, camera, 0.0), (12, 16))
    assert set(np.unique(frame.depth)) == {0.0, 5.0}  # type: ignore[arg-type]


def test_frames_without_depth_stay_without() -> None:
    camera = Camera(torch.eye(4), torch.tensor([[40.0, 0, 32], [0, 40.0, 24], [0, 0, 1]]), (48, 64))
    assert to_size(RecordedFrame(np.zeros((48, 64, 3), np.uint8), None, camera, 0.0), (16, 16)).depth is None
