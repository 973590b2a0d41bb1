"""Rotation matrices as unit quaternions (x, y, z, w), and back."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def quaternion_of(rotation: ArrayLike) -> Array:
    """Convert a rotation ``[3, 3]`` to a unit quaternion ``[4]`` (x, y, z, w) with w >= 0.

    The quaternion is the eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack, "New method for
    extracting the quaternion from a rotation matrix", 2000). This is as accurate near half turns as elsewhere, and
    yields the nearest rotation if rounding has made the matrix slightly non-orthonormal.
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
    """Convert a quaternion ``[4]`` (x, y, z, w) of any length but 0 to a rotation ``[3, 3]``."""
    x, y, z, w = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
