"""Unprojection of depth to points, projection of points to pixels, and the z-buffer.

Results are identical to the bit for any number of threads and any order of the points. Therefore every point goes
through the same order of element-wise operations (the blocking of matrix products may depend on the row), and cells are
decided by integer and float minima, which do not depend on the order of evaluation. Logarithms, whose last bit may
depend on the position in a vector register, never decide.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry.camera import Camera

NEAR = 1e-3  # metres; dividing by smaller depths is not safe
NO_POINT = torch.iinfo(torch.int64).max
COARSE = 1 << 62  # added to the id of a point that is too coarse for a cell, so that it sorts after all others
_TILE = 1 << 16  # points per pass on the CPU: the temporaries stay in the cache

Number = TypeVar("Number", Tensor, float)


@dataclass(frozen=True)
class Splat:
    """The visible point of each cell. All shapes ``[..., h, w]`` unless stated.

    Attributes:
        index: index of the visible point along the point axis, int64; -1 in holes.
        depth: its z-depth in metres; 0 in holes.
        offset: ``[..., h, w, 2]``, its position (u, v) relative to the cell centre, in [-1/2, 1/2); 0 in holes.
        log_scale: log2 of the cell's footprint at that depth over the footprint of the point; negative if the point is
            seen from nearer, or at a finer resolution, than it was written; 0 in holes.
    """

    index: Tensor
    depth: Tensor
    offset: Tensor
    log_scale: Tensor


@dataclass(frozen=True)
class Coverage:
    """The surfaces that a camera sees, as far as a write needs them. Shapes ``[..., h, w]`` unless stated.

    Attributes:
        surface: smallest z-depth of any point in the cell in metres; 0 in holes.
        fine: bool, whether any point on that surface is not coarse (:func:`is_coarse`).
        shown: int64 ``[n]``, indices of the points on the surfaces, over all batch and point axes.
    """

    surface: Tensor
    fine: Tensor
    shown: Tensor


def _apply(transform: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Transform ``points [..., N, 3]`` by ``transform [..., 4, 4]`` with a fixed order of operations."""
    x, y, z = points.unbind(-1)
    row = [[transform[..., i, j, None] for j in range(4)] for i in range(3)]
    moved = [row[i][0] * x + row[i][1] * y + row[i][2] * z + row[i][3] for i in range(3)]
    return moved[0], moved[1], moved[2]


