"""Choosing reference frames by voxel overlap, compared with Python sets."""

from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.runner import side_by_side
from benchmarks.scenes import room_views
from mirage_sim.memory.retrieval import Occupancy, choose_references, occupancy
from mirage_sim.settings.benchmarks import RetrievalBenchSettings

SIZE = (168, 300)  # 50,400 points a frame
VOXEL, THRESHOLD, MOST = 0.1, 0.04, 4

Voxels = set[tuple[int, int, int]]


def voxels_of(points: Tensor) -> Voxels:
    """Reference implementation: the voxels that points ``[N, 3]`` lie in."""
    return set(map(tuple, np.floor(points.numpy() / np.float32(VOXEL)).astype(int).tolist()))


def choose_with_sets(place: Voxels, frames: list[Voxels]) -> list[int]:
    """Reference implementation: indices of the frames that overlap most."""
    shares = [len(place & frame) / max(len(place | frame), 1) for frame in frames]
    ranked = sorted(range(len(frames)), key=lambda i: -shares[i])[:MOST]
    return [i for i in ranked if shares[i] >= THRESHOLD]


def bench_retrieval(settings: RetrievalBenchSettings) -> dict[str, Any]:
    """Choose reference frames among views of a furnished room, 50,400 points each.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``same``, whether both ways always choose the same frames; ``speedup_vs_sets`` of one choice
        as a session makes it, from the known voxels of the frames and the points of the place; ``ms`` and ``sets_ms``
        of one choice; and ``speedup_vs_sets_of_points``, with all voxels computed from points.

    Raises:
        ValueError: for unusable settings.
    """
    views = list(room_views(settings.frames, SIZE))
    place = views[len(views) // 2]
    ours: list[Occupancy] = [occupancy(points, VOXEL) for points in views]
    sets = [voxels_of(points) for points in views]
    same = all(
        choose_references(cells, ours, THRESHOLD, MOST) == choose_with_sets(voxels, sets)
        for cells, voxels in zip(ours, sets, strict=True)
    )

    def choose(frames: list[Occupancy]) -> list[int]:
        return choose_references(occupancy(place, VOXEL), frames, THRESHOLD, MOST)

    seconds, seconds_sets = side_by_side(
        settings.repeats, lambda: choose(ours), lambda: choose_with_sets(voxels_of(place), sets)
    )
    anew, anew_sets = side_by_side(
        max(settings.repeats // 4, 1),
        lambda: choose([occupancy(points, VOXEL) for points in views]),
        lambda: choose_with_sets(voxels_of(place), [voxels_of(points) for points in views]),
    )
    return {
        "marks": {
            "same": same,
            "speedup_vs_sets": seconds_sets / seconds,
            "ms": 1e3 * seconds,
            "sets_ms": 1e3 * seconds_sets,
            "speedup_vs_sets_of_points": anew_sets / anew,
        }
    }
