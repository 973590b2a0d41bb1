"""Lifting depth to points, projecting points to pixels, and the z-buffer that picks a winner per cell.

Every point goes through the same fixed order of element-wise operations (no matrix product, whose blocking may depend
on the position of a row), and cells are decided by integer and float *minima*, which no order of evaluation can change.
Logarithms, whose last bit may depend on the position in a vector register, decide nothing. So a read has the same bits
for any number of threads and any order of the points.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mirage_sim.geometry.camera import Camera

NEAR = 1e-3  # metres; nothing nearer can be divided by safely, and no real camera sees it
NO_POINT = torch.iinfo(torch.int64).max
_COARSE = 1 << 62  # added to the id of a point that was written too coarsely for the cell: sorts after every id
_TILE = 1 << 15  # points projected at a time on the CPU: their temporaries stay in the cache


class Splat(NamedTuple):
    """Which point each cell shows. All ``[..., h, w]`` over the camera's grid; holes hold the stated filler.

    Attributes:
        index: position of the winning point along the point axis, int64; -1 in holes.
        depth: z-depth of the winner in metres; 0 in holes.
        offset: ``[..., h, w, 2]``, where in its cell the winner fell, (u, v) from the centre in [-1/2, 1/2); 0 in
            holes.
        zoom: log2 of (footprint of the cell at the winner's depth / footprint it was written with): negative when now
            seen nearer or finer than when written; 0 in holes.
        surface: smallest z-depth of any point in the cell in metres; 0 in holes.
    """

    index: Tensor
    depth: Tensor
    offset: Tensor
    zoom: Tensor
    surface: Tensor


def _apply(transform: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of ``points [..., N, 3]`` after ``transform [..., 4, 4]``, with a fixed order of operations."""
    x, y, z = points.unbind(-1)
    row = [[transform[..., i, j, None] for j in range(4)] for i in range(3)]
    moved = [row[i][0] * x + row[i][1] * y + row[i][2] * z + row[i][3] for i in range(3)]
    return moved[0], moved[1], moved[2]


def _to_camera(c2w: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Camera coordinates of world ``points [..., N, 3]``: ``R^T (p - t)``, with a fixed order of operations.

    The difference comes first, so that a camera far from the origin loses no precision to a cancelling translation.
    """
    dx, dy, dz = (points[..., i] - c2w[..., i, 3, None] for i in range(3))
    x, y, z = (c2w[..., 0, i, None] * dx + c2w[..., 1, i, None] * dy + c2w[..., 2, i, None] * dz for i in range(3))
    return x, y, z


def lift(depth: Tensor, camera: Camera) -> Tensor:
    """World points of a z-depth map, one per pixel centre.

    ``p = c2w (D K^-1 [u + 1/2, v + 1/2, 1]^T)`` (METHOD: Mirage, "initialise").

    Args:
        depth: ``[..., H, W]`` metres, on the camera's own grid; 0 (unknown) lifts to the camera centre and is the
            caller's to drop.
        camera: batch shape ``[...]``, size ``(H, W)``.

    Returns:
        ``[..., H, W, 3]`` metres, world frame.
    """
    height, width = camera.size
    if depth.shape[-2:] != (height, width):
        raise ValueError(f"depth: expected [..., {height}, {width}] like the camera, got {list(depth.shape)}")
    v = torch.arange(height, device=depth.device, dtype=torch.float32) + 0.5
    u = torch.arange(width, device=depth.device, dtype=torch.float32) + 0.5
    K = camera.K[..., None, None, :, :]
    x = (u - K[..., 0, 2]) / K[..., 0, 0] * depth
    y = (v[:, None] - K[..., 1, 2]) / K[..., 1, 1] * depth
    flat = torch.stack([x, y, depth], dim=-1).flatten(-3, -2)
    return torch.stack(_apply(camera.c2w, flat), dim=-1).unflatten(-2, (height, width))


def project(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel coordinates and z-depth of world points.

    Args:
        points: ``[..., N, 3]`` metres, world frame; may hold infinities.
        camera: batch shape broadcastable to ``[...]``.

    Returns:
        ``u, v`` in pixels (corners at integers) and ``z`` in metres, each ``[..., N]``. Where ``z <= NEAR`` or anything
        is not finite, ``u`` and ``v`` are -1 (outside every picture); never NaN.
    """
    x, y, z = _to_camera(camera.c2w, points)
    in_front = (z > NEAR) & torch.isfinite(z) & torch.isfinite(x) & torch.isfinite(y)
    safe_z = torch.where(in_front, z, torch.ones_like(z))
    K = camera.K[..., None, :, :]
    u = torch.where(in_front, x / safe_z * K[..., 0, 0] + K[..., 0, 2], -1.0)
    v = torch.where(in_front, y / safe_z * K[..., 1, 1] + K[..., 1, 2], -1.0)
    return u, v, torch.where(in_front, z, torch.zeros_like(z))


def is_coarse(footprint: Tensor, depth: Tensor, focal: Tensor, refine: float) -> Tensor:
    """Whether points were written more than ``refine`` times coarser than the cell they are now seen in.

    The one criterion for reading (coarse points stand back) and for writing (a cell that shows one is written anew).

    Args:
        footprint: width in metres of the cell each point was written from.
        depth: z-depth it is seen at now, metres, same shape.
        focal: horizontal focal length of the camera now, in cells.
        refine: how many cells wide a point may be.
    """
    return footprint > depth / focal * refine


def _project_inside(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Index, ``u``, ``v`` and ``z`` of the ``points [N, 3]`` that fall into the picture of one camera."""
    height, width = camera.size
    tile = _TILE if points.device.type == "cpu" else max(len(points), 1)
    found = []
    for start in range(0, max(len(points), 1), tile):
        x, y, z = _to_camera(camera.c2w, points[start : start + tile])
        u = x.div_(z).mul_(camera.K[0, 0]).add_(camera.K[0, 2])
        v = y.div_(z).mul_(camera.K[1, 1]).add_(camera.K[1, 2])
        # u = -0.3 must not round into column 0, and every comparison with a NaN fails: no division needs guarding
        hit = (z > NEAR) & (z < torch.inf) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        index = hit.nonzero().squeeze(1)
        found.append((index + start, u[index], v[index], z[index]))
    index, u, v, z = (torch.cat(parts) for parts in zip(*found, strict=True))
    return index, u, v, z


def _splat_one(
    points: Tensor, ids: Tensor, footprint: Tensor, camera: Camera, tolerance: float, refine: float
) -> Splat:
    """:func:`splat` for one camera and one map, as flat cells."""
    height, width = camera.size
    cells = height * width
    index, u, v, z = _project_inside(points, camera)
    column, row = u.floor(), v.floor()
    cell = row.long() * width + column.long()

    nearest = torch.full((cells,), torch.inf, device=z.device).scatter_reduce_(0, cell, z, "amin")
    near = (z <= (nearest * (1.0 + tolerance))[cell]).nonzero().squeeze(1)
    near_cell, near_index, near_z = cell[near], index[near], z[near]
    written = footprint[near_index]
    coarse = is_coarse(written, near_z, camera.K[0, 0], refine)
    rank = ids[near_index] + coarse * _COARSE
    best = torch.full((cells,), NO_POINT, device=z.device).scatter_reduce_(0, near_cell, rank, "amin")
    # ids are unique, so exactly one point per cell passes and the writes below cannot race
    winner = (rank == best[near_cell]).nonzero().squeeze(1)
    at, winner_cell = near[winner], near_cell[winner]

    shown = torch.full((cells,), -1, device=z.device)
    shown[winner_cell] = near_index[winner]
    depth, zoom = torch.zeros(2, cells, device=z.device)
    depth[winner_cell] = near_z[winner]
    # doubles, rounded once: the same bits wherever the vector registers happen to be cut
    ratio = near_z[winner].double() / camera.K[0, 0].double() / written[winner].double()
    zoom[winner_cell] = torch.log2(ratio).float()
    offset = torch.zeros(cells, 2, device=z.device)
    offset[winner_cell, 0] = u[at] - column[at] - 0.5
    offset[winner_cell, 1] = v[at] - row[at] - 0.5
    return Splat(shown, depth, offset, zoom, nearest.masked_fill_(nearest == torch.inf, 0.0))


def splat(
    points: Tensor,
    ids: Tensor,
    footprint: Tensor,
    camera: Camera,
    *,
    tolerance: float = 0.1,
    refine: float = 2.0,
    valid: Tensor | None = None,
) -> Splat:
    """Pick the point each cell of the camera's grid shows.

    Nearest surface, then level of detail, then provenance: per cell ``z_min`` is the smallest depth; among the points
    within ``z_min * (1 + tolerance)``, those written at most ``refine`` times coarser than the cell come first, and
    among equals the smallest id, that is the oldest, wins. ``tolerance=0`` is the paper's plain nearest point (ids
    still break exact ties).

    Args:
        points: ``[..., N, 3]`` metres, world frame.
        ids: ``[..., N]`` int64 in [0, 2^62), unique among the points of one map.
        footprint: ``[..., N]`` width in metres of the cell each point was written from.
        camera: batch shape ``[...]``, already resized to the grid to fill.
        tolerance: relative thickness of a surface.
        refine: a point counts as coarse when its footprint exceeds this many cells.
        valid: optional bool ``[..., N]``; False hides a point.

    Returns:
        A :class:`Splat` of grids ``[..., h, w]``.
    """
    batch = torch.broadcast_shapes(points.shape[:-2], camera.batch_shape)
    worlds, count = math.prod(batch), points.shape[-2]
    points = points.expand(*batch, count, 3).reshape(worlds, count, 3)
    ids, footprint = (t.expand(*batch, count).reshape(worlds, count) for t in (ids, footprint))
    c2w, K = (t.expand(*batch, -1, -1).reshape(worlds, *t.shape[-2:]) for t in (camera.c2w, camera.K))
    if valid is not None:
        # a point that is not a number is in no picture
        hidden = ~valid.expand(*batch, count).reshape(worlds, count, 1)
        points = points.masked_fill(hidden, torch.nan)
    parts = [
        _splat_one(points[i], ids[i], footprint[i], Camera(c2w[i], K[i], camera.size), tolerance, refine)
        for i in range(worlds)
    ]
    index, depth, offset, zoom, surface = (torch.stack(grids) for grids in zip(*parts, strict=True))
    grid = (*batch, *camera.size)
    return Splat(index.view(grid), depth.view(grid), offset.view(*grid, 2), zoom.view(grid), surface.view(grid))
