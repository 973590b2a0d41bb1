"""Splatting and coverage that mask hidden points instead of dropping them, so that shapes do not depend on values.

The results equal those of :mod:`mirage_sim.geometry.projection`. Dropping hidden points saves most of the work on a
CPU, but forces an accelerator to synchronise with the host to count the rest.
"""

import torch
from torch import Tensor

from mirage_sim.geometry.camera import Camera
from mirage_sim.geometry.projection import (
    COARSE,
    NEAR,
    NO_POINT,
    Splat,
    is_coarse,
    log_scale_of,
    scale_ratio,
    to_pixels,
)


def _surfaces(
    points: Tensor, camera: Camera, valid: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Find the smallest depth per cell and the points within the tolerance of it.

    Returns:
        Smallest depth ``[B * h * w]``, infinite in holes; each point's cell and whether it is near the surface there,
        ``[B, N]``; and each point's ``u, v, z``.
    """
    height, width = camera.size
    worlds, count = points.shape[:2]
    cells = worlds * height * width
    u, v, z = to_pixels(camera, points)
    hit = (z > NEAR) & (z < torch.inf) & (u >= 0) & (u < width) & (v >= 0) & (v < height) & valid
    world = torch.arange(worlds, device=points.device)[:, None]
    # Hidden points change no minimum. They are spread over all cells, because many writes to one cell are slow.
    elsewhere = (torch.arange(worlds * count, device=points.device) % max(cells, 1)).view(worlds, count)
    cell = torch.where(hit, (world * height + v.long()) * width + u.long(), elsewhere)
    depth = torch.where(hit, z, torch.inf)
    nearest = torch.full((cells,), torch.inf, device=points.device)
    nearest = nearest.scatter_reduce(0, cell.flatten(), depth.flatten(), "amin")
    near = hit & (z <= nearest[cell] * (1.0 + tolerance))
    return nearest, cell, near, (u, v, z)


def masked_coverage(
    points: Tensor, footprint: Tensor, camera: Camera, valid: Tensor, *, tolerance: float, refine: float
) -> tuple[Tensor, Tensor]:
    """Return ``surface`` and ``fine`` of :func:`mirage_sim.geometry.coverage`.

    Args:
        points: ``[B, N, 3]`` metres, world frame.
        footprint: ``[B, N]`` metres.
        camera: batch shape ``[B]``.
        valid: bool ``[B, N]``; False hides a point.
        tolerance: relative thickness of a surface.
        refine: a point counts as coarse when its footprint exceeds this many cells.

    Returns:
        Smallest z-depth in metres (0 in holes), and whether any point on that surface is fine, both ``[B, h, w]``.
    """
    nearest, cell, near, (_, _, z) = _surfaces(points, camera, valid, tolerance)
    is_fine = near & ~is_coarse(footprint, z, camera.K[:, 0, 0, None], refine)
    fine = torch.zeros_like(nearest).scatter_reduce(0, cell.flatten(), is_fine.flatten().to(nearest.dtype), "amax")
    grid = (len(points), *camera.size)
    return nearest.masked_fill(nearest == torch.inf, 0.0).view(grid), (fine > 0).view(grid)


def masked_splat(
    points: Tensor,
    footprint: Tensor,
    camera: Camera,
    valid: Tensor,
    *,
    tolerance: float,
    refine: float,
    samples_per_cell: int = 1,
) -> Splat:
    """Select the visible point of each cell or part of a cell, like :func:`mirage_sim.geometry.splat`.

    Args:
        points: ``[B, N, 3]`` metres, world frame, oldest first: a point's index is its id.
        footprint: ``[B, N]`` metres.
        camera: batch shape ``[B]``.
        valid: bool ``[B, N]``; False hides a point.
        tolerance: relative thickness of a surface.
        refine: a point counts as coarse when its footprint exceeds this many cells.
        samples_per_cell: parts of a cell per axis; a power of two.
    """
    _, _, near, (u, v, z) = _surfaces(points, camera, valid, tolerance)
    worlds, count = points.shape[:2]
    height, width = samples_per_cell * camera.size[0], samples_per_cell * camera.size[1]
    parts = worlds * height * width
    ids = torch.arange(count, device=points.device)
    rank = ids + is_coarse(footprint, z, camera.K[:, 0, 0, None], refine) * COARSE
    u, v = u * samples_per_cell, v * samples_per_cell
    world = torch.arange(worlds, device=points.device)[:, None]
    elsewhere = (torch.arange(worlds * count, device=points.device) % max(parts, 1)).view(worlds, count)
    part = torch.where(near, (world * height + v.long()) * width + u.long(), elsewhere)
    rank = torch.where(near, rank, NO_POINT)
    best = torch.full((parts,), NO_POINT, device=points.device)
    best = best.scatter_reduce(0, part.flatten(), rank.flatten(), "amin").view(worlds, height * width)

    found = best != NO_POINT
    winner = torch.where(found, best & (COARSE - 1), 0)
    depth, written, right, down = (values.gather(1, winner) for values in (z, footprint, u, v))
    focal = camera.K[:, 0, 0, None].double()
    scale = scale_ratio(depth.double(), written.double(), focal, samples_per_cell)
    log_scale = log_scale_of(torch.where(found, scale, 1.0))
    offset = torch.stack([right - right.floor() - 0.5, down - down.floor() - 0.5], dim=-1)
    grid = (worlds, height, width)
    return Splat(
        index=torch.where(found, winner, -1).view(grid),
        depth=torch.where(found, depth, 0.0).view(grid),
        offset=torch.where(found[..., None], offset, 0.0).view(*grid, 2),
        log_scale=log_scale.view(grid),
    )
