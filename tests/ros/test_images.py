"""Frames, masks, depth and intrinsics to rclpy messages and back, through serialisation."""

import io
from array import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image as PilImage

from mirage_sim.geometry import Camera, project, se3_exp
from mirage_sim.ros import conversions

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'mirage_sim[ros]', or source a ROS 2")
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from support.ros_wire import sent  # noqa: E402

SIDES = array_shapes(min_dims=2, max_dims=2, max_side=9)
FRAMES = SIDES.flatmap(lambda shape: arrays(np.uint8, (*shape, 3)))
MASKS = arrays(np.bool_, SIDES)
DEPTHS = arrays(np.float32, SIDES, elements=st.floats(width=32))
POSES = arrays(np.float64, 6, elements=st.floats(-3, 3)).map(lambda twist: se3_exp(torch.from_numpy(twist)).numpy())
FEW = settings(max_examples=40, deadline=None)


@FEW
@given(FRAMES)
def test_frame_round_trip(frame: np.ndarray):
    message = sent(Image, conversions.image(frame, 2.5))
    assert (message.height, message.width, message.encoding) == (*frame.shape[:2], "rgb8")
    assert message.step == 3 * frame.shape[1] and message.header.frame_id == "camera_optical_frame"
    np.testing.assert_array_equal(conversions.frame_of(message), frame)


@FEW
@given(FRAMES, st.integers(0, 7), st.booleans())
def test_frame_of_reads_padded_and_bgr_images(frame: np.ndarray, padding: int, swapped: bool):
    height, width, _ = frame.shape
    rows = (frame[..., ::-1] if swapped else frame).reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    message = Image(height=height, width=width, encoding="bgr8" if swapped else "rgb8", step=3 * width + padding)
    message.data = array("B", data.tobytes())
    np.testing.assert_array_equal(conversions.frame_of(message), frame)


def test_image_of_strided_view():
    frame = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)[::-2, 1:5, ::-1]
    np.testing.assert_array_equal(conversions.frame_of(sent(Image, conversions.image(frame, 0.0))), frame)


def test_bulk_data_is_array_of_bytes():
    """rclpy checks other types byte by byte, which takes tens of milliseconds at 640 x 480."""
    frame = np.zeros((8, 8, 3), np.uint8)
    messages = conversions.image(frame, 0.0), conversions.compressed_image(frame, 0.0)
    messages += (
        conversions.depth_image(frame[..., 0].astype(np.float32), 0.0),
        conversions.mono_image(frame[..., 0] > 0, 0.0),
    )
    assert all(isinstance(fields["data"], array) and fields["data"].typecode == "B" for fields in messages)


@FEW
@given(MASKS)
def test_mask_round_trip(mask: np.ndarray):
    message = sent(Image, conversions.mono_image(mask, 0.0))
    assert message.encoding == "mono8" and set(message.data) <= {0, 255}
    np.testing.assert_array_equal(conversions.mask_of(message), mask)


@FEW
@given(DEPTHS)
def test_depth_round_trip_is_nan_where_unknown(depth: np.ndarray):
    message = sent(Image, conversions.depth_image(depth, 0.0))
    assert message.encoding == "32FC1" and message.step == 4 * depth.shape[1]
    known = np.isfinite(depth) & (depth > 0)
    np.testing.assert_array_equal(
        np.frombuffer(message.data, "<f4").reshape(depth.shape), np.where(known, depth, np.nan)
    )
    np.testing.assert_array_equal(conversions.depth_of(message), np.where(known, depth, 0))


def test_depth_of_reads_big_endian():
    depth = np.array([[1.5, 0.25]], np.float32)
    message = Image(height=1, width=2, encoding="32FC1", step=8, is_bigendian=1)
    message.data = array("B", depth.astype(">f4").tobytes())
    np.testing.assert_array_equal(conversions.depth_of(message), depth)


