"""Messages of ROS to arrays: images, depth, lenses. A message is any object with the attributes of ROS's.

``mirage_sim.ros`` has the conversions of our own node, which speak fewer encodings; nothing of ROS is imported here.
"""

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.recordings.files import decode_depth, decode_image
from mirage_sim.data.recordings.lens import Lens, lens_of
from mirage_sim.world.images import MAX_SIDE, MIN_SIDE

#: Encodings of colour images: channels, and OpenCV's conversion to RGB.
COLOURS = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}
#: Encodings of depth: type, and units per metre (REP-118).
DEPTHS = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 1000.0), "mono16": ("u2", 1000.0)}
_DEPTH_HEADER = struct.Struct("<iff")  # of compressedDepth: format, and two parameters of quantised floats


def stamp_of(data: bytes) -> float:
    """Seconds of the header that a serialised message (CDR) begins with."""
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds + nanoseconds * 1e-9


def encoding_of(message: Any) -> str:
    """The encoding of a ``sensor_msgs/Image`` or, without the compression, of a ``CompressedImage``."""
    return message.encoding if hasattr(message, "encoding") else message.format.partition(";")[0].strip()


def is_depth(message: Any) -> bool:
    """Whether an image message holds depth."""
    return encoding_of(message) in DEPTHS


def is_colour(message: Any) -> bool:
    """Whether an image message holds colours that can be read."""
    return not is_depth(message) if hasattr(message, "format") else message.encoding in COLOURS


def image_of(source: Path, topic: str, message: Any) -> NDArray[np.uint8]:
    """The image, uint8 RGB ``[H, W, 3]``, of a ``sensor_msgs/Image`` or ``CompressedImage``.

    Raises:
        ValueError: for another encoding, damaged data, or a side outside 16 to 8192 pixels.
    """
    name = f"{source}: {topic}"
    if hasattr(message, "format"):
        return decode_image(name, bytes(message.data))
    if message.encoding not in COLOURS:
        raise ValueError(f"{name}: expected an encoding among {[*COLOURS]}, got {message.encoding!r}")
    channels, conversion = COLOURS[message.encoding]
    pixels = _pixels(name, message, channels).reshape(message.height, message.width, channels)
    return pixels if conversion is None else np.asarray(cv2.cvtColor(pixels, conversion), dtype=np.uint8)


def depth_of(source: Path, topic: str, message: Any) -> NDArray[np.float32]:
    """Z-depth, float32 ``[H, W]`` metres, 0 where unknown, of a ``sensor_msgs/Image`` or ``CompressedImage``.

    Raises:
        ValueError: for another encoding, damaged data, or a side outside 16 to 8192 pixels.
    """
    name = f"{source}: {topic}"
    if (encoding := encoding_of(message)) not in DEPTHS:
        raise ValueError(f"{name}: expected an encoding among {[*DEPTHS]}, got {encoding!r}")
    kind, units = DEPTHS[encoding]
    if hasattr(message, "format"):
        depth = _compressed_depth(name, message.format, bytes(message.data), encoding)
    else:
        kind = (">" if message.is_bigendian else "<") + kind
        depth = _pixels(name, message, np.dtype(kind).itemsize).view(kind).astype(np.float32) / np.float32(units)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def lens_of_message(source: Path, topic: str, message: Any, rectified: bool) -> Lens:
    """The lens of a ``sensor_msgs/CameraInfo``.

    Args:
        source: for errors.
        topic: for errors.
        message: what says it.
        rectified: the images have no distortion left: their intrinsics are in P, where that is stated.

    Raises:
        ValueError: for an unknown distortion model or unusable intrinsics (all 0 of an uncalibrated camera).
    """
    K = np.array(message.k, dtype=np.float64).reshape(3, 3)
    distortion, model = tuple(map(float, message.d)), message.distortion_model
    if rectified:
        distortion, P = (), np.array(message.p, dtype=np.float64).reshape(3, 4)
        K = P[:, :3] if P.any() else K
    try:
        return lens_of(source, model, K, (message.height, message.width), distortion)
    except ValueError as error:
        raise ValueError(f"{error} ({topic})") from error


def _compressed_depth(name: str, form: str, data: bytes, encoding: str) -> NDArray[np.float32]:
    """Depth of a PNG, in metres; ROS's compressedDepth transport quantises the inverse of 32FC1."""
    if "rvl" in form.lower():
        raise ValueError(f"{name}: expected depth compressed as PNG, got {form!r}")
    if "compresseddepth" not in form.lower():
        return decode_depth(name, data, DEPTHS[encoding][1])
    if len(data) <= _DEPTH_HEADER.size:
        raise ValueError(f"{name}: expected a header and a PNG, got {len(data)} bytes")
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    if encoding != "32FC1":
        return decode_depth(name, data[_DEPTH_HEADER.size :], DEPTHS[encoding][1])
    codes = decode_depth(name, data[_DEPTH_HEADER.size :], 1.0)
    return np.where(codes > 0, a / np.where(codes > 0, codes - b, 1.0), 0.0).astype(np.float32)


def _pixels(name: str, message: Any, width_bytes: int) -> NDArray[np.uint8]:
    """The bytes ``[H, W * bytes per pixel]`` of a raw image, without what pads its rows."""
    height, width, step = message.height, message.width, message.step
    if not (MIN_SIDE <= min(height, width) and max(height, width) <= MAX_SIDE):
        raise ValueError(f"{name}: expected sides of {MIN_SIDE} to {MAX_SIDE} pixels, got {height} x {width}")
    data = np.frombuffer(message.data, np.uint8)
    if step < width * width_bytes or len(data) < step * height:
        raise ValueError(
            f"{name}: expected {height} rows of {width * width_bytes} bytes, "
            f"got rows of {step} bytes and {len(data)} bytes in all"
        )
    return data[: step * height].reshape(height, step)[:, : width * width_bytes].copy()
