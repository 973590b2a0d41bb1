"""Arrays to messages and back. No ROS is imported here.

What goes out becomes *fields*: nested dicts of plain values with exactly the message's field names, complete, bulk data
as ``array.array``. The node turns them into rclpy messages (:func:`message`), the bag writer into those of ``rosbags``.
What comes in is any object with the message's attributes, whoever made its class.

Every ``seconds`` is simulation time. Poses are ours (camera-to-world, OpenCV axes); :mod:`mirage_sim.ros.frames` tells
what becomes of them.
"""

import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirage_sim.ros.frames import (
    BASE,
    BODY_FROM_OPTICAL,
    CAMERA,
    CAMERA_HEIGHT,
    MAP,
    ODOM,
    OPTICAL,
    base_from_camera,
    camera_from_base,
    camera_pose,
    inverse,
    map_from_base,
    quaternion_of,
    rotation_of,
    teleported,
    velocity,
)
from mirage_sim.ros.images import (
    bulk,
    camera_info,
    compressed_image,
    depth_image,
    depth_of,
    frame_of,
    image,
    intrinsics_of,
    mask_of,
    mono_image,
)
from mirage_sim.ros.messages import Fields, clock, diagnostics, header, message, seconds_of, stamp

__all__ = [
    "BASE",
    "CAMERA",
    "CAMERA_HEIGHT",
    "MAP",
    "MAX_DISTANCE",
    "MAX_RATE",
    "ODOM",
    "OPTICAL",
    "SCAN_RANGE",
    "Fields",
    "base_from_camera",
    "camera_from_base",
    "camera_info",
    "clock",
    "compressed_image",
    "depth_image",
    "depth_of",
    "diagnostics",
    "frame_of",
    "header",
    "image",
    "intrinsics_of",
    "laser_scan",
    "mask_of",
    "message",
    "mono_image",
    "odometry",
    "point_cloud",
    "pose_of",
    "seconds_of",
    "spatial_twist",
    "stamp",
    "static_transforms",
    "teleported",
    "transforms",
    "twist",
    "twist_of",
    "velocity",
]

SCAN_RANGE = 20.0  # metres; as far as mirage_sim.world.Body looks
MAX_RATE = 100.0  # m/s and rad/s; a faster command is a mistake, not a wish
MAX_DISTANCE = 10_000.0  # metres from the origin of the map, likewise

_FLOAT32 = 7  # of sensor_msgs/PointField


def odometry(
    c2w: ArrayLike, origin: ArrayLike, velocity: ArrayLike, seconds: float, camera_height: float = CAMERA_HEIGHT
) -> Fields:
    """``nav_msgs/Odometry`` of ``base_link`` in ``odom``; a perfect one, its covariances are 0.

    Args:
        c2w: camera-to-world pose ``[4, 4]``, where the camera is.
        origin: camera-to-world pose ``[4, 4]``, where odometry began.
        velocity: ``[6]`` in ``base_link``, as :func:`~mirage_sim.ros.frames.velocity` gives it.
        seconds: simulation time.
        camera_height: metres.

    Raises:
        ValueError: if a pose is no rigid motion.
    """
    pose = inverse(map_from_base(origin, camera_height)) @ map_from_base(c2w, camera_height)
    position, orientation = _pose(pose)
    return {
        "header": header(seconds, ODOM),
        "child_frame_id": BASE,
        "pose": {"pose": {"position": position, "orientation": orientation}, "covariance": [0.0] * 36},
        "twist": {"twist": spatial_twist(velocity), "covariance": [0.0] * 36},
    }


def twist(forward: float, turn: float) -> Fields:
    """``geometry_msgs/Twist`` of a forward speed (m/s) and a turn rate (rad/s, positive to the left)."""
    return spatial_twist([forward, 0.0, 0.0, 0.0, 0.0, turn])


def spatial_twist(velocity: ArrayLike) -> Fields:
    """``geometry_msgs/Twist`` of ``[6]``: linear x, y, z (m/s), then angular x, y, z (rad/s), in ``base_link``."""
    x, y, z, *angular = (float(value) for value in np.asarray(velocity))
    return {"linear": _vector((x, y, z)), "angular": _vector(angular)}


def transforms(c2w: ArrayLike, origin: ArrayLike, seconds: float, camera_height: float = CAMERA_HEIGHT) -> Fields:
    """``tf2_msgs/TFMessage`` of what moves: ``map`` -> ``odom`` -> ``base_link``.

    Args:
        c2w: camera-to-world pose ``[4, 4]``, where the camera is.
        origin: camera-to-world pose ``[4, 4]``, where odometry began.
        seconds: simulation time.
        camera_height: metres.

    Raises:
        ValueError: if a pose is no rigid motion.
    """
    map_from_odom = map_from_base(origin, camera_height)
    odom_from_base = inverse(map_from_odom) @ map_from_base(c2w, camera_height)
    return {
        "transforms": [
            _transform(map_from_odom, MAP, ODOM, seconds),
            _transform(odom_from_base, ODOM, BASE, seconds),
        ]
    }


def static_transforms(seconds: float = 0.0, camera_height: float = CAMERA_HEIGHT) -> Fields:
    """``tf2_msgs/TFMessage`` of what does not: ``base_link`` -> ``camera_link`` -> ``camera_optical_frame``."""
    mount, optical = np.eye(4), np.eye(4)
    mount[2, 3] = camera_height
    optical[:3, :3] = BODY_FROM_OPTICAL
    return {"transforms": [_transform(mount, BASE, CAMERA, seconds), _transform(optical, CAMERA, OPTICAL, seconds)]}


