"""What one camera sees of a map: the rules of the geometry's z-buffer, applied to the blocks in view.

On the CPU compiled loops walk over the blocks as they lie. Elsewhere, and as the twin by which those are checked, the
blocks in view are put side by side and given to :func:`~mirage_sim.geometry.splat` and
:func:`~mirage_sim.geometry.coverage`; the bits are the same.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry import Camera, coverage, log_scale_of, splat
from mirage_sim.memory import kernels
from mirage_sim.memory.latent_map import LatentMap, view_of


class RenderOutput(NamedTuple):
    """What is shown. Grids ``[h, w]`` over the camera's, with ``samples_per_cell`` samples per cell and axis.

    Attributes:
        latents: ``[h, w, C]``; zero in holes.
        source: int64, id of the point shown; -1 in holes.
        depth: metres; 0 in holes.
        offset: ``[2, h, w]``: where in its cell the point is, (u, v) from the centre; 0 in holes.
        log_scale: log2 of the cell's footprint now over the point's; 0 in holes.
    """

    latents: Tensor
    source: Tensor
    depth: Tensor
    offset: Tensor
    log_scale: Tensor


class BlockCoverage(NamedTuple):
    """What a write must know. Grids ``[h, w]`` over the camera's.

    Attributes:
        surface: smallest depth of any point in the cell, metres; 0 in holes.
        fine: bool, whether some point on that surface is not coarse.
        rows: int64 ``[n]``, the blocks that have points on the surfaces; ascending.
    """

    surface: Tensor
    fine: Tensor
    rows: np.ndarray


class RenderParams(NamedTuple):
    """How a map is looked at; see :class:`~mirage_sim.memory.PointMemory`.

    Attributes:
        tolerance: relative thickness of a surface.
        refine: how many cells wide a point may be before it counts as coarse.
        samples_per_cell: samples per cell and axis.
    """

    tolerance: float
    refine: float
    samples_per_cell: int = 1


def render(map: LatentMap, camera: Camera, rules: RenderParams) -> RenderOutput:
    """What one camera, on the grid of cells, is shown."""
    return (_render_compiled if _compiled(map, camera) else render_reference)(map, camera, rules)


def block_coverage(map: LatentMap, camera: Camera, rules: RenderParams) -> BlockCoverage:
    """What a write from one camera, on the grid of cells, must know."""
    return (_block_coverage_compiled if _compiled(map, camera) else block_coverage_reference)(map, camera, rules)


def _compiled(map: LatentMap, camera: Camera) -> bool:
    return camera.c2w.is_cpu and map.blocks.on_cpu


def render_reference(map: LatentMap, camera: Camera, rules: RenderParams) -> RenderOutput:
    """:func:`render` on any device."""
    rows = map.cull(camera).rows.tolist()
    xyz, ids, footprint = (column.to(camera.c2w.device) for column in map.select(rows))
    seen = splat(
        xyz,
        ids,
        footprint,
        camera,
        tolerance=rules.tolerance,
        refine=rules.refine,
        samples_per_cell=rules.samples_per_cell,
    )
    visible = seen.index >= 0
    winners = seen.index[visible]
    features = map.features_of(rows, winners)
    latents = features.new_zeros(*visible.shape, map.channels)
    latents[visible] = features
    source = torch.full_like(seen.index, -1)
    source[visible] = ids[winners]
    return RenderOutput(latents, source, seen.depth, seen.offset.movedim(-1, 0), seen.log_scale)


def block_coverage_reference(map: LatentMap, camera: Camera, rules: RenderParams) -> BlockCoverage:
    """:func:`block_coverage` on any device."""
    rows = map.cull(camera).rows.tolist()
    xyz, _, footprint = (column.to(camera.c2w.device) for column in map.select(rows))
    covered = coverage(xyz, footprint, camera, tolerance=rules.tolerance, refine=rules.refine)
    return BlockCoverage(covered.surface, covered.fine, map.rows_of(rows, covered.shown))


class _Found(NamedTuple):
    """What a sweep over the map found; see :func:`kernels.sweep`."""

    nearest: np.ndarray
    points: np.ndarray
    places: np.ndarray
    table: np.ndarray
    view: np.ndarray
    grown: np.float32


def _sweep(map: LatentMap, camera: Camera, rules: RenderParams) -> _Found:
    """Points near the surfaces. In one thread: hidden blocks left out, there is too little to share."""
    extents, table, view = map.blocks.extents.array(), map.blocks.table.array(), view_of(camera)
    grown = np.float32(1.0 + rules.tolerance)
    nearest, found, places, walked = kernels.sweep(*map.cull(camera), extents, table, view, *camera.size, grown)
    kernels.WORK.walked += len(map.blocks) + walked
    return _Found(nearest, found, places, table, view, grown)


def _render_compiled(map: LatentMap, camera: Camera, rules: RenderParams) -> RenderOutput:
    found = _sweep(map, camera, rules)
    height, width = (rules.samples_per_cell * n for n in camera.size)
    kept = map.blocks[0].features if len(map.blocks) else map.nothing("features")
    parts = height * width
    # NumPy's, of which little is called: after a sweep each of torch's functions comes from far away in the memory
    features = np.empty((parts, kept.shape[1] * kept.element_size()), np.uint8)
    source, scale = np.empty((height, width), np.int64), np.empty(parts, np.float64)
    seen = np.empty((3, height, width), np.float32)
    kernels.choose(
        *found[:4],
        camera.size[1],
        rules.samples_per_cell,
        found.view[12],
        found.grown,
        np.float32(rules.refine),
        features,
        source.reshape(-1),
        seen.reshape(3, -1),
        scale,
    )
    latents = map.decoded(torch.from_numpy(features.reshape(height, width, -1)).view(kept.dtype))
    log_scale = log_scale_of(torch.from_numpy(scale.reshape(height, width)))
    depth, offset = torch.from_numpy(seen[0]), torch.from_numpy(seen[1:])
    return RenderOutput(latents, torch.from_numpy(source), depth, offset, log_scale)


def _block_coverage_compiled(map: LatentMap, camera: Camera, rules: RenderParams) -> BlockCoverage:
    found = _sweep(map, camera, rules)
    fine, shown = np.zeros(len(found.nearest), np.bool_), np.zeros(len(map.blocks), np.bool_)
    kernels.block_coverage(*found[:4], found.view[12], found.grown, np.float32(rules.refine), fine, shown)
    surface = torch.from_numpy(found.nearest).view(camera.size)
    surface = surface.masked_fill(surface == torch.inf, 0.0)
    return BlockCoverage(surface, torch.from_numpy(fine).view(camera.size), np.flatnonzero(shown))
