"""Lenses of recorded images: intrinsics with distortion, and images without it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mirage_sim.world.images import MAX_SIDE, MIN_SIDE

#: Distortion models by the names that ROS, nerfstudio and Kalibr use, and the numbers of coefficients that they take.
BROWN, FISHEYE = "brown", "fisheye"
MODELS = {
    "": (BROWN, (0,)),
    "plumb_bob": (BROWN, (0, 4, 5)),
    "rational_polynomial": (BROWN, (0, 8, 12, 14)),
    "equidistant": (FISHEYE, (0, 4)),
}
_BOUND = 0.52  # of the image's sides, from its middle: 2 % beyond its edge


@dataclass(frozen=True)
class Lens:
    """Intrinsics and distortion of one camera.

    Attributes:
        focal: ``(fx, fy)`` in pixels.
        centre: ``(cx, cy)`` in pixels, the corner of the image at (0, 0) as in :class:`~mirage_sim.geometry.Camera`:
            half a pixel more than OpenCV and ROS state.
        size: ``(height, width)`` in pixels.
        distortion: coefficients in OpenCV's order: k1, k2, p1, p2, k3, ... of ``brown``, k1 to k4 of ``fisheye``.
        model: ``brown`` or ``fisheye``.
    """

    focal: tuple[float, float]
    centre: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()
    model: str = BROWN

    @property
    def K(self) -> NDArray[np.float64]:  # noqa: N802
        """Intrinsics ``[3, 3]``, in pixels."""
        (fx, fy), (cx, cy) = self.focal, self.centre
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    def validate(self, source: Path) -> "Lens":
        """Return self if this is a usable lens.

        Raises:
            ValueError: naming ``source`` and what is wrong.
        """
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in self.size):
            raise ValueError(
                f"{source}: expected images with sides of {MIN_SIDE} to {MAX_SIDE} pixels, got {list(self.size)}"
            )
        numbers = (*self.focal, *self.centre, *self.distortion)
        if not np.isfinite(numbers).all() or min(self.focal) <= 0:
            raise ValueError(f"{source}: expected finite intrinsics with positive focal lengths, got {list(numbers)}")
        return self


def lens_of(
    source: Path, name: str, K: NDArray[np.float64], size: tuple[int, int], distortion: tuple[float, ...]
) -> Lens:
    """A checked lens of a distortion model of ROS.

    Args:
        source: for errors.
        name: one of :data:`MODELS`.
        K: intrinsics ``[3, 3]`` as OpenCV and ROS state them: the centre of the first pixel at (0, 0).
        size: ``(height, width)``.
        distortion: coefficients.

    Raises:
        ValueError: for an unknown model, a wrong number of coefficients or unusable intrinsics.
    """
    if name not in MODELS:
        raise ValueError(f"{source}: expected a distortion model among {[*MODELS][1:]}, got {name!r}")
    model, counts = MODELS[name]
    if len(distortion) not in counts:
        raise ValueError(f"{source}: expected {counts} coefficients of {name!r}, got {len(distortion)}")
    centre = float(K[0, 2]) + 0.5, float(K[1, 2]) + 0.5
    return Lens((float(K[0, 0]), float(K[1, 1])), centre, size, distortion, model).validate(source)


def undistort(source: Path, lens: Lens, image: Any, depth: Any) -> tuple[Any, Any, NDArray[np.float64]]:
    """Image and depth as a pinhole camera of the same size would have taken them.

    Args:
        source: for errors.
        lens: that took them.
        image: uint8 ``[H, W, 3]``.
        depth: z-depth, float32 ``[H, W]``, or None; takes the nearest value, so that 0 never mixes with metres.

    Returns:
        Image, depth and intrinsics ``[3, 3]``, which are cut such that every pixel was seen.

    Raises:
        ValueError: if the coefficients fold the image onto itself.
    """
    if not any(lens.distortion):
        return image, depth, lens.K
    if (maps := _maps(lens)) is None:
        raise ValueError(f"{source}: expected distortion that can be undone, got coefficients {list(lens.distortion)}")
    K, (x, y), (nearest_x, nearest_y) = maps
    image = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if depth is not None:
        depth = cv2.remap(depth, nearest_x, nearest_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return image, depth, K


@lru_cache(maxsize=8)
def _maps(lens: Lens) -> tuple[NDArray[np.float64], Any, Any] | None:
    """Intrinsics of the pinhole camera, and where its pixels are in the distorted image: for colours and for depth.

    None if the distortion folds the image onto itself, or OpenCV finds no pinhole camera whose pixels were all seen.
    """
    K, coefficients, size = lens.K, np.array(lens.distortion), (lens.size[1], lens.size[0])
    K[:2, 2] -= 0.5
    if lens.model == FISHEYE:
        pinhole = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(K, coefficients, size, np.eye(3), balance=0.0)
        x, y = cv2.fisheye.initUndistortRectifyMap(K, coefficients, np.eye(3), pinhole, size, cv2.CV_32FC1)
    else:
        pinhole, _ = cv2.getOptimalNewCameraMatrix(K, coefficients, size, 0.0)
        x, y = cv2.initUndistortRectifyMap(K, coefficients, np.eye(3), pinhole, size, cv2.CV_32FC1)
    inside = (np.abs(x / size[0] - 0.5) < _BOUND).all() and (np.abs(y / size[1] - 0.5) < _BOUND).all()  # not if NaN
    if not inside or not (np.diff(x, axis=1) > 0).all() or not (np.diff(y, axis=0) > 0).all():
        return None
    shift = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    linear = cv2.convertMaps(x, y, cv2.CV_16SC2)
    nearest = cv2.convertMaps(x, y, cv2.CV_16SC2, nninterpolation=True)
    return np.asarray(pinhole, dtype=np.float64) + shift, linear, nearest
