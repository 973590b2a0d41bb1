"""Reading the memory: is it exact, how fast is it beside the obvious way, and how should depth be resampled?"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mirage_sim.geometry import Camera, Splat, cells_of, is_coarse, lift, project, se3_exp, splat
from mirage_sim.memory.point_memory import resample_depth

GRID = (44, 80)
CHANNELS = 48
STRIDE = 16
TOLERANCE, REFINE = 0.1, 2.0


def ray_cast(camera: Camera, room: Tensor, boxes: Tensor) -> Tensor:
    """Exact z-depth of a room with boxes in it.

    Args:
        camera: batch shape ``[...]``, inside the room and outside the boxes.
        room: ``[2, 3]``, lowest and highest corner, metres, world frame.
        boxes: ``[n, 2, 3]``.

    Returns:
        ``[..., H, W]`` metres, along the rays through the pixel centres.
    """
    origin = camera.c2w[..., None, None, :3, 3]
    ray = lift(torch.ones(*camera.batch_shape, *camera.size), camera) - origin  # a unit of z-depth long
    ray = torch.where(ray.abs() < 1e-9, 1e-9, ray)
    depth = torch.maximum((room[0] - origin) / ray, (room[1] - origin) / ray).amin(-1)
    for low, high in boxes:
        a, b = (low - origin) / ray, (high - origin) / ray
        enter, leave = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
        depth = torch.where((enter > 0) & (enter < leave), torch.minimum(depth, enter), depth)
    return depth


def furnished_room() -> tuple[Tensor, Tensor]:
    """A room of 10 x 3 x 10 metres around the origin with six pillars and crates: ``[2, 3]`` and ``[6, 2, 3]``."""
    room = torch.tensor([[-5.0, -1.5, -5.0], [5.0, 1.5, 5.0]])
    centre = torch.tensor([[-2.0, 0, 2], [0.5, 0.9, 3], [2.2, 0, 1.5], [-3, 1, -2], [0, 0, -3], [3, 0.9, -2.5]])
    half = torch.tensor(
        [[0.2, 1.5, 0.2], [0.6, 0.6, 0.4], [0.15, 1.5, 0.15], [0.5, 0.5, 0.5], [0.3, 1.5, 0.3], [1, 0.6, 0.3]]
    )
    return room, torch.stack([centre - half, centre + half], dim=1)


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


def ours(points: Tensor, features: Tensor, ids: Tensor, footprint: Tensor, camera: Camera) -> Tensor:
    """The read-out of this package on the same flat points: ``[h * w, C]``, zero in holes."""
    seen = splat(points, ids, footprint, camera, tolerance=TOLERANCE, refine=REFINE).index.flatten()
    visible = (seen >= 0).nonzero().squeeze(1)
    out = features.new_zeros(len(seen), features.shape[1])
    out[visible] = features[seen[visible]]
    return out


def _cloud(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, features, ids and footprints in a hall of 20 x 4 x 20 metres; one in ten has a twin at the same place."""
    generator = torch.Generator().manual_seed(count)
    points = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([20.0, 4.0, 20.0])
    twins = count // 10
    points[:twins] = points[-twins:]
    footprint = torch.rand(count, generator=generator) * 0.3 + 0.01
    features = torch.empty(count, CHANNELS).normal_(generator=generator)
    return points, features, torch.randperm(count, generator=generator), footprint


def _cameras(count: int) -> Camera:
    """Cameras around the origin of the hall, on the latent grid."""
    generator = torch.Generator().manual_seed(7)
    twist = torch.randn(count, 6, generator=generator) * torch.tensor([2.0, 0.3, 2.0, 0.1, 2.0, 0.1])
    return Camera.from_fov(se3_exp(twist), 60.0, GRID)


def _is_exact(threads: Sequence[int]) -> bool:
    """Whether splat picks the winners of :func:`sorted_splat` at every thread count, with points in any order."""
    points, _, ids, footprint = _cloud(60_000)
    before = torch.get_num_threads()
    try:
        for camera in _cameras(3):
            for tolerance in (0.0, TOLERANCE):
                torch.set_num_threads(1)
                expected = sorted_splat(points, ids, footprint, camera, tolerance, REFINE)
                reference = splat(points, ids, footprint, camera, tolerance=tolerance, refine=REFINE)
                if not torch.equal(reference.index, expected):
                    return False
                for count in threads:
                    torch.set_num_threads(count)
                    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(count))
                    shuffled = splat(
                        points[order], ids[order], footprint[order], camera, tolerance=tolerance, refine=REFINE
                    )
                    if not _same(shuffled, reference, order):
                        return False
    finally:
        torch.set_num_threads(before)
    return True


def _same(shuffled: Splat, reference: Splat, order: Tensor) -> bool:
    """Whether a splat of ``points[order]`` has the bits of one of ``points``."""
    hole = shuffled.index < 0
    index = torch.where(hole, -1, order[shuffled.index.clamp(min=0)])
    grids = ("depth", "offset", "zoom", "surface")
    return torch.equal(index, reference.index) and all(
        torch.equal(getattr(shuffled, name), getattr(reference, name)) for name in grids
    )


def _median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a call, after one to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeats // 2]


def _speed(count: int, repeats: int) -> tuple[float, float]:
    """Median seconds of our read-out and of the obvious one."""
    points, features, ids, footprint = _cloud(count)
    (camera,) = _cameras(1)
    return (
        _median_seconds(lambda: ours(points, features, ids, footprint, camera), repeats),
        _median_seconds(lambda: sort_and_scatter(points, features, camera), repeats),
    )


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
    marks = {}
    for name, resample in RESAMPLING.items():
        coarse = resample(depth)
        grid = first.resize(GRID)
        points = lift(coarse, grid).flatten(1, 2)
        ids = torch.arange(points.shape[1]).expand(len(first), -1)
        footprint = (coarse / grid.K[:, None, None, 0, 0]).flatten(1)
        seen = splat(points, ids, footprint, moved, tolerance=TOLERANCE, refine=REFINE)
        hit = seen.index >= 0
        wrong = hit & ((seen.depth - truth).abs() > TOLERANCE * truth)
        marks[f"hole_rate_{name}"] = float((~hit).float().mean())
        marks[f"wrong_rate_{name}"] = float(wrong.sum() / hit.sum())
    return marks


def bench_readout(threads: Sequence[int] = (1, 2, 4)) -> dict[str, Any]:
    """Run the benchmark: 44 x 80 cells, 48 channels.

    Args:
        threads: thread counts at which the read-out must have the same bits.

    Returns:
        ``exact`` (bool), seconds per read and ``speedup_vs_sort_*`` at 300 thousand and 3 million points, and
        ``hole_rate_*`` and ``wrong_rate_*`` of each way to resample depth, as shares in [0, 1].
    """
    marks: dict[str, Any] = {"exact": _is_exact(threads)}
    for name, count, repeats in (("300k", 300_000, 9), ("3m", 3_000_000, 5)):
        mine, sort = _speed(count, repeats)
        marks |= {f"seconds_{name}": mine, f"seconds_sort_{name}": sort, f"speedup_vs_sort_{name}": sort / mine}
    return marks | _resampling()
