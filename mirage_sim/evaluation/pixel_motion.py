"""Camera motion recovered from the pixels of two frames."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_CONSISTENT = 1.0  # pixels between a pixel and itself after the flow there and back
_SKY = 50.0  # metres; farther points say nothing about translation
_LEAST = 100  # correspondences
_AGREE = 0.6  # least share of correspondences that agree with the motion
_REPROJECTION = 1.0  # pixels; tolerance of an inlier
_ROUNDS = 6  # of fitting a pose and choosing the matches that agree with it
_TEXTURE = 1e-4  # smallest eigenvalue of the gradients' covariance where flow means something
_STRIDE = 2  # every second row and column is a correspondence


def motion_from_pixels(
    first: NDArray[np.uint8], second: NDArray[np.uint8], depth: NDArray[np.float32], K: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Estimate the motion of a camera between two frames, in metres by the true depth of the first.

    Dense optical flow (DIS, Kroeger et al. 2016) matches the frames; matches that do not agree there and back are
    dropped. The pose of the second camera follows from the first frame's points by minimising
    the reprojection error from a camera at rest, repeatedly, over the better half of the matches.

    Args:
        first: uint8 RGB ``[H, W, 3]``.
        second: uint8 RGB ``[H, W, 3]``.
        depth: true z-depth of the first camera, ``[H, W]`` metres.
        K: intrinsics ``[3, 3]``, with pixel centres at half-integers.

    Returns:
        ``[4, 4]``, such that ``c2w_second = c2w_first @ motion``; None if too few pixels match.
    """
    there, back = _flow(first, second), _flow(second, first)
    height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = columns + there[..., 0], rows + there[..., 1]
    returned = cv2.remap(back, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(1e3, 1e3, 0, 0))
    textured = np.minimum(*(cv2.cornerMinEigenVal(_grey(frame), 5) for frame in (first, second))) > _TEXTURE
    agrees = np.linalg.norm(there + returned, axis=-1) < _CONSISTENT
    used = np.zeros(depth.shape, dtype=bool)
    used[::_STRIDE, ::_STRIDE] = (agrees & textured & (depth > 0) & (depth < _SKY))[::_STRIDE, ::_STRIDE]
    if used.sum() < _LEAST:
        return None
    z = depth[used].astype(np.float64)
    pixels = np.stack([columns[used] + 0.5, rows[used] + 0.5], 1).astype(np.float64)
    points = np.column_stack([(pixels - K[:2, 2]) / K[[0, 1], [0, 1]] * z[:, None], z])
    matched = np.stack([x[used] + 0.5, y[used] + 0.5], 1).astype(np.float64)
    rotation: Any = np.zeros((3, 1))
    translation: Any = np.zeros((3, 1))
    inliers = np.ones(len(points), dtype=bool)
    for _ in range(_ROUNDS):
        _, rotation, translation = cv2.solvePnP(
            points[inliers], matched[inliers], K, None, rotation, translation, True, cv2.SOLVEPNP_ITERATIVE
        )
        residual = np.linalg.norm(cv2.projectPoints(points, rotation, translation, K, None)[0][:, 0] - matched, axis=1)
        inliers = residual < max(_REPROJECTION, float(np.median(residual)))
    if (residual < _REPROJECTION).sum() < max(_LEAST, _AGREE * len(points)):
        return None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(rotation)[0], translation[:, 0]
    return np.asarray(np.linalg.inv(pose), np.float64)


def _flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return where each pixel of the first frame moves, ``[H, W, 2]`` pixels right and down."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    estimator.setFinestScale(0)
    flow = np.zeros((*first.shape[:2], 2), np.float32)
    return np.asarray(estimator.calc(_grey(first), _grey(second), flow), np.float32)


def _grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


def rotation_angle(motion: NDArray[np.float64]) -> float:
    """Return the angle of a rotation ``[..., 3, 3]`` in degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1))))
