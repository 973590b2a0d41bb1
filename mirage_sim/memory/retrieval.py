"""Reference frames: which of the frames made so far see the same place, by the overlap of their voxels.

Where a frame's points lie is kept as bricks of 4 x 4 x 4 voxels, one bit a voxel, so that two frames are compared by a
few hundred words instead of tens of thousands of points. The answer is a choice on the host, and so is all of this.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mirage_sim.memory.kernels import compiled

_BITS = 21  # per axis of a voxel's packed coordinates
_REACH = 1 << (_BITS - 1)  # voxels on either side of the origin, per axis; farther points share the outermost


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
    bricks, masks = _runs(xyz, np.float32(voxel))
    order = np.argsort(bricks)
    return Occupancy(*_merge(bricks[order], masks[order]))


@compiled
def _runs(xyz: np.ndarray, voxel: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Bricks and masks of points, one entry for neighbours in one brick, as most in a picture are."""
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
    """One entry for each run of equal bricks."""
    changes = np.ones(len(bricks), dtype=bool)
    np.not_equal(bricks[1:], bricks[:-1], out=changes[1:])
    starts = np.flatnonzero(changes)
    return bricks[starts], np.bitwise_or.reduceat(masks, starts) if len(starts) else masks


@compiled
def _shared(
    own: np.ndarray, own_masks: np.ndarray, bricks: np.ndarray, masks: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Of ``masks [n]`` what ``own_masks`` has, too, brick by brick; both ascend, the former from each end on anew."""
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
    """Intersection over union of one set of voxels with each of several: float64 ``[frames]``, 0 where both are empty.

    METHOD: Mirage, "reference choice".
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
