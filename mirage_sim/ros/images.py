"""Frames, masks, depth and intrinsics as messages of a camera, and back."""

from array import array
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirage_sim.ros.frames import OPTICAL
from mirage_sim.ros.messages import Fields, header

_BYTES = {"rgb8": 3, "bgr8": 3, "mono8": 1, "32FC1": 4}  # per pixel


def image(frame: NDArray[np.uint8], seconds: float, frame_id: str = OPTICAL) -> Fields:
    """``sensor_msgs/Image``, rgb8, of a frame, uint8 ``[H, W, 3]``.

    Raises:
        ValueError: if it is no such array.
    """
    _check_frame(frame)
    return _image(frame, "rgb8", seconds, frame_id)


def mono_image(mask: NDArray[np.bool_], seconds: float, frame_id: str = OPTICAL) -> Fields:
    """``sensor_msgs/Image``, mono8, of a mask, bool ``[H, W]``: 255 where true, 0 elsewhere.

    Raises:
        ValueError: if it is no such array.
    """
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(f"mask: expected bool [H, W], got {mask.dtype} {list(mask.shape)}")
    return _image(mask.astype(np.uint8) * np.uint8(255), "mono8", seconds, frame_id)


def depth_image(depth: NDArray[np.float32], seconds: float, frame_id: str = OPTICAL) -> Fields:
    """``sensor_msgs/Image``, 32FC1, metres (REP-118), of z-depth, float32 ``[H, W]``: 0, negative or not finite is NaN.

    Raises:
        ValueError: if it is no such array.
    """
    depth = np.asarray(depth)
    if depth.dtype != np.float32 or depth.ndim != 2:
        raise ValueError(f"depth: expected float32 [H, W], got {depth.dtype} {list(depth.shape)}")
    known = np.isfinite(depth) & (depth > 0)
    return _image(np.where(known, depth, np.float32(np.nan)).astype("<f4"), "32FC1", seconds, frame_id)


def compressed_image(frame: NDArray[np.uint8], seconds: float, frame_id: str = OPTICAL, quality: int = 80) -> Fields:
    """``sensor_msgs/CompressedImage``, JPEG, of a frame, uint8 ``[H, W, 3]``.

    Args:
        frame: RGB.
        seconds: simulation time.
        frame_id: of the camera.
        quality: of the JPEG, 1 to 100.

    Raises:
        ValueError: if an argument is not as described.
    """
    _check_frame(frame)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return {"header": header(seconds, frame_id), "format": "rgb8; jpeg compressed bgr8", "data": bulk(encoded)}


def camera_info(K: ArrayLike, size: tuple[int, int], seconds: float, frame_id: str = OPTICAL) -> Fields:  # noqa: N803
    """``sensor_msgs/CameraInfo`` of an undistorted camera.

    Args:
        K: intrinsics ``[3, 3]``, ours: a pixel's centre is at +1/2. ROS counts from the centre of the first pixel, so
            that its principal point is 1/2 less.
        size: ``(height, width)`` in pixels.
        seconds: simulation time.
        frame_id: of the camera.

    Raises:
        ValueError: if ``K`` has another shape.
    """
    ros = np.array(K, dtype=np.float64)
    if ros.shape != (3, 3):
        raise ValueError(f"K: expected [3, 3], got {list(ros.shape)}")
    ros[:2, 2] -= 0.5
    return {
        "header": header(seconds, frame_id),
        "height": int(size[0]),
        "width": int(size[1]),
        "distortion_model": "plumb_bob",
        "d": [0.0] * 5,
        "k": ros.ravel().tolist(),
        "r": np.eye(3).ravel().tolist(),
        "p": np.hstack([ros, np.zeros((3, 1))]).ravel().tolist(),
        "binning_x": 0,
        "binning_y": 0,
        "roi": {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False},
    }


def frame_of(message: Any) -> NDArray[np.uint8]:
    """The frame, uint8 RGB ``[H, W, 3]``, of a ``sensor_msgs/Image`` in rgb8 or bgr8; shares its memory where it can.

    Raises:
        ValueError: if the encoding is another or the data is too short.
    """
    pixels = _pixels(message, "rgb8", "bgr8").reshape(message.height, message.width, 3)
    return pixels if message.encoding == "rgb8" else np.ascontiguousarray(pixels[..., ::-1])


def depth_of(message: Any) -> NDArray[np.float32]:
    """Z-depth, float32 ``[H, W]`` in metres, 0 where unknown, of a ``sensor_msgs/Image`` in 32FC1.

    Raises:
        ValueError: if the encoding is another or the data is too short.
    """
    depth = _pixels(message, "32FC1").view(">f4" if message.is_bigendian else "<f4").astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def mask_of(message: Any) -> NDArray[np.bool_]:
    """The mask, bool ``[H, W]``, of a ``sensor_msgs/Image`` in mono8.

    Raises:
        ValueError: if the encoding is another or the data is too short.
    """
    return _pixels(message, "mono8") != 0


def intrinsics_of(message: Any) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Our K ``[3, 3]`` (centres at +1/2) and size ``(height, width)`` of a ``sensor_msgs/CameraInfo``."""
    K = np.array(message.k, dtype=np.float64).reshape(3, 3)
    K[:2, 2] += 0.5
    return K, (message.height, message.width)


def _check_frame(frame: Any) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ValueError(f"frame: expected uint8 [H, W, 3], got {got}")


def _image(pixels: np.ndarray, encoding: str, seconds: float, frame_id: str) -> Fields:
    height, width = pixels.shape[:2]
    return {
        "header": header(seconds, frame_id),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": width * _BYTES[encoding],
        "data": bulk(pixels),
    }


def _pixels(message: Any, *encodings: str) -> NDArray[np.uint8]:
    """The bytes ``[H, W * bytes per pixel]`` of an image, without what pads its rows."""
    if message.encoding not in encodings:
        raise ValueError(f"encoding: expected {' or '.join(encodings)}, got {message.encoding!r}")
    width = message.width * _BYTES[message.encoding]
    data = np.frombuffer(message.data, np.uint8)
    if message.step < width or len(data) < message.step * message.height:
        raise ValueError(
            f"data: expected {message.height} rows of {width} bytes, "
            f"got rows of {message.step} bytes and {len(data)} bytes in all"
        )
    rows = data[: message.step * message.height].reshape(message.height, message.step)
    return np.ascontiguousarray(rows[:, :width])


def bulk(values: np.ndarray) -> "array[int]":
    """Bytes in the one form that rclpy takes without looking at each of them."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data
