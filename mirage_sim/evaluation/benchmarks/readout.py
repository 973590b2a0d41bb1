"""Reading the memory: is it exact, how fast is it beside the obvious way, and how should depth be resampled?"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mirage_sim.evaluation.benchmarks.measure import side_by_side, work_of
from mirage_sim.evaluation.benchmarks.scenes import furnished_room, hall, ray_cast
from mirage_sim.geometry import Camera, Splat, cells_of, is_coarse, project, se3_exp, splat, unproject
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.memory.blocks import Points
from mirage_sim.memory.latent_map import InView
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.memory.rendering import RenderOutput, RenderParams, render
from mirage_sim.protocols import MemoryView

GRID = (44, 80)
CHANNELS = 48
STRIDE = 16
TOLERANCE, REFINE = 0.1, 2.0


def sorted_splat(
    points: Tensor, ids: Tensor, footprint: Tensor, camera: Camera, tolerance: float, refine: float
) -> Tensor:
    """What :func:`splat` shows to one camera, by sorting: the index of the winner per cell ``[h, w]``, -1 in holes."""
    height, width = camera.size
    u, v, z = project(points, camera)
    inside = ((z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)).nonzero().squeeze(1)
    cell, z = v[inside].long() * width + u[inside].long(), z[inside]

    def first_of_cell(order: Tensor) -> Tensor:
        grouped = cell[order]
        return torch.cat([grouped.new_ones(1, dtype=torch.bool), grouped[1:] != grouped[:-1]])

    order = torch.argsort(z, stable=True)
    order = order[torch.argsort(cell[order], stable=True)]
    surface = torch.full((height * width,), torch.inf)
    front = order[first_of_cell(order)]
    surface[cell[front]] = z[front]
    near = z <= surface[cell] * (1.0 + tolerance)
    inside, cell, z = inside[near], cell[near], z[near]
    order = torch.argsort(ids[inside], stable=True)
    coarse = is_coarse(footprint[inside], z, camera.K[0, 0], refine)
    order = order[torch.argsort(coarse[order].long(), stable=True)]
    order = order[torch.argsort(cell[order], stable=True)]
    winner = order[first_of_cell(order)]
    index = torch.full((height * width,), -1)
    index[cell[winner]] = inside[winner]
    return index.view(height, width)


def sort_and_scatter(points: Tensor, features: Tensor, camera: Camera) -> Tensor:
    """The obvious read-out: every point projected, sorted from far to near, and scattered so that the last one stays.

    A scatter with duplicate indices has no defined order, so the last occurrence is found by a second, stable sort.

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
    """Points in a hall of 20 x 4 x 20 metres; one in ten has a twin at the same place."""
    generator = torch.Generator().manual_seed(count)
    points = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([20.0, 4.0, 20.0])
    twins = count // 10
    points[:twins] = points[-twins:]
    footprint = torch.rand(count, generator=generator) * 0.3 + 0.01
    features = torch.empty(count, channels).normal_(generator=generator)
    return Points(points, features, torch.randperm(count, generator=generator), footprint)


def _map_of(points: Points) -> LatentMap:
    """A map that was given these points at once."""
    map = LatentMap.empty(points.features.shape[1])
    return map.add(points, np.zeros(0, np.int64), len(points.ids))


def _cameras(count: int) -> Camera:
    """Cameras around the origin of the hall, on the latent grid."""
    generator = torch.Generator().manual_seed(7)
    twist = torch.randn(count, 6, generator=generator) * torch.tensor([2.0, 0.3, 2.0, 0.1, 2.0, 0.1])
    return Camera.from_fov(se3_exp(twist), 60.0, GRID)


