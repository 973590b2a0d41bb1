"""Choosing reference frames by voxel overlap, against Python sets."""

from typing import Any

import numpy as np
from torch import Tensor

from mirage_sim.evaluation.benchmarks.measure import positive_integers, side_by_side
from mirage_sim.evaluation.benchmarks.scenes import room_views
from mirage_sim.memory.retrieval import Occupancy, choose_references, occupancy

SIZE = (168, 300)  # 50,400 points a frame
VOXEL, THRESHOLD, MOST = 0.1, 0.04, 4

Voxels = set[tuple[int, int, int]]


def voxels_of(points: Tensor) -> Voxels:
    """The obvious way to tell which voxels points ``[N, 3]`` lie in."""
    return set(map(tuple, np.floor(points.numpy() / np.float32(VOXEL)).astype(int).tolist()))


def choose_with_sets(place: Voxels, frames: list[Voxels]) -> list[int]:
    """The obvious way to choose."""
    shares = [len(place & frame) / max(len(place | frame), 1) for frame in frames]
    ranked = sorted(range(len(frames)), key=lambda i: -shares[i])[:MOST]
    return [i for i in ranked if shares[i] >= THRESHOLD]


def bench_retrieval(cfg: dict[str, Any]) -> dict[str, Any]:
    """Choose reference frames among views of a furnished room, 50,400 points each.

    Args:
        cfg: ``frames`` to choose from and ``repeats`` of each timing.

    Returns:
        ``{"metrics": ...}``: ``same`` (whether every choice is that of the sets); ``speedup_vs_sets`` of one choice
        as a
        session makes it, which knows the voxels of the frames and has the points of the place; the milliseconds of
        either (``*_ms``); and ``speedup_vs_sets_of_points``, where all voxels are computed anew from points.

    Raises:
        ValueError: for unusable settings.
    """
    positive_integers(cfg, "frames", "repeats")
    views = list(room_views(cfg["frames"], SIZE))
    place = views[len(views) // 2]
    ours: list[Occupancy] = [occupancy(points, VOXEL) for points in views]
    sets = [voxels_of(points) for points in views]
    same = all(
        choose_references(mine, ours, THRESHOLD, MOST) == choose_with_sets(other, sets)
        for mine, other in zip(ours, sets, strict=True)
    )

    def choose(frames: list[Occupancy]) -> list[int]:
        return choose_references(occupancy(place, VOXEL), frames, THRESHOLD, MOST)

    mine, theirs = side_by_side(cfg["repeats"], lambda: choose(ours), lambda: choose_with_sets(voxels_of(place), sets))
    mine_anew, theirs_anew = side_by_side(
        max(cfg["repeats"] // 4, 1),
        lambda: choose([occupancy(points, VOXEL) for points in views]),
        lambda: choose_with_sets(voxels_of(place), [voxels_of(points) for points in views]),
    )
    return {
        "marks": {
            "same": same,
            "speedup_vs_sets": theirs / mine,
            "ms": 1e3 * mine,
            "sets_ms": 1e3 * theirs,
            "speedup_vs_sets_of_points": theirs_anew / mine_anew,
        }
    }