def test_compressed_image_keeps_colours():
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:, :24], frame[:, 24:] = (220, 40, 30), (20, 60, 200)
    message = sent(CompressedImage, conversions.compressed_image(frame, 0.0, quality=95))
    assert message.format == "rgb8; jpeg compressed bgr8"
    shown = np.asarray(PilImage.open(io.BytesIO(bytes(message.data))).convert("RGB"), np.int64)
    assert np.abs(shown - frame)[:, [4, 44]].max() < 12
    small = conversions.compressed_image(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), 0.0, quality=20
    )
    large = conversions.compressed_image(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), 0.0, quality=90
    )
    assert len(small["data"]) < len(large["data"])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: conversions.image(np.zeros((2, 2), np.uint8), 0.0), r"frame: expected uint8 .* got uint8 \[2, 2\]"),
        (lambda: conversions.image(np.zeros((2, 2, 3)), 0.0), "frame: expected uint8 .* got float64"),
        (lambda: conversions.image([[1]], 0.0), r"frame: expected uint8 .* got int64 \[1, 1\]"),
        (lambda: conversions.compressed_image(np.zeros((2, 2, 3), np.uint8), 0.0, quality=0), "quality: .*got 0"),
        (lambda: conversions.mono_image(np.zeros((2, 2), np.uint8), 0.0), "mask: expected bool"),
        (lambda: conversions.depth_image(np.zeros((2, 2)), 0.0), "depth: expected float32"),
        (lambda: conversions.camera_info(np.eye(4), (2, 2), 0.0), r"K: expected \[3, 3\], got \[4, 4\]"),
        (lambda: conversions.frame_of(Image(encoding="yuv422")), "encoding: expected rgb8 or bgr8, got 'yuv422'"),
        (lambda: conversions.depth_of(Image(encoding="16UC1")), "encoding: expected 32FC1, got '16UC1'"),
        (lambda: conversions.frame_of(Image(encoding="rgb8", height=2, width=2, step=6)), "data: .*0 bytes in all"),
        (lambda: conversions.frame_of(Image(encoding="rgb8", height=1, width=2, step=5)), "data: .*rows of 5 bytes"),
    ],
)
def test_image_functions_name_bad_arguments(make: Any, named: str):
    with pytest.raises(ValueError, match=named):
        make()


@FEW
@given(
    st.floats(30, 120),
    POSES,
    arrays(np.float64, 3, elements=st.floats(-0.9, 0.9)),
)
def test_camera_info_projects_like_camera(fov: float, c2w: np.ndarray, place: np.ndarray):
    """ROS counts pixels from the centre of the first one, `Camera` from its corner."""
    camera = Camera.from_fov(torch.from_numpy(c2w).float(), fov, (96, 128)).resize((480, 640))
    seen = np.array([place[0], place[1], 2 + place[2], 1.0])  # in front of the camera
    point = torch.from_numpy(camera.c2w.double().numpy() @ seen)[:3].float()
    u, v, z = (float(value) for value in project(point[None], camera))
    info = sent(CameraInfo, conversions.camera_info(camera.K.numpy(), camera.size, 0.0))
    assert (info.height, info.width) == (480, 640)
    K, P = np.array(info.k).reshape(3, 3), np.array(info.p).reshape(3, 4)
    shown, _ = cv2.projectPoints(seen[None, :3], np.zeros(3), np.zeros(3), K, np.array(info.d))
    assert shown.ravel() == pytest.approx([u - 0.5, v - 0.5], abs=0.02)
    assert P @ seen == pytest.approx([(u - 0.5) * z, (v - 0.5) * z, z], abs=0.1)
    assert (K[0, 2], K[1, 2]) == (319.5, 239.5)  # the middle of 640 pixels numbered from 0
    np.testing.assert_array_equal(np.array(info.r).reshape(3, 3), np.eye(3))
    assert info.distortion_model == "plumb_bob" and list(info.d) == [0.0] * 5


def test_frame_of_reads_messages_of_any_class():
    """A bag reader has message classes of its own."""
    frame = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    message = SimpleNamespace(**(conversions.image(frame, 0.0) | {"data": frame.tobytes()}))
    np.testing.assert_array_equal(conversions.frame_of(message), frame)
