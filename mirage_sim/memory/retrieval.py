"""Retrieval of reference frames by voxel overlap.

The voxels of a frame are stored as bricks of 4 x 4 x 4, one bit per voxel. Comparing two frames then takes a few
hundred words instead of tens of thousands of points. Everything here runs on the host.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mirage_sim.memory.compilation import compiled

_BITS = 21  # per axis of a voxel's packed coordinates
_REACH = 1 << (_BITS - 1)  # voxels on each side of the origin, per axis; farther points share the outermost voxel


class Occupancy(NamedTuple):
    """A set of voxels.

    Attributes:
        bricks: int64 ``[n]``, packed coordinates of the non-empty bricks, ascending.
        masks: uint64 ``[n]``, one bit per voxel of the brick.
    """

    bricks: np.ndarray
    masks: np.ndarray


def occupancy(points: Tensor, voxel: float = 0.1) -> Occupancy:
    """Return the voxels that contain points.

    Args:
        points: ``[..., 3]`` metres, world frame.
        voxel: edge of a voxel in metres. Points more than 2^20 voxels from the origin are clamped.

    Raises:
        ValueError: if the points are not finite triples or the edge is not positive.
    """
    if not 0.0 < voxel < float("inf"):
        raise ValueError(f"voxel: expected a positive length in metres, got {voxel}")
    if points.shape[-1:] != (3,):
        raise ValueError(f"points: expected [..., 3], got {list(points.shape)}")
    xyz = points.detach().float().cpu().numpy().reshape(-1, 3)
    if not np.isfinite(xyz).all():
        raise ValueError("points: expected finite coordinates")
    bricks, masks = _runs(xyz, np.float32(voxel))
    order = np.argsort(bricks)
    return Occupancy(*_merge(bricks[order], masks[order]))


@compiled
def _runs(xyz: np.ndarray, voxel: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Return bricks and masks of points, one entry per run of consecutive points in the same brick."""
    bricks, masks = np.empty(len(xyz), np.int64), np.empty(len(xyz), np.uint64)
    count, last = 0, np.int64(-1)
    for i in range(len(xyz)):
        brick, bit = np.int64(0), np.int64(0)
        for axis in range(3):
            index = np.int64(min(max(np.floor(xyz[i, axis] / voxel), -_REACH), _REACH - 1)) + _REACH
            brick = brick << _BITS | index & ~3
            bit = bit << 2 | index & 3
        if brick != last:
            bricks[count], masks[count], last = brick, 0, brick
            count += 1
        masks[count - 1] |= np.uint64(1) << np.uint64(bit)
    return bricks[:count], masks[:count]


def _merge(bricks: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge runs of equal bricks."""
    changes = np.ones(len(bricks), dtype=bool)
    np.not_equal(bricks[1:], bricks[:-1], out=changes[1:])
    starts = np.flatnonzero(changes)
    return bricks[starts], np.bitwise_or.reduceat(masks, starts) if len(starts) else masks


@compiled
def _shared(
    own: np.ndarray, own_masks: np.ndarray, bricks: np.ndarray, masks: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Return the bits of ``masks [n]`` that ``own_masks`` shares; bricks ascend within each range of ``ends``."""
    shared = np.zeros(len(masks), np.uint64)
    for frame in range(len(ends) - 1):
        i = 0
        for j in range(ends[frame], ends[frame + 1]):
            while i < len(own) and own[i] < bricks[j]:
                i += 1
            if i < len(own) and own[i] == bricks[j]:
                shared[j] = own_masks[i] & masks[j]
    return shared


def overlaps(place: Occupancy, frames: Sequence[Occupancy]) -> np.ndarray:
    """Return the intersection over union of a voxel set with each of several (METHOD: Mirage, "reference choice").

    Returns:
        float64 ``[frames]``; 0 where both sets are empty.
    """
    ends = np.cumsum([0, *(len(frame.bricks) for frame in frames)])
    bricks = np.concatenate([place.bricks[:0], *(frame.bricks for frame in frames)])
    masks = np.concatenate([place.masks[:0], *(frame.masks for frame in frames)])
    shared = _shared(place.bricks, place.masks, bricks, masks, ends)

    def voxels(words: np.ndarray) -> np.ndarray:
        counts = np.append(np.bitwise_count(words), np.uint8(0))
        return np.where(np.diff(ends) > 0, np.add.reduceat(counts, ends[:-1], dtype=np.int64), 0)

    both = voxels(shared)
    either = voxels(masks) + int(np.bitwise_count(place.masks).sum()) - both
    return both / np.maximum(either, 1)


def choose_references(
    place: Occupancy, frames: Sequence[Occupancy], threshold: float = 0.04, most: int = 4
) -> list[int]:
    """Return the indices of the frames that overlap most with a place, best first; ties go to the older frame.

    Args:
        place: voxels of the coming view.
        frames: voxels of each frame, oldest first.
        threshold: minimum overlap (:func:`overlaps`), in [0, 1].
        most: maximum number of frames.

    Raises:
        ValueError: if a setting is out of range.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold: expected a fraction in [0, 1], got {threshold}")
    if most < 0:
        raise ValueError(f"most: expected at least 0, got {most}")
    shares = overlaps(place, frames)
    best = np.argsort(-shares, kind="stable")[:most]
    return [int(i) for i in best if shares[i] >= threshold]
