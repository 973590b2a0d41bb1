"""Rendering of a map for one camera.

On the CPU, compiled loops (:mod:`~mirage_sim.memory.kernels`) process the blocks in view one by one. On other devices
the reference implementation concatenates these blocks and calls :func:`~mirage_sim.geometry.splat` or
:func:`~mirage_sim.geometry.coverage`. Both give the same bits.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry import Camera, coverage, log_scale_of, splat
from mirage_sim.memory import kernels
from mirage_sim.memory.latent_map import LatentMap, view_of


class RenderOutput(NamedTuple):
    """A rendered map. The grid ``[h, w]`` has ``samples_per_cell`` samples per cell of the camera and axis.

    Attributes:
        latents: ``[h, w, C]``; zero in holes.
        source: int64, id of the visible point; -1 in holes.
        depth: metres; 0 in holes.
        offset: ``[2, h, w]``: (u, v) of the point relative to the cell centre; 0 in holes.
        log_scale: log2 of the cell's footprint over the point's; 0 in holes.
    """

    latents: Tensor
    source: Tensor
    depth: Tensor
    offset: Tensor
    log_scale: Tensor


class BlockCoverage(NamedTuple):
    """The surfaces that a camera sees, as far as a write needs them, on the camera's grid ``[h, w]``.

    Attributes:
        surface: smallest depth of any point in the cell, metres; 0 in holes.
        fine: bool, whether any point on that surface is not coarse.
        rows: int64 ``[n]``, rows of the blocks with points on the surfaces; ascending.
    """

    surface: Tensor
    fine: Tensor
    rows: np.ndarray


class RenderParams(NamedTuple):
    """Parameters of rendering; see :class:`~mirage_sim.memory.PointMemory`.

    Attributes:
        tolerance: relative thickness of a surface.
        refine: a point is coarse if its footprint exceeds this many cells.
        samples_per_cell: samples per cell and axis.
    """

    tolerance: float
    refine: float
    samples_per_cell: int = 1


def render(map: LatentMap, camera: Camera, params: RenderParams) -> RenderOutput:
    """Render a map for one camera, whose pixels are the cells of the grid."""
    return (_render_compiled if _compiled(map, camera) else render_reference)(map, camera, params)


def block_coverage(map: LatentMap, camera: Camera, params: RenderParams) -> BlockCoverage:
    """Find the surfaces that one camera sees, whose pixels are the cells of the grid."""
    return (_block_coverage_compiled if _compiled(map, camera) else block_coverage_reference)(map, camera, params)


def _compiled(map: LatentMap, camera: Camera) -> bool:
    return camera.c2w.is_cpu and map.blocks.on_cpu


def render_reference(map: LatentMap, camera: Camera, params: RenderParams) -> RenderOutput:
    """Reference implementation of :func:`render`, for any device."""
    rows = map.cull(camera).rows.tolist()
    xyz, ids, footprint = (column.to(camera.c2w.device) for column in map.select(rows))
    seen = splat(
        xyz,
        ids,
        footprint,
        camera,
        tolerance=params.tolerance,
        refine=params.refine,
        samples_per_cell=params.samples_per_cell,
    )
    visible = seen.index >= 0
    winners = seen.index[visible]
    features = map.features_of(rows, winners)
    latents = features.new_zeros(*visible.shape, map.channels)
    latents[visible] = features
    source = torch.full_like(seen.index, -1)
    source[visible] = ids[winners]
    return RenderOutput(latents, source, seen.depth, seen.offset.movedim(-1, 0), seen.log_scale)


def block_coverage_reference(map: LatentMap, camera: Camera, params: RenderParams) -> BlockCoverage:
    """Reference implementation of :func:`block_coverage`, for any device."""
    rows = map.cull(camera).rows.tolist()
    xyz, _, footprint = (column.to(camera.c2w.device) for column in map.select(rows))
    covered = coverage(xyz, footprint, camera, tolerance=params.tolerance, refine=params.refine)
    return BlockCoverage(covered.surface, covered.fine, map.rows_of(rows, covered.shown))


class _Found(NamedTuple):
    """Result of :func:`kernels.sweep`, with the arrays that later kernels need."""

    nearest: np.ndarray
    points: np.ndarray
    places: np.ndarray
    table: np.ndarray
    view: np.ndarray
    grown: np.float32


def _sweep(map: LatentMap, camera: Camera, params: RenderParams) -> _Found:
    """Find the points near the surfaces, in one thread: without hidden blocks more threads would not help."""
    extents, table, view = map.blocks.extents.array(), map.blocks.table.array(), view_of(camera)
    grown = np.float32(1.0 + params.tolerance)
    nearest, found, places, walked = kernels.sweep(*map.cull(camera), extents, table, view, *camera.size, grown)
    kernels.WORK.walked += len(map.blocks) + walked
    return _Found(nearest, found, places, table, view, grown)


def _render_compiled(map: LatentMap, camera: Camera, params: RenderParams) -> RenderOutput:
    found = _sweep(map, camera, params)
    height, width = (params.samples_per_cell * n for n in camera.size)
    kept = map.blocks[0].features if len(map.blocks) else map.empty_column("features")
    parts = height * width
    # NumPy arrays: each torch call would be slow here, because the sweep has evicted torch's code from the cache.
    features = np.empty((parts, kept.shape[1] * kept.element_size()), np.uint8)
    source, scale = np.empty((height, width), np.int64), np.empty(parts, np.float64)
    seen = np.empty((3, height, width), np.float32)
    kernels.choose(
        *found[:4],
        camera.size[1],
        params.samples_per_cell,
        found.view[12],
        found.grown,
        np.float32(params.refine),
        features,
        source.reshape(-1),
        seen.reshape(3, -1),
        scale,
    )
    latents = map.decoded(torch.from_numpy(features.reshape(height, width, -1)).view(kept.dtype))
    log_scale = log_scale_of(torch.from_numpy(scale.reshape(height, width)))
    depth, offset = torch.from_numpy(seen[0]), torch.from_numpy(seen[1:])
    return RenderOutput(latents, torch.from_numpy(source), depth, offset, log_scale)


def _block_coverage_compiled(map: LatentMap, camera: Camera, params: RenderParams) -> BlockCoverage:
    found = _sweep(map, camera, params)
    fine, shown = np.zeros(len(found.nearest), np.bool_), np.zeros(len(map.blocks), np.bool_)
    kernels.block_coverage(*found[:4], found.view[12], found.grown, np.float32(params.refine), fine, shown)
    surface = torch.from_numpy(found.nearest).view(camera.size)
    surface = surface.masked_fill(surface == torch.inf, 0.0)
    return BlockCoverage(surface, torch.from_numpy(fine).view(camera.size), np.flatnonzero(shown))
