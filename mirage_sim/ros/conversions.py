"""Arrays to ROS messages and back, without importing ROS.

Outgoing messages are *fields*: nested dicts of plain values with all field names of the message type, and bulk data as
``array.array``. :func:`message` fills rclpy messages from them, the bag writer those of ``rosbags``. Incoming messages
may be of any class that has the attributes of the message type.

``seconds`` is simulation time. Poses are camera-to-world with OpenCV axes; see :mod:`mirage_sim.ros.frames`. All
functions raise ``ValueError`` with the name of the argument or field that is unusable.
"""

import importlib
import math
from array import array
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirage_sim.geometry.quaternions import quaternion_of, rotation_of
from mirage_sim.ros.frames import (
    BASE,
    BODY_FROM_OPTICAL,
    CAMERA,
    CAMERA_HEIGHT,
    MAP,
    ODOM,
    OPTICAL,
    camera_pose,
    inverse,
    map_from_base,
)

Fields = dict[str, Any]
Message = TypeVar("Message")

MAX_RATE = 100.0  # m/s and rad/s; faster commands are refused as mistakes
MAX_DISTANCE = 10_000.0  # metres from the origin of the map, likewise
MAX_POSES = 1000  # of a path

_BYTES_PER_PIXEL = {"rgb8": 3, "bgr8": 3, "mono8": 1, "32FC1": 4}


