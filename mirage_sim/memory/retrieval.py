"""Reference frames: which of the frames made so far see the same place, by the overlap of their voxels.

Where a frame's points lie is kept as bricks of 4 x 4 x 4 voxels, one bit a voxel, so that two frames are compared by a
few hundred words instead of tens of thousands of points. The answer is a choice on the host, and so is all of this.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

_BITS = 21  # per axis of a voxel's packed coordinates
_REACH = 1 << (_BITS - 1)  # voxels on either side of the origin, per axis; farther points share the outermost
_IN_BRICK = 3 << 2 * _BITS | 3 << _BITS | 3  # of packed coordinates, what tells the voxels of one brick apart


class Occupancy(NamedTuple):
    """The voxels that points occupy.

    Attributes:
        bricks: int64 ``[n]``, packed coordinates of each brick that is not empty, ascending.
        masks: uint64 ``[n]``, a bit for each of the brick's 64 voxels.
    """

    bricks: np.ndarray
    masks: np.ndarray


def occupancy(points: Tensor, voxel: float = 0.1) -> Occupancy:
    """The voxels that points lie in.

    Args:
        points: ``[..., 3]`` metres, world frame.
        voxel: edge of a voxel in metres. Points more than 2^20 voxels from the origin count as that far.

    Raises:
        ValueError: if the points are no finite triples, or the edge is not positive.
    """
    if not 0.0 < voxel < float("inf"):
        raise ValueError(f"voxel: expected a positive length in metres, got {voxel}")
    if points.shape[-1:] != (3,):
        raise ValueError(f"points: expected [..., 3], got {list(points.shape)}")
    xyz = points.detach().float().cpu().numpy().reshape(-1, 3)
    if not np.isfinite(xyz).all():
        raise ValueError("points: expected finite coordinates")
    x, y, z = np.floor(xyz.T / np.float32(voxel), order="C").clip(-_REACH, _REACH - 1).astype(np.int64) + _REACH
    key = (x << _BITS | y) << _BITS | z
    key = key[_starts(key)]  # neighbours in a picture are often in one voxel
    inside = key & _IN_BRICK
    bit = (inside >> 2 * _BITS - 4 | inside >> _BITS - 2 | inside) & 63
    bricks, masks = _merge(key - inside, np.uint64(1) << bit.astype(np.uint64))
    order = np.argsort(bricks)
    return Occupancy(*_merge(bricks[order], masks[order]))


def _starts(values: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin."""
    changes = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return np.flatnonzero(changes)


def _merge(bricks: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One entry for each run of equal bricks."""
    starts = _starts(bricks)
    return bricks[starts], np.bitwise_or.reduceat(masks, starts) if len(starts) else masks


def overlaps(place: Occupancy, frames: Sequence[Occupancy]) -> np.ndarray:
    """Intersection over union of one set of voxels with each of several: float64 ``[frames]``, 0 where both are empty.

    METHOD: Mirage, "reference choice".
    """
    ends = np.cumsum([0, *(len(frame.bricks) for frame in frames)])
    bricks = np.concatenate([place.bricks[:0], *(frame.bricks for frame in frames)])
    masks = np.concatenate([place.masks[:0], *(frame.masks for frame in frames)])
    at = np.searchsorted(place.bricks, bricks)
    theirs = np.append(place.bricks, -1)[at] == bricks
    shared = np.where(theirs, np.append(place.masks, np.uint64(0))[at] & masks, np.uint64(0))

    def voxels(words: np.ndarray) -> np.ndarray:
        counts = np.append(np.bitwise_count(words), np.uint8(0))
        return np.where(np.diff(ends) > 0, np.add.reduceat(counts, ends[:-1], dtype=np.int64), 0)

    both = voxels(shared)
    either = voxels(masks) + int(np.bitwise_count(place.masks).sum()) - both
    return both / np.maximum(either, 1)


def choose_references(
    place: Occupancy, frames: Sequence[Occupancy], threshold: float = 0.04, most: int = 4
) -> list[int]:
    """The frames that see most of a place, best first; among equals the older ones.

    Args:
        place: what is about to be seen.
        frames: what each frame saw, oldest first.
        threshold: a frame's smallest overlap with the place (:func:`overlaps`), in [0, 1].
        most: how many to choose at most.

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