def twist_of(message: Any) -> tuple[float, float]:
    """Forward speed (m/s) and turn rate (rad/s, positive to the left) of a ``geometry_msgs/Twist`` or ``TwistStamped``.

    The other components say nothing to a base that drives and turns, but they must be sane as well.

    Raises:
        ValueError: naming the field, if one is not finite or beyond 100 m/s or rad/s.
    """
    command = getattr(message, "twist", message)
    for part, unit in (("linear", "m/s"), ("angular", "rad/s")):
        for axis in "xyz":
            _check_number(f"{part}.{axis}", getattr(getattr(command, part), axis), MAX_RATE, unit)
    return command.linear.x, command.angular.z


def pose_of(message: Any, camera_height: float = CAMERA_HEIGHT) -> NDArray[np.float32]:
    """The camera-to-world pose, float32 ``[4, 4]``, of a ``geometry_msgs/PoseWithCovarianceStamped`` of ``base_link``.

    Raises:
        ValueError: naming the field, if the frame is not ``map``, a number is not finite or absurd, or the orientation
            is no unit quaternion (within 1 %).
    """
    if message.header.frame_id != MAP:
        raise ValueError(f"header.frame_id: expected {MAP!r}, got {message.header.frame_id!r}")
    position, orientation = message.pose.pose.position, message.pose.pose.orientation
    for axis in "xyz":
        _check_number(f"position.{axis}", getattr(position, axis), MAX_DISTANCE, "m")
    for axis in "xyzw":
        _check_number(f"orientation.{axis}", getattr(orientation, axis), 2.0, "")
    quaternion = np.array([orientation.x, orientation.y, orientation.z, orientation.w])
    if abs(float(np.linalg.norm(quaternion)) - 1) > 0.01:
        raise ValueError(f"orientation: expected a unit quaternion, got {quaternion.tolist()}")
    pose = np.eye(4)
    pose[:3, :3] = rotation_of(quaternion)
    pose[:3, 3] = position.x, position.y, position.z
    return camera_pose(pose, camera_height).astype(np.float32)


def _check_number(name: str, value: float, limit: float, unit: str) -> None:
    if not abs(value) <= limit:  # true for NaN, too
        raise ValueError(f"{name}: expected at most {limit:g} {unit}".rstrip() + f" in size, got {value}")


def _vector(values: Sequence[float] | NDArray[np.float64]) -> Fields:
    return {axis: float(value) for axis, value in zip("xyz", values, strict=True)}


def _pose(motion: NDArray[np.float64]) -> tuple[Fields, Fields]:
    orientation = zip("xyzw", quaternion_of(motion[:3, :3]).tolist(), strict=True)
    return _vector(motion[:3, 3]), dict(orientation)


def _transform(parent_from_child: NDArray[np.float64], parent: str, child: str, seconds: float) -> Fields:
    translation, rotation = _pose(parent_from_child)
    return {
        "header": header(seconds, parent),
        "child_frame_id": child,
        "transform": {"translation": translation, "rotation": rotation},
    }


def point_cloud(
    xyz: NDArray[np.float32], rgb: NDArray[np.uint8], seconds: float, camera_height: float = CAMERA_HEIGHT
) -> Fields:
    """``sensor_msgs/PointCloud2`` with x, y, z and rgb in ``map``.

    Args:
        xyz: points ``[N, 3]`` in our world (OpenCV axes), metres.
        rgb: their colours, uint8 ``[N, 3]``.
        seconds: simulation time.
        camera_height: metres.

    Raises:
        ValueError: if the shapes or the colours' type do not fit.
    """
    xyz, rgb = np.asarray(xyz), np.asarray(rgb)
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise ValueError(f"xyz: expected [N, 3], got {list(xyz.shape)}")
    if rgb.shape != xyz.shape or rgb.dtype != np.uint8:
        raise ValueError(f"rgb: expected uint8 {list(xyz.shape)}, got {rgb.dtype} {list(rgb.shape)}")
    map_from_world = base_from_camera(camera_height)
    points = np.empty((len(xyz), 4), "<u4")
    points[:, :3] = (xyz @ map_from_world[:3, :3].T + map_from_world[:3, 3]).astype("<f4").view("<u4")
    red, green, blue = rgb.T.astype(np.uint32)
    points[:, 3] = red << 16 | green << 8 | blue
    names = ("x", "y", "z", "rgb")
    return {
        "header": header(seconds, MAP),
        "height": 1,
        "width": len(points),
        "fields": [{"name": name, "offset": 4 * i, "datatype": _FLOAT32, "count": 1} for i, name in enumerate(names)],
        "is_bigendian": False,
        "point_step": 16,
        "row_step": 16 * len(points),
        "data": bulk(points),
        "is_dense": bool(np.isfinite(xyz).all()),
    }


def laser_scan(ranges: NDArray[np.float32], seconds: float, frame_id: str = BASE, scan_time: float = 0.0) -> Fields:
    """``sensor_msgs/LaserScan`` of the environment's ``info["scan"]``, whose order is ROS's own.

    Args:
        ranges: float32 ``[rays]``, metres from the body's axis, infinite where nothing is; the first straight back,
            then by the right to ahead and the left.
        seconds: simulation time.
        frame_id: of a frame on the body's axis, x forward.
        scan_time: seconds between scans.
    """
    rays = len(ranges)
    spacing = 2 * math.pi / rays
    return {
        "header": header(seconds, frame_id),
        "angle_min": -math.pi,
        "angle_max": -math.pi + (rays - 1) * spacing,
        "angle_increment": spacing,
        "time_increment": 0.0,
        "scan_time": scan_time,
        "range_min": 0.0,
        "range_max": SCAN_RANGE,
        "ranges": array("f", ranges.tolist()),
        "intensities": array("f"),
    }
