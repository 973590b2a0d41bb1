"""Conversion of camera poses between OpenCV axes and the frames of ROS (REP-103, REP-105).

The package uses OpenCV axes: +x right, +y down, +z forward. Poses ``c2w`` are camera-to-world in a world whose first
camera usually stands at the origin. REP-103 bodies have +x forward, +y left, +z up. The tree of frames is::

    map -> odom -> base_link -> camera_link -> camera_optical_frame

``base_link`` lies on the floor below a level camera. ``map`` coincides with ``base_link`` when ``c2w`` is the identity.
All arrays are float64; ``b_from_a`` maps coordinates in frame ``a`` to frame ``b``.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mirage_sim.geometry import se3_log

Array = NDArray[np.float64]

MAP, ODOM, BASE, CAMERA, OPTICAL = "map", "odom", "base_link", "camera_link", "camera_optical_frame"
CAMERA_HEIGHT = 1.5  # metres, equal to mirage_sim.world.Body, whose import would load the networks

#: Rotation from the axes of an optical frame to those of a body.
BODY_FROM_OPTICAL: Array = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_TOLERANCE = 1e-3  # of a rigid motion's entries


def base_from_camera(camera_height: float = CAMERA_HEIGHT) -> Array:
    """Return the rigid motion ``[4, 4]`` from the camera's OpenCV axes to ``base_link``.

    Args:
        camera_height: metres from the floor to the camera.
    """
    out = np.eye(4)
    out[:3, :3] = BODY_FROM_OPTICAL
    out[2, 3] = camera_height
    return out


def map_from_base(c2w: ArrayLike, camera_height: float = CAMERA_HEIGHT) -> Array:
    """Convert a camera-to-world pose ``[4, 4]`` to the pose ``[4, 4]`` of ``base_link`` in ``map``.

    Raises:
        ValueError: if `c2w` is not a rigid motion.
    """
    # map lies in the world as base_link lies in the camera
    base = base_from_camera(camera_height)
    return base @ rigid("c2w", c2w) @ inverse(base)


def camera_pose(map_from_base: ArrayLike, camera_height: float = CAMERA_HEIGHT) -> Array:
    """Convert a pose ``[4, 4]`` of ``base_link`` in ``map`` to a camera-to-world pose ``[4, 4]``.

    Raises:
        ValueError: if it is not a rigid motion.
    """
    base = base_from_camera(camera_height)
    return inverse(base) @ rigid("map_from_base", map_from_base) @ base


def teleported(origin: ArrayLike, before: ArrayLike, after: ArrayLike) -> Array:
    """Move the origin of odometry with a teleport, so that ``odom -> base_link`` does not jump (REP-105).

    Args:
        origin: camera-to-world pose ``[4, 4]`` at which odometry was zero.
        before: camera-to-world pose before the teleport.
        after: camera-to-world pose after it.

    Returns:
        The new origin, a camera-to-world pose ``[4, 4]``.
    """
    return rigid("after", after) @ inverse(rigid("before", before)) @ rigid("origin", origin)


def velocity(before: ArrayLike, after: ArrayLike, dt: float, camera_height: float = CAMERA_HEIGHT) -> Array:
    """Compute the constant twist of ``base_link`` between two camera-to-world poses.

    Args:
        before: camera-to-world pose ``[4, 4]``.
        after: the next one.
        dt: seconds between them, positive.
        camera_height: metres.

    Returns:
        ``[6]`` in ``base_link``: linear x, y, z (m/s), then angular x, y, z (rad/s). +x is forward, +z a left turn.

    Raises:
        ValueError: if `dt` is not positive or a pose is not a rigid motion.
    """
    if not dt > 0:
        raise ValueError(f"dt: expected positive seconds, got {dt}")
    motion = inverse(map_from_base(before, camera_height)) @ map_from_base(after, camera_height)
    return se3_log(torch.from_numpy(motion)).numpy() / dt


def prefixed(fields: Any, prefix: str) -> Any:
    """Return the fields of a message with `prefix` before the names of all frames, ``frame_id`` and ``child_frame_id``.

    Empty names stay empty.
    """
    if not prefix:
        return fields
    if isinstance(fields, list):
        return [prefixed(entry, prefix) for entry in fields]
    if not isinstance(fields, dict):
        return fields
    named = ("frame_id", "child_frame_id")
    return {
        name: prefix + value if name in named and value else prefixed(value, prefix) for name, value in fields.items()
    }


def inverse(motion: Array) -> Array:
    """Return the inverse of a rigid motion ``[4, 4]``."""
    out = np.eye(4)
    out[:3, :3] = motion[:3, :3].T
    out[:3, 3] = -motion[:3, :3].T @ motion[:3, 3]
    return out


def rigid(name: str, motion: ArrayLike) -> Array:
    """Return a motion ``[4, 4]`` as float64 after checking that it is rigid.

    Raises:
        ValueError: with `name`, if it is not.
    """
    out = np.asarray(motion, dtype=np.float64)
    if out.shape != (4, 4):
        raise ValueError(f"{name}: expected a rigid motion [4, 4], got shape {list(out.shape)}")
    rotation, last = out[:3, :3], out[3]
    if (
        not np.isfinite(out).all()
        or np.abs(rotation @ rotation.T - np.eye(3)).max() > _TOLERANCE
        or np.linalg.det(rotation) < 0
        or np.abs(last - [0, 0, 0, 1]).max() > _TOLERANCE
    ):
        raise ValueError(f"{name}: expected a rigid motion (orthonormal, right-handed, last row 0 0 0 1), got {out}")
    return out