def _to_camera(c2w: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return camera coordinates ``R^T (p - t)`` of world ``points [..., N, 3]``, with a fixed order of operations.

    The difference comes first, which keeps precision far from the origin.
    """
    dx, dy, dz = (points[..., i] - c2w[..., i, 3, None] for i in range(3))
    x, y, z = (c2w[..., 0, i, None] * dx + c2w[..., 1, i, None] * dy + c2w[..., 2, i, None] * dz for i in range(3))
    return x, y, z


def unproject(depth: Tensor, camera: Camera) -> Tensor:
    """Unproject a z-depth map to world points, one per pixel centre.

    ``p = c2w (D K^-1 [u + 1/2, v + 1/2, 1]^T)`` (METHOD: Mirage, "initialise").

    Args:
        depth: ``[..., H, W]`` metres, on the camera's grid. Pixels of depth 0 (unknown) become the camera centre; the
            caller drops them.
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
    """Project world points to pixel coordinates and z-depth.

    Args:
        points: ``[..., N, 3]`` metres, world frame; may hold infinities.
        camera: batch shape broadcastable to ``[...]``.

    Returns:
        ``u, v`` in pixels (corners at integers) and ``z`` in metres, each ``[..., N]``. Where ``z <= NEAR`` or anything
        is not finite, ``u`` and ``v`` are -1 (outside every image); never NaN.
    """
    x, y, z = _to_camera(camera.c2w, points)
    in_front = (z > NEAR) & torch.isfinite(z) & torch.isfinite(x) & torch.isfinite(y)
    safe_z = torch.where(in_front, z, torch.ones_like(z))
    K = camera.K[..., None, :, :]
    u = torch.where(in_front, x / safe_z * K[..., 0, 0] + K[..., 0, 2], -1.0)
    v = torch.where(in_front, y / safe_z * K[..., 1, 1] + K[..., 1, 2], -1.0)
    return u, v, torch.where(in_front, z, torch.zeros_like(z))


def is_coarse(footprint: Tensor, depth: Tensor, focal: Tensor, refine: float) -> Tensor:
    """Return whether points were written more than ``refine`` times coarser than the cells that now see them.

    Reads prefer points that are not coarse, and writes refine cells that show coarse points.

    Args:
        footprint: width in metres of the cell each point was written from.
        depth: current z-depth in metres, same shape.
        focal: horizontal focal length of the current camera, in cells.
        refine: maximum footprint of a point in cells.
    """
    return footprint > depth / focal * refine


def scale_ratio(depth: Number, footprint: Number, focal: Number, samples_per_cell: int) -> Number:
    """Return the width of a part of a cell at a depth over the footprint of the point seen there.

    Takes float64 tensors here and single float64 numbers in the compiled loops.

    Args:
        depth: current z-depth in metres.
        footprint: width in metres of the cell the point was written from, same shape.
        focal: horizontal focal length of the current camera in cells, same shape.
        samples_per_cell: parts of a cell per axis.
    """
    return depth / (samples_per_cell * focal) / footprint


def log_scale_of(scale: Tensor) -> Tensor:
    """Return log2 of a :func:`scale_ratio`, computed in float64 and rounded once, independent of vectorisation."""
    # NumPy's log2 on the CPU: torch's (MKL) starts threads even for a few hundred numbers.
    log2 = torch.from_numpy(np.log2(scale.numpy())) if scale.is_cpu else torch.log2(scale)
    return log2.float()


def to_pixels(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``u, v, z`` of ``points [B, N, 3]``; ``u`` and ``v`` are valid only where ``z > NEAR``."""
    x, y, z = _to_camera(camera.c2w, points)
    K = camera.K[:, None]
    return x.div_(z).mul_(K[..., 0, 0]).add_(K[..., 0, 2]), y.div_(z).mul_(K[..., 1, 1]).add_(K[..., 1, 2]), z


def _surfaces(
    points: Tensor, camera: Camera, tolerance: float, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find the smallest depth per cell and the points within the tolerance of it.

    Returns:
        Smallest depth ``[B * h * w]``, infinite in holes; and of the points near it the index in ``B * N``, the cell in
        ``B * h * w``, the depth, and the position (u, v) in cells.
    """
    height, width = camera.size
    worlds, count = points.shape[:2]
    nearest = torch.full((worlds * height * width,), torch.inf, device=points.device)
    # On the CPU the temporaries of a tile stay in the cache; a GPU is faster with one launch.
    tile = max(_TILE // max(worlds, 1), 1) if points.device.type == "cpu" else max(count, 1)
    found = []
    for start in range(0, max(count, 1), tile):
        u, v, z = to_pixels(camera, points[:, start : start + tile])
        # u = -0.3 must not round into column 0. Comparisons with NaN are False, so no division needs a guard.
        hit = (z > NEAR) & (z < torch.inf) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        if valid is not None:
            hit &= valid[:, start : start + tile]
        at = hit.nonzero(as_tuple=True)
        u, v, z = u[at], v[at], z[at]
        cell = (at[0] * height + v.long()) * width + u.long()  # truncation equals floor: no value is negative
        nearest.scatter_reduce_(0, cell, z, "amin")
        # The smallest depth can only decrease, so points that are too deep now stay too deep.
        near = (z <= nearest[cell] * (1.0 + tolerance)).nonzero().squeeze(1)
        position = (at[0] * count + at[1] + start)[near]
        found.append((position, cell[near], z[near], u[near], v[near]))
    position, cell, z, u, v = (torch.cat(parts) for parts in zip(*found, strict=True))
    near = (z <= nearest[cell] * (1.0 + tolerance)).nonzero().squeeze(1)
    return nearest, position[near], cell[near], z[near], u[near], v[near]


def _flat(
    points: Tensor, camera: Camera, valid: Tensor | None, *values: Tensor
) -> tuple[Tensor, Camera, Tensor | None, list[Tensor]]:
    """Broadcast to points ``[B, N, 3]``, cameras ``[B]``, mask ``[B, N]`` and values ``[B * N]``."""
    batch = torch.broadcast_shapes(points.shape[:-2], camera.batch_shape)
    worlds, count = math.prod(batch), points.shape[-2]
    c2w, K = (t.expand(*batch, -1, -1).reshape(worlds, *t.shape[-2:]) for t in (camera.c2w, camera.K))
    if valid is not None:
        valid = valid.expand(*batch, count).reshape(worlds, count)
    flat = [value.expand(*batch, count).reshape(worlds * count) for value in values]
    return points.expand(*batch, count, 3).reshape(worlds, count, 3), Camera(c2w, K, camera.size), valid, flat


def coverage(
    points: Tensor,
    footprint: Tensor,
    camera: Camera,
    *,
    tolerance: float = 0.1,
    refine: float = 2.0,
    valid: Tensor | None = None,
) -> Coverage:
    """Find the surfaces that a camera sees; arguments as for :func:`splat`."""
    grid = (*torch.broadcast_shapes(points.shape[:-2], camera.batch_shape), *camera.size)
    points, camera, valid, (footprint,) = _flat(points, camera, valid, footprint)
    nearest, position, cell, z, _, _ = _surfaces(points, camera, tolerance, valid)
    focal = camera.K[cell // (camera.size[0] * camera.size[1]), 0, 0]
    fine = torch.zeros_like(nearest, dtype=torch.bool)
    fine[cell[~is_coarse(footprint[position], z, focal, refine)]] = True
    return Coverage(nearest.masked_fill(nearest == torch.inf, 0.0).view(grid), fine.view(grid), position)


def splat(
    points: Tensor,
    ids: Tensor,
    footprint: Tensor,
    camera: Camera,
    *,
    tolerance: float = 0.1,
    refine: float = 2.0,
    samples_per_cell: int = 1,
    valid: Tensor | None = None,
) -> Splat:
    """Select the visible point of each cell of the camera's grid, or of each part of a cell.

    Let ``z_min`` be the smallest depth in a cell. The candidates are the points within ``z_min * (1 + tolerance)``.
    Among them, points that are not coarse (:func:`is_coarse`) come first, then the smallest id, which is the oldest,
    wins. ``tolerance=0`` selects the nearest point, as in the paper (ids break exact ties). With
    ``samples_per_cell = n > 1``, each of the ``n x n`` parts of a cell selects among the cell's candidates that fall
    into it, so that neighbouring points in one cell are all visible while hidden points stay hidden.

    Args:
        points: ``[..., N, 3]`` metres, world frame.
        ids: ``[..., N]`` int64 in [0, 2^62), unique among the points of one map.
        footprint: ``[..., N]`` width in metres of the cell each point was written from.
        camera: batch shape ``[...]``, resized to the grid of cells.
        tolerance: relative thickness of a surface.
        refine: a point is coarse if its footprint exceeds this many cells.
        samples_per_cell: parts of a cell per axis; a power of two, so that parts nest exactly in cells.
        valid: optional bool ``[..., N]``; False hides a point.

    Returns:
        A :class:`Splat` of grids ``[..., n * h, n * w]``; offset and log_scale refer to their cells.
    """
    cells = camera.size[0] * camera.size[1]
    height, width = samples_per_cell * camera.size[0], samples_per_cell * camera.size[1]
    grid = (*torch.broadcast_shapes(points.shape[:-2], camera.batch_shape), height, width)
    points, camera, valid, (ids, footprint) = _flat(points, camera, valid, ids, footprint)
    worlds, count = points.shape[:2]
    _, position, cell, z, u, v = _surfaces(points, camera, tolerance, valid)

    world = cell // cells
    focal, written = camera.K[world, 0, 0], footprint[position]
    rank = ids[position] + is_coarse(written, z, focal, refine) * COARSE
    u, v = u * samples_per_cell, v * samples_per_cell
    part = (world * height + v.long()) * width + u.long()
    best = torch.full((worlds * height * width,), NO_POINT, device=points.device).scatter_reduce_(0, part, rank, "amin")
    # Ids are unique, so exactly one point per part passes and the writes below cannot race.
    winner = (rank == best[part]).nonzero().squeeze(1)
    position, part, world, z, focal, written, u, v = (
        t[winner] for t in (position, part, world, z, focal, written, u, v)
    )

    index = torch.full_like(best, -1)
    index[part] = position - world * count
    depth, log_scale, right, down = torch.zeros(4, len(best), device=points.device)
    depth[part] = z
    log_scale[part] = log_scale_of(scale_ratio(z.double(), written.double(), focal.double(), samples_per_cell))
    right[part], down[part] = u - u.floor() - 0.5, v - v.floor() - 0.5
    offset = torch.stack([right, down], dim=-1).view(*grid, 2)
    return Splat(index.view(grid), depth.view(grid), offset, log_scale.view(grid))
