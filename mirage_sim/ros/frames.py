"""Camera poses as ROS frames: the only place, with ``conversions``, that knows REP-103's axes.

Ours is OpenCV: +x right, +y down, +z forward, poses ``c2w`` in a world whose first camera usually stands at the origin.
REP-103 has +x forward, +y left, +z up. The tree is REP-105's, with an optical frame at its end::

    map -> odom -> base_link -> camera_link -> camera_optical_frame

``base_link`` lies on the floor below a level camera, ``map`` where ``base_link`` is when ``c2w`` is the identity. All
arrays are float64; ``b_from_a`` takes coordinates in frame ``a`` to frame ``b``.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mirage_sim.geometry import se3_log

Array = NDArray[np.float64]

MAP, ODOM, BASE, CAMERA, OPTICAL = "map", "odom", "base_link", "camera_link", "camera_optical_frame"
CAMERA_HEIGHT = 1.5  # metres; as mirage_sim.world.Body has it, which is not imported: it brings the networks along

#: What is right, down, forward of a camera, in the axes of a body.
BODY_FROM_OPTICAL: Array = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_RIGID = 1e-3  # how far from orthonormal a rotation may be


def base_from_camera(camera_height: float = CAMERA_HEIGHT) -> Array:
    """Rigid motion ``[4, 4]`` from the camera's OpenCV axes to ``base_link``.

    Args:
        camera_height: metres from the floor to the camera.
    """
    out = np.eye(4)
    out[:3, :3] = BODY_FROM_OPTICAL
    out[2, 3] = camera_height
    return out


def camera_from_base(camera_height: float = CAMERA_HEIGHT) -> Array:
    """Rigid motion ``[4, 4]`` from ``base_link`` to the camera's OpenCV axes."""
    return inverse(base_from_camera(camera_height))


def map_from_base(c2w: ArrayLike, camera_height: float = CAMERA_HEIGHT) -> Array:
    """The pose ``[4, 4]`` of ``base_link`` in ``map``, of a camera-to-world pose ``[4, 4]``.

    Raises:
        ValueError: if ``c2w`` is no rigid motion.
    """
    # map lies in the world as base_link does in the camera
    return base_from_camera(camera_height) @ rigid("c2w", c2w) @ camera_from_base(camera_height)


def camera_pose(map_from_base: ArrayLike, camera_height: float = CAMERA_HEIGHT) -> Array:
    """The camera-to-world pose ``[4, 4]`` of a pose of ``base_link`` in ``map``.

    Raises:
        ValueError: if it is no rigid motion.
    """
    return camera_from_base(camera_height) @ rigid("map_from_base", map_from_base) @ base_from_camera(camera_height)


def teleported(origin: ArrayLike, before: ArrayLike, after: ArrayLike) -> Array:
    """Where odometry began, seen from behind a jump, such that ``odom`` -> ``base_link`` does not jump (REP-105).

    Args:
        origin: camera-to-world pose ``[4, 4]`` at which odometry was zero.
        before: camera-to-world pose before the jump.
        after: camera-to-world pose after it.

    Returns:
        The new origin, a camera-to-world pose ``[4, 4]``.
    """
    return rigid("after", after) @ inverse(rigid("before", before)) @ rigid("origin", origin)


def velocity(before: ArrayLike, after: ArrayLike, dt: float, camera_height: float = CAMERA_HEIGHT) -> Array:
    """The constant twist of ``base_link`` that leads from one camera-to-world pose to the next.

    Args:
        before: camera-to-world pose ``[4, 4]``.
        after: the next one.
        dt: seconds between them, positive.
        camera_height: metres.

    Returns:
        ``[6]`` in ``base_link``: linear x, y, z (m/s), then angular x, y, z (rad/s); x is forward, a left turn is +z.

    Raises:
        ValueError: if ``dt`` is not positive or a pose is no rigid motion.
    """
    if not dt > 0:
        raise ValueError(f"dt: expected positive seconds, got {dt}")
    motion = inverse(map_from_base(before, camera_height)) @ map_from_base(after, camera_height)
    return se3_log(torch.from_numpy(motion)).numpy() / dt


def inverse(motion: Array) -> Array:
    """Inverse of a rigid motion ``[4, 4]``, from the transpose of the rotation."""
    out = np.eye(4)
    out[:3, :3] = motion[:3, :3].T
    out[:3, 3] = -motion[:3, :3].T @ motion[:3, 3]
    return out


def rigid(name: str, motion: ArrayLike) -> Array:
    """A motion ``[4, 4]`` as float64, once it is known to be rigid.

    Raises:
        ValueError: naming it, if it is not.
    """
    out = np.asarray(motion, dtype=np.float64)
    if out.shape != (4, 4):
        raise ValueError(f"{name}: expected a rigid motion [4, 4], got shape {list(out.shape)}")
    rotation, last = out[:3, :3], out[3]
    if (
        not np.isfinite(out).all()
        or np.abs(rotation @ rotation.T - np.eye(3)).max() > _RIGID
        or np.linalg.det(rotation) < 0
        or np.abs(last - [0, 0, 0, 1]).max() > _RIGID
    ):
        raise ValueError(f"{name}: expected a rigid motion (orthonormal, right-handed, last row 0 0 0 1), got {out}")
    return out


def quaternion_of(rotation: ArrayLike) -> Array:
    """The unit quaternion ``[4]`` (x, y, z, w), w not negative, of a rotation ``[3, 3]``.

    It is read from the eigenvector of the largest eigenvalue of Bar-Itzhack's symmetric matrix, which is as exact near
    half a turn as elsewhere and takes the nearest rotation of a matrix that rounding has made not quite orthonormal.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = np.asarray(rotation, dtype=np.float64)
    symmetric = np.array(
        [
            [xx - yy - zz, xy + yx, xz + zx, zy - yz],
            [xy + yx, yy - xx - zz, yz + zy, xz - zx],
            [xz + zx, yz + zy, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    largest = np.linalg.eigh(symmetric)[1][:, -1]
    return np.asarray(-largest if largest[3] < 0 else largest)


def rotation_of(quaternion: ArrayLike) -> Array:
    """The rotation ``[3, 3]`` of a quaternion ``[4]`` (x, y, z, w) of any length but 0."""
    x, y, z, w = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