def message(cls: type[Message], fields: Mapping[str, Any]) -> Message:
    """Create an rclpy message from fields. Missing fields keep their defaults.

    Args:
        cls: an rclpy message class.
        fields: nested dicts and lists, as the functions of this module return them.
    """
    kinds: Mapping[str, str] = cls.get_fields_and_field_types()  # type: ignore[attr-defined]
    result = cls()
    for name, value in fields.items():
        if name not in kinds:
            raise ValueError(f"{name}: expected a field of {cls.__name__} ({', '.join(kinds)})")
        if isinstance(value, Mapping):
            value = message(type(getattr(result, name)), value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            package, kind = kinds[name].removeprefix("sequence<").removesuffix(">").split("/")
            element = getattr(importlib.import_module(f"{package}.msg"), kind)
            value = [message(element, entry) for entry in value]
        setattr(result, name, value)
    return result


def bulk(values: np.ndarray) -> "array[int]":
    """Return the bytes of an array as ``array.array``, the only type that rclpy copies without checking each byte."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data


def stamp(seconds: float) -> Fields:
    """Return ``builtin_interfaces/Time``, rounded to nanoseconds: ``0.1 * 3`` is 300,000,000 ns."""
    if not (math.isfinite(seconds) and 0 <= seconds < 2**31 - 1):
        raise ValueError(f"seconds: expected a time in [0, 2^31 - 1), got {seconds}")
    sec, nanosec = divmod(round(Fraction(seconds) * 10**9), 10**9)
    return {"sec": sec, "nanosec": nanosec}


def seconds_of(time: Any) -> float:
    """Return the seconds of a ``builtin_interfaces/Time``."""
    return time.sec + time.nanosec * 1e-9


def header(seconds: float, frame_id: str) -> Fields:
    """Return ``std_msgs/Header``."""
    return {"stamp": stamp(seconds), "frame_id": frame_id}


def clock(seconds: float) -> Fields:
    """Return ``rosgraph_msgs/Clock``."""
    return {"clock": stamp(seconds)}


def diagnostics(
    name: str,
    values: Mapping[str, object],
    seconds: float,
    warning: str = "",
    hardware_id: str = "",
    problems: Mapping[str, str] | None = None,
) -> Fields:
    """Return ``diagnostic_msgs/DiagnosticArray`` with a status of the node and one of each problem.

    Args:
        name: of the status.
        values: measured values by key.
        seconds: simulation time.
        warning: message of a status of level WARN; empty for OK.
        hardware_id: of the device.
        problems: texts by kind; each becomes a status ``name: kind`` of level WARN.
    """
    status = {
        "level": b"\1" if warning else b"\0",
        "name": name,
        "message": warning or "ok",
        "hardware_id": hardware_id,
        "values": [{"key": key, "value": str(value)} for key, value in values.items()],
    }
    others = [
        status | {"level": b"\1", "name": f"{name}: {kind}", "message": text, "values": []}
        for kind, text in (problems or {}).items()
    ]
    return {"header": header(seconds, ""), "status": [status, *others]}


# Motion


def odometry(
    c2w: ArrayLike, origin: ArrayLike, velocity: ArrayLike, seconds: float, camera_height: float = CAMERA_HEIGHT
) -> Fields:
    """Return ``nav_msgs/Odometry`` of ``base_link`` in ``odom``. It is exact: its covariances are 0.

    Args:
        c2w: camera-to-world pose ``[4, 4]``.
        origin: camera-to-world pose ``[4, 4]`` at which odometry is zero.
        velocity: ``[6]`` in ``base_link``, as :func:`~mirage_sim.ros.frames.velocity` returns it.
        seconds: simulation time.
        camera_height: metres.
    """
    position, orientation = _pose(inverse(map_from_base(origin, camera_height)) @ map_from_base(c2w, camera_height))
    return {
        "header": header(seconds, ODOM),
        "child_frame_id": BASE,
        "pose": {"pose": {"position": position, "orientation": orientation}, "covariance": [0.0] * 36},
        "twist": {"twist": spatial_twist(velocity), "covariance": [0.0] * 36},
    }


def transforms(c2w: ArrayLike, origin: ArrayLike, seconds: float, camera_height: float = CAMERA_HEIGHT) -> Fields:
    """Return ``tf2_msgs/TFMessage`` with ``map -> odom -> base_link``; arguments as of :func:`odometry`."""
    map_from_odom = map_from_base(origin, camera_height)
    odom_from_base = inverse(map_from_odom) @ map_from_base(c2w, camera_height)
    moving = transform(map_from_odom, MAP, ODOM, seconds), transform(odom_from_base, ODOM, BASE, seconds)
    return {"transforms": list(moving)}


def static_transforms(seconds: float = 0.0, camera_height: float = CAMERA_HEIGHT) -> Fields:
    """Return ``tf2_msgs/TFMessage`` with ``base_link -> camera_link -> camera_optical_frame``."""
    mount, optical = np.eye(4), np.eye(4)
    mount[2, 3] = camera_height
    optical[:3, :3] = BODY_FROM_OPTICAL
    return {"transforms": [transform(mount, BASE, CAMERA, seconds), transform(optical, CAMERA, OPTICAL, seconds)]}


def twist(forward: float, turn: float) -> Fields:
    """Return ``geometry_msgs/Twist`` of a forward speed (m/s) and a turn rate (rad/s, positive to the left)."""
    return spatial_twist([forward, 0.0, 0.0, 0.0, 0.0, turn])


def spatial_twist(velocity: ArrayLike) -> Fields:
    """Return ``geometry_msgs/Twist`` of ``[6]`` in ``base_link``: linear x, y, z (m/s), angular x, y, z (rad/s)."""
    values = np.asarray(velocity)
    return {"linear": _vector(values[:3]), "angular": _vector(values[3:])}


def twist_of(message: Any) -> tuple[float, float]:
    """Return forward speed (m/s) and turn rate (rad/s, positive to the left) of a ``Twist`` or ``TwistStamped``.

    The other components are ignored. Every component must be finite and at most 100 m/s or rad/s.
    """
    command = getattr(message, "twist", message)
    for part, unit in (("linear", "m/s"), ("angular", "rad/s")):
        for axis in "xyz":
            _check_number(f"{part}.{axis}", getattr(getattr(command, part), axis), MAX_RATE, unit)
    return command.linear.x, command.angular.z


def pose_of(message: Any, camera_height: float = CAMERA_HEIGHT, frame: str = MAP) -> NDArray[np.float32]:
    """Convert a ``geometry_msgs/PoseWithCovarianceStamped`` of ``base_link`` in `frame` to a camera-to-world pose.

    The position must be within 10 km, and the orientation a unit quaternion to within 1 %.

    Returns:
        float32 ``[4, 4]``.
    """
    _check_frame(message.header, frame)
    return _camera_of(message.pose.pose, camera_height)


def path_of(message: Any, camera_height: float = CAMERA_HEIGHT, frame: str = MAP) -> list[NDArray[np.float32]]:
    """Convert a ``nav_msgs/Path`` of ``base_link`` in `frame` to camera-to-world poses; see :func:`pose_of`.

    A path has 1 to 1,000 poses. Poses without a frame of their own are in that of the path.
    """
    if not 1 <= len(message.poses) <= MAX_POSES:
        raise ValueError(f"poses: expected 1 to {MAX_POSES}, got {len(message.poses)}")
    _check_frame(message.header, frame)
    for pose in message.poses:
        if pose.header.frame_id:
            _check_frame(pose.header, frame)
    return [_camera_of(pose.pose, camera_height) for pose in message.poses]


def _check_frame(header: Any, frame: str) -> None:
    if header.frame_id != frame:
        raise ValueError(f"header.frame_id: expected {frame!r}, got {header.frame_id!r}")


def _camera_of(pose: Any, camera_height: float) -> NDArray[np.float32]:
    position, orientation = pose.position, pose.orientation
    for axis in "xyz":
        _check_number(f"position.{axis}", getattr(position, axis), MAX_DISTANCE, "m")
    for axis in "xyzw":
        _check_number(f"orientation.{axis}", getattr(orientation, axis), 2.0, "")
    quaternion = np.array([orientation.x, orientation.y, orientation.z, orientation.w])
    if abs(float(np.linalg.norm(quaternion)) - 1) > 0.01:
        raise ValueError(f"orientation: expected a unit quaternion, got {quaternion.tolist()}")
    base = np.eye(4)
    base[:3, :3] = rotation_of(quaternion)
    base[:3, 3] = position.x, position.y, position.z
    return camera_pose(base, camera_height).astype(np.float32)


def _check_number(name: str, value: float, limit: float, unit: str) -> None:
    if not abs(value) <= limit:  # also refuses NaN
        raise ValueError(f"{name}: expected at most {limit:g} {unit}".rstrip() + f" in size, got {value}")


def _vector(values: Sequence[float] | NDArray[np.float64]) -> Fields:
    return {axis: float(value) for axis, value in zip("xyz", values, strict=True)}


def _pose(motion: NDArray[np.float64]) -> tuple[Fields, Fields]:
    orientation = zip("xyzw", quaternion_of(motion[:3, :3]).tolist(), strict=True)
    return _vector(motion[:3, 3]), dict(orientation)


def transform(parent_from_child: NDArray[np.float64], parent: str, child: str, seconds: float) -> Fields:
    """Return ``geometry_msgs/TransformStamped`` of a rigid motion ``[4, 4]``."""
    translation, rotation = _pose(parent_from_child)
    return {
        "header": header(seconds, parent),
        "child_frame_id": child,
        "transform": {"translation": translation, "rotation": rotation},
    }


# Images and cameras


def image(frame: NDArray[np.uint8], seconds: float) -> Fields:
    """Return ``sensor_msgs/Image`` in rgb8 of a frame, uint8 ``[H, W, 3]``."""
    return _image(_checked("frame", frame, np.uint8, "[H, W, 3]"), "rgb8", seconds)


def mono_image(mask: NDArray[np.bool_], seconds: float) -> Fields:
    """Return ``sensor_msgs/Image`` in mono8 of a mask, bool ``[H, W]``: 255 where true, 0 elsewhere."""
    mask = _checked("mask", mask, np.bool_, "[H, W]")
    return _image(mask.astype(np.uint8) * np.uint8(255), "mono8", seconds)


def depth_image(depth: NDArray[np.float32], seconds: float) -> Fields:
    """Return ``sensor_msgs/Image`` in 32FC1 (metres, REP-118) of z-depth, float32 ``[H, W]``.

    Depth that is 0, negative or not finite becomes NaN.
    """
    depth = _checked("depth", depth, np.float32, "[H, W]")
    known = np.isfinite(depth) & (depth > 0)
    return _image(np.where(known, depth, np.float32(np.nan)).astype("<f4"), "32FC1", seconds)


def compressed_image(frame: NDArray[np.uint8], seconds: float, quality: int = 80) -> Fields:
    """Return ``sensor_msgs/CompressedImage``, a JPEG of `quality` 1 to 100, of a frame, uint8 ``[H, W, 3]``."""
    frame = _checked("frame", frame, np.uint8, "[H, W, 3]")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return {"header": header(seconds, OPTICAL), "format": "rgb8; jpeg compressed bgr8", "data": bulk(encoded)}


def camera_info(K: ArrayLike, size: tuple[int, int], seconds: float) -> Fields:  # noqa: N803
    """Return ``sensor_msgs/CameraInfo`` of an undistorted camera.

    Args:
        K: intrinsics ``[3, 3]`` with pixel centres at +1/2. ROS places the centre of the first pixel at 0, so its
            principal point is smaller by 1/2.
        size: ``(height, width)`` in pixels.
        seconds: simulation time.
    """
    ros = np.array(K, dtype=np.float64)
    if ros.shape != (3, 3):
        raise ValueError(f"K: expected [3, 3], got {list(ros.shape)}")
    ros[:2, 2] -= 0.5
    return {
        "header": header(seconds, OPTICAL),
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
    """Return the frame, uint8 RGB ``[H, W, 3]``, of a ``sensor_msgs/Image`` in rgb8 or bgr8."""
    pixels = _pixels(message, "rgb8", "bgr8").reshape(message.height, message.width, 3)
    return pixels if message.encoding == "rgb8" else np.ascontiguousarray(pixels[..., ::-1])


def depth_of(message: Any) -> NDArray[np.float32]:
    """Return z-depth, float32 ``[H, W]`` in metres, 0 where unknown, of a ``sensor_msgs/Image`` in 32FC1."""
    depth = _pixels(message, "32FC1").view(">f4" if message.is_bigendian else "<f4").astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def mask_of(message: Any) -> NDArray[np.bool_]:
    """Return the mask, bool ``[H, W]``, of a ``sensor_msgs/Image`` in mono8."""
    return _pixels(message, "mono8") != 0


def _checked(name: str, values: Any, dtype: type, shape: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype != dtype or values.ndim != shape.count(",") + 1 or (values.ndim == 3 and values.shape[2] != 3):
        raise ValueError(f"{name}: expected {np.dtype(dtype)} {shape}, got {values.dtype} {list(values.shape)}")
    return values


def _image(pixels: np.ndarray, encoding: str, seconds: float) -> Fields:
    height, width = pixels.shape[:2]
    return {
        "header": header(seconds, OPTICAL),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": width * _BYTES_PER_PIXEL[encoding],
        "data": bulk(pixels),
    }


def _pixels(message: Any, *encodings: str) -> NDArray[np.uint8]:
    """Return the bytes ``[H, W * bytes per pixel]`` of an image without the padding of its rows."""
    if message.encoding not in encodings:
        raise ValueError(f"encoding: expected {' or '.join(encodings)}, got {message.encoding!r}")
    width = message.width * _BYTES_PER_PIXEL[message.encoding]
    data = np.frombuffer(message.data, np.uint8)
    if message.step < width or len(data) < message.step * message.height:
        raise ValueError(
            f"data: expected {message.height} rows of {width} bytes, "
            f"got rows of {message.step} bytes and {len(data)} bytes in all"
        )
    rows = data[: message.step * message.height].reshape(message.height, message.step)
    return np.ascontiguousarray(rows[:, :width])