def is_exact(threads: Sequence[int], count: int) -> bool:
    """Whether reads show the winners of :func:`sorted_splat`, and have the bits of :func:`splat`.

    At every number of threads, and whatever the order in which the map was given the points.
    """
    points = _cloud(count, channels=2)
    before = torch.get_num_threads()
    try:
        for camera in _cameras(3):
            for tolerance in (0.0, TOLERANCE):
                torch.set_num_threads(1)
                rules = RenderParams(tolerance, REFINE)
                plain = splat(points.xyz, points.ids, points.footprint, camera, tolerance=tolerance, refine=REFINE)
                sorted_index = sorted_splat(points.xyz, points.ids, points.footprint, camera, tolerance, REFINE)
                if not torch.equal(plain.index, sorted_index):
                    return False
                for number in threads:
                    torch.set_num_threads(number)
                    order = torch.randperm(count, generator=torch.Generator().manual_seed(number))
                    seen = render(_map_of(Points(*(column[order] for column in points))), camera, rules)
                    if not _same(seen, plain, points):
                        return False
    finally:
        torch.set_num_threads(before)
    return True


def _same(seen: RenderOutput, plain: Splat, points: Points) -> bool:
    """Whether a read has the bits of a splat of the same points."""
    hit = plain.index >= 0
    winners = plain.index[hit]
    return (
        torch.equal(seen.source[hit], points.ids[winners])
        and bool((seen.source[~hit] == -1).all())
        and torch.equal(seen.latents[hit], points.features[winners])
        and torch.equal(seen.depth, plain.depth)
        and torch.equal(seen.offset, plain.offset.movedim(-1, 0))
        and torch.equal(seen.log_scale, plain.log_scale)
    )


def _speed(count: int, repeats: int) -> dict[str, float]:
    """Median seconds of a read, of one that leaves no block out, of the obvious one, and of one pass over coordinates.

    Each right after itself, and the first and third (``*_cold``) right after a pass over all features as well. The pass
    over coordinates is computed from the bandwidth at which the features are read: coordinates alone may fit a cache.
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
    """A map of which every read looks at every point."""

    def cull(self, camera: Camera) -> InView:
        return InView.all(len(self.blocks), camera.size)


def _unculled(map: LatentMap) -> LatentMap:
    return _Unculled(**{name: getattr(map, name) for name in map.__dataclass_fields__})


def culling(count: int, repeats: int) -> tuple[bool, dict[str, float]]:
    """Whether a read that culls has the bits of one that looks at every point, and what it takes beside that one.

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
    """Share of cells of a moved camera that stay holes, and of those hit, share that shows a surface that is not there.

    Eight first views of a furnished room, each seen again after 0.4 m sideways, 0.2 m ahead and 8 degrees of turning.
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


def bench_readout(cfg: dict[str, Any]) -> dict[str, Any]:
    """Run the benchmark: 44 x 80 cells, 48 channels.

    Args:
        cfg: ``threads``, the thread counts at which the read-out must have the same bits.

    Returns:
        ``{"metrics": ...}``: ``exact`` (bool), whether reads have the bits of their twins: the one that sorts, the
        one in
        plain torch, and the one that leaves no block out; seconds per read of a map of 300 thousand and 3 million
        points; ``speedup_vs_sort_*``, seconds of the obvious read-out (:func:`sort_and_scatter`) over them, each made
        six times in a row, of which the last counts; ``speedup_vs_sort_*_cold``, likewise, each right after a pass over
        all features, which leaves the caches full of other things; ``speedup_unculled_*``, the former for a read that
        looks at every point;
        ``over_floor_3m``, how many times longer a read takes than reading all coordinates once at the machine's
        bandwidth (``bandwidth_gb_s``); ``cull_ratio_5pct``, the time of a read of which a twentieth of 3 million points
        is in view (``cull_share_in_view``) over the same read without culling; ``cull_work_ratio_5pct``, what is walked
        over (:func:`work_of`), likewise; ``hole_rate_*`` and ``wrong_rate_*`` of each way to resample depth, as shares
        in [0, 1].
    """
    same, culled = culling(3_000_000, 5)
    metrics: dict[str, Any] = {"exact": same and is_exact(cfg["threads"], 60_000)}
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
