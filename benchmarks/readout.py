"""Reading the memory: exactness, speed compared with sorting points, culling, and ways to resample depth."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.runner import side_by_side, work_of
from benchmarks.scenes import furnished_room, hall, ray_cast
from mirage_sim.geometry import Camera, Splat, cells_of, project, se3_exp, splat, unproject
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.memory.blocks import Points
from mirage_sim.memory.latent_map import InView
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.memory.rendering import RenderOutput, RenderParams, render
from mirage_sim.protocols import MemoryView
from mirage_sim.settings.benchmarks import ReadoutBenchSettings

GRID = (44, 80)
CHANNELS = 48
STRIDE = 16
TOLERANCE, REFINE = 0.1, 2.0


def sort_and_scatter(points: Tensor, features: Tensor, camera: Camera) -> Tensor:
    """Baseline read-out: project all points, sort them from far to near, and keep the last point of each cell.

    A scatter with duplicate indices has no defined order, so a second, stable sort finds the last point.

    Returns:
        ``[h * w, C]``, zero in holes.
    """
    height, width = camera.size
    u, v, z = project(points, camera)
    inside = ((z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)).nonzero().squeeze(1)
    order = inside[torch.argsort(z[inside], descending=True, stable=True)]
    cell = v[order].long() * width + u[order].long()
    cell, by_cell = torch.sort(cell, stable=True)
    last = torch.cat([cell[1:] != cell[:-1], cell.new_ones(1, dtype=torch.bool)])
    out = features.new_zeros(height * width, features.shape[1])
    out[cell[last]] = features[order[by_cell[last]]]
    return out


def _cloud(count: int, channels: int = CHANNELS) -> Points:
    """Random points in a hall of 20 x 4 x 20 metres, one in ten at the same place as another."""
    generator = torch.Generator().manual_seed(count)
    points = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([20.0, 4.0, 20.0])
    ties = count // 10
    points[:ties] = points[-ties:]
    footprint = torch.rand(count, generator=generator) * 0.3 + 0.01
    features = torch.empty(count, channels).normal_(generator=generator)
    return Points(points, features, torch.randperm(count, generator=generator), footprint)


def _map_of(points: Points) -> LatentMap:
    """A map to which these points were added at once."""
    map = LatentMap.empty(points.features.shape[1])
    return map.add(points, np.zeros(0, np.int64), len(points.ids))


def _cameras(count: int) -> Camera:
    """Random cameras near the origin of the hall, on the latent grid."""
    generator = torch.Generator().manual_seed(7)
    twist = torch.randn(count, 6, generator=generator) * torch.tensor([2.0, 0.3, 2.0, 0.1, 2.0, 0.1])
    return Camera.from_fov(se3_exp(twist), 60.0, GRID)


def is_exact(threads: Sequence[int], count: int) -> bool:
    """Whether reads have the bits of :func:`splat`, the reference implementation in plain torch.

    Checked for each number of threads, with the points added to the map in another order each time.
    """
    points = _cloud(count, channels=2)
    before = torch.get_num_threads()
    try:
        for camera in _cameras(3):
            for tolerance in (0.0, TOLERANCE):
                torch.set_num_threads(1)
                expected = splat(points.xyz, points.ids, points.footprint, camera, tolerance=tolerance, refine=REFINE)
                for number in threads:
                    torch.set_num_threads(number)
                    order = torch.randperm(count, generator=torch.Generator().manual_seed(number))
                    map = _map_of(Points(*(column[order] for column in points)))
                    if not _same(render(map, camera, RenderParams(tolerance, REFINE)), expected, points):
                        return False
    finally:
        torch.set_num_threads(before)
    return True


def _same(output: RenderOutput, expected: Splat, points: Points) -> bool:
    """Whether a read has the bits of a splat of the same points."""
    hit = expected.index >= 0
    winners = expected.index[hit]
    return (
        torch.equal(output.source[hit], points.ids[winners])
        and bool((output.source[~hit] == -1).all())
        and torch.equal(output.latents[hit], points.features[winners])
        and torch.equal(output.depth, expected.depth)
        and torch.equal(output.offset, expected.offset.movedim(-1, 0))
        and torch.equal(output.log_scale, expected.log_scale)
    )


def _speed(count: int, repeats: int) -> dict[str, float]:
    """Median seconds of a read, an unculled read, the baseline, and one pass over coordinates (``floor``).

    Each is repeated before it is timed; ``*_cold`` are timed right after a pass over all features instead. The floor is
    computed from the bandwidth of reading features, because coordinates alone may fit a cache.
    """
    points = _cloud(count)
    map, memory = _map_of(points), PointMemory(CHANNELS, (1, 1, 1), TOLERANCE, REFINE)
    camera = _cameras(1)
    unculled = _unculled(map)
    read = partial(memory.read, map, camera)
    sort = partial(sort_and_scatter, points.xyz, points.features, camera[0])
    flush = points.features.sum
    warm = side_by_side(repeats, read, partial(memory.read, unculled, camera), sort, flush, again=5)
    _, read_cold, _, sort_cold = side_by_side(repeats, flush, read, flush, sort)
    floor = warm[3] * points.xyz.nbytes / points.features.nbytes
    return {
        "read": warm[0],
        "unculled": warm[1],
        "sort": warm[2],
        "read_cold": read_cold,
        "sort_cold": sort_cold,
        "floor": floor,
    }


class _Unculled(LatentMap):
    """A map in which every read visits every point."""

    def cull(self, camera: Camera) -> InView:
        return InView.all(len(self.blocks), camera.size)


def _unculled(map: LatentMap) -> LatentMap:
    return _Unculled(**{name: getattr(map, name) for name in map.__dataclass_fields__})


def culling(count: int, repeats: int) -> tuple[bool, dict[str, float]]:
    """Whether culling changes a bit, and the cost of a read divided by its cost without culling.

    The camera stands in a hall and sees a twentieth of it.
    """
    map = hall(count, CHANNELS)
    unculled = _unculled(map)
    memory = PointMemory(CHANNELS, (4, 1, 1), TOLERANCE, REFINE)
    camera = Camera.from_fov(se3_exp(torch.tensor([[0.0, 0.0, 16.6, 0.0, 0.0, 0.0]])), 60.0, GRID)
    u, v, z = project(map.xyz(), camera[0])
    share = ((z > 0) & (u >= 0) & (u < GRID[1]) & (v >= 0) & (v < GRID[0])).float().mean()
    culled, full = memory.read(map, camera), memory.read(unculled, camera)
    same = all(torch.equal(getattr(culled, name), getattr(full, name)) for name in MemoryView.__dataclass_fields__)
    reads = [partial(memory.read, one, camera) for one in (map, unculled)]
    seconds, seconds_full = side_by_side(repeats, *reads)
    work, work_full = (work_of(read) for read in reads)
    return same, {
        "cull_ratio_5pct": seconds / seconds_full,
        "cull_work_ratio_5pct": work / work_full,
        "cull_share_in_view": float(share),
    }


def _lower_median(depth: Tensor) -> Tensor:
    return cells_of(depth, GRID).median(dim=-1).values


RESAMPLING: dict[str, Callable[[Tensor], Tensor]] = {
    "bilinear": lambda depth: F.interpolate(depth[:, None], GRID, mode="bilinear")[:, 0],
    "nearest": lambda depth: F.interpolate(depth[:, None], GRID, mode="nearest")[:, 0],
    "median": _lower_median,
    "area": lambda depth: F.interpolate(depth[:, None], GRID, mode="area")[:, 0],
    "chosen": lambda depth: resample_depth(depth, GRID),
}


def _resampling() -> dict[str, float]:
    """Fraction of a moved camera's cells that are holes, and fraction of the others that show a wrong surface.

    Averages eight views of a furnished room; the camera moves 0.4 m sideways, 0.2 m ahead and turns by 8 degrees.
    """
    room, boxes = furnished_room()
    yaw = torch.arange(8) * (torch.pi / 4)
    first = Camera.from_fov(se3_exp(F.pad(yaw[:, None], (4, 1))), 60.0, (GRID[0] * STRIDE, GRID[1] * STRIDE))
    move = se3_exp(torch.tensor([0.4, 0.0, 0.2, 0.0, -0.14, 0.0]))
    moved = Camera(first.c2w @ move, first.K, first.size).resize(GRID)
    depth, truth = ray_cast(first, room, boxes), ray_cast(moved, room, boxes)
    metrics = {}
    for name, resample in RESAMPLING.items():
        coarse = resample(depth)
        grid = first.resize(GRID)
        points = unproject(coarse, grid).flatten(1, 2)
        ids = torch.arange(points.shape[1]).expand(len(first), -1)
        footprint = (coarse / grid.K[:, None, None, 0, 0]).flatten(1)
        seen = splat(points, ids, footprint, moved, tolerance=TOLERANCE, refine=REFINE)
        hit = seen.index >= 0
        wrong = hit & ((seen.depth - truth).abs() > TOLERANCE * truth)
        metrics[f"hole_rate_{name}"] = float((~hit).float().mean())
        metrics[f"wrong_rate_{name}"] = float(wrong.sum() / hit.sum())
    return metrics


def bench_readout(settings: ReadoutBenchSettings) -> dict[str, Any]:
    """Run the benchmark, with 44 x 80 cells and 48 channels.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``, for maps of 300 thousand (``_300k``) and 3 million (``_3m``) points:

        * ``exact``: whether reads have the bits of the plain torch implementation and of reads without culling;
        * ``seconds_*`` and ``seconds_sort_*`` of a read and of the baseline (:func:`sort_and_scatter`), each repeated
          five times before it is timed; ``speedup_vs_sort_*``, their ratio; ``speedup_vs_sort_*_cold``, the ratio with
          caches full of other data; ``speedup_unculled_*``, the ratio for a read that visits every point;
        * ``over_floor_3m``, the time of a read divided by that of reading all coordinates once at the machine's
          bandwidth (``bandwidth_gb_s``);
        * ``cull_ratio_5pct``, the time of a read with a twentieth of the points in view (``cull_share_in_view``)
          divided by the time without culling; ``cull_work_ratio_5pct``, the same for visited elements
          (:func:`~benchmarks.runner.work_of`);
        * ``hole_rate_*`` and ``wrong_rate_*`` of each way to resample depth, fractions in [0, 1].
    """
    same, culled = culling(3_000_000, 5)
    metrics: dict[str, Any] = {"exact": same and is_exact(settings.threads, 60_000)}
    for name, count, repeats in (("300k", 300_000, 9), ("3m", 3_000_000, 5)):
        seconds = _speed(count, repeats)
        metrics |= {
            f"seconds_{name}": seconds["read"],
            f"seconds_sort_{name}": seconds["sort"],
            f"speedup_vs_sort_{name}": seconds["sort"] / seconds["read"],
            f"speedup_vs_sort_{name}_cold": seconds["sort_cold"] / seconds["read_cold"],
            f"speedup_unculled_{name}": seconds["sort"] / seconds["unculled"],
        }
    metrics |= {
        "over_floor_3m": seconds["read"] / seconds["floor"],
        "bandwidth_gb_s": 12 * count / seconds["floor"] / 1e9,
    }
    return {"marks": metrics | culled | _resampling()}
