"""Lifting depth to points, projecting points to pixels, and the z-buffer that picks a winner per cell.

Every point goes through the same fixed order of element-wise operations (no matrix product, whose blocking may depend
on the position of a row), and cells are decided by integer and float *minima*, which no order of evaluation can change.
So a read has the same bits for any number of threads and any order of the points.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mirage_sim.geometry.camera import Camera
from mirage_sim.geometry.se3 import invert

NEAR = 1e-3  # metres; nothing nearer can be divided by safely, and no real camera sees it
NO_POINT = torch.iinfo(torch.int64).max
_COARSE = 1 << 62  # added to the id of a point that was written too coarsely for the cell: sorts after every id


class Splat(NamedTuple):
    """Which point each cell shows. All ``[..., h, w]`` over the camera's grid; holes hold the stated filler.

    Attributes:
        index: position of the winning point along the point axis, int64; -1 in holes.
        depth: z-depth of the winner in metres; 0 in holes.
        offset: ``[..., h, w, 2]``, where in its cell the winner fell, (u, v) from the centre in [-1/2, 1/2); 0 in holes.
        zoom: log2 of (footprint of the cell at the winner's depth / footprint it was written with): negative when now
            seen nearer or finer than when written; 0 in holes.
    """

    index: Tensor
    depth: Tensor
    offset: Tensor
    zoom: Tensor


def _apply(transform: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of ``points [..., N, 3]`` after ``transform [..., 4, 4]``, with a fixed order of operations."""
    x, y, z = points.unbind(-1)
    row = [[transform[..., i, j, None] for j in range(4)] for i in range(3)]
    moved = [row[i][0] * x + row[i][1] * y + row[i][2] * z + row[i][3] for i in range(3)]
    return moved[0], moved[1], moved[2]


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
    x, y, z = _apply(invert(camera.c2w), points)
    in_front = (z > NEAR) & torch.isfinite(z) & torch.isfinite(x) & torch.isfinite(y)
    safe_z = torch.where(in_front, z, torch.ones_like(z))
    K = camera.K[..., None, :, :]
    u = torch.where(in_front, x / safe_z * K[..., 0, 0] + K[..., 0, 2], -1.0)
    v = torch.where(in_front, y / safe_z * K[..., 1, 1] + K[..., 1, 2], -1.0)
    return u, v, torch.where(in_front, z, torch.zeros_like(z))


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
    height, width = camera.size
    batch = torch.broadcast_shapes(points.shape[:-2], camera.batch_shape)
    cells = height * width
    u, v, z = (t.expand(*batch, -1).reshape(-1, points.shape[-2]) for t in project(points, camera))
    ids, footprint = (t.expand(*batch, -1).reshape(z.shape) for t in (ids, footprint))
    worlds, count = z.shape

    # floor before comparing: u = -0.3 must not round into column 0; clamp first, so that huge values stay castable
    column = u.clamp(-1.0, float(width)).floor().long()
    row = v.clamp(-1.0, float(height)).floor().long()
    hit = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    if valid is not None:
        hit = hit & valid.expand(*batch, -1).reshape(z.shape)
    world, point = hit.nonzero(as_tuple=True)
    flat = (world, point)
    cell = world * cells + row[flat] * width + column[flat]
    z, ids = z[flat], ids[flat]
    focal = camera.K[..., 0, 0].expand(batch).reshape(-1)
    zoom = torch.log2(z / focal[world] / footprint[flat])

    nearest = torch.full((worlds * cells,), torch.inf, device=z.device)
    nearest = nearest.scatter_reduce(0, cell, z, "amin")
    rank = torch.where(zoom < -torch.log2(torch.tensor(refine)).item(), ids + _COARSE, ids)
    rank = torch.where(z <= nearest[cell] * (1.0 + tolerance), rank, NO_POINT)
    best = torch.full((worlds * cells,), NO_POINT, device=z.device).scatter_reduce(0, cell, rank, "amin")
    # ids are unique, so exactly one point per cell passes and the writes below cannot race
    winner = (rank == best[cell]) & (rank != NO_POINT)
    cell, flat_winner = cell[winner], point[winner]

    index = torch.full((worlds * cells,), -1, device=z.device)
    index[cell] = flat_winner
    depth, level = torch.zeros(2, worlds * cells, device=z.device)
    depth[cell], level[cell] = z[winner], zoom[winner]
    offset = torch.zeros(worlds * cells, 2, device=z.device)
    at = (world[winner], flat_winner)
    offset[cell, 0] = u[at] - column[at] - 0.5
    offset[cell, 1] = v[at] - row[at] - 0.5
    grid = (*batch, height, width)
    return Splat(index.view(grid), depth.view(grid), offset.view(*grid, 2), level.view(grid))
