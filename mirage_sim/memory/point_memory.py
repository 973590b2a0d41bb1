"""The latent spatial memory: latent features at 3D points."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry import Camera, cells_of, project, unproject
from mirage_sim.memory.blocks import GENERATED, Points
from mirage_sim.memory.latent_map import LatentMap
from mirage_sim.memory.rendering import RenderParams, block_coverage, render
from mirage_sim.protocols import MemoryView

_SEEN_THROUGH = 0.1  # relative distance in front of an observed surface from which a point cannot exist
_SAME_SURFACE = 0.1  # maximum relative depth difference of neighbouring pixels on one surface


def latent_grid(camera: Camera, stride: tuple[int, int, int]) -> Camera:
    """Resize cameras of batch shape ``[T]`` to the latent grid of a codec with stride (t, y, x).

    Raises:
        ValueError: if the camera has another batch shape, or a size that the stride does not divide.
    """
    (height, width), (_, y, x) = camera.size, stride
    if len(camera.batch_shape) != 1 or len(camera) < 1:
        raise ValueError(f"camera: expected batch shape [T], got {list(camera.batch_shape)}")
    if height % y or width % x:
        raise ValueError(f"camera: expected a size that {y} x {x} divides, got {height} x {width}")
    return camera.resize((height // y, width // x))


def resample_depth(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample depth at the centres of a coarser grid's cells, without bias.

    Where a centre lies between pixels of one surface, the result is the harmonic mean of their depths, which is exact
    on planes. (Taking the pixel beside the centre would be biased on slanted surfaces, and the bias would accumulate
    over steps.) Elsewhere the result is the pixel below and right of the centre, so that no point appears between a
    foreground edge and the background.

    Args:
        depth: ``[..., H, W]`` metres; 0 or not finite means unknown.
        size: ``(h, w)``, dividing ``(H, W)``.

    Returns:
        ``[..., h, w]`` metres; 0 where unknown.

    Raises:
        ValueError: if the grid does not divide the image.
    """
    (height, width), (h, w) = depth.shape[-2:], size
    if min(h, w) < 1 or height % h or width % w:
        raise ValueError(f"size: expected a grid that divides {height} x {width}, got {h} x {w}")
    y, x = height // h, width // w
    depth = torch.where(torch.isfinite(depth) & (depth > 0), depth, 0.0)
    rows, columns = range((y - 1) // 2, y // 2 + 1), range((x - 1) // 2, x // 2 + 1)
    around = torch.stack([depth[..., i::y, j::x] for i in rows for j in columns])
    nearest, farthest = around.amin(0), around.amax(0)
    differ_little = (nearest > 0) & (nearest < farthest) & (farthest <= nearest * (1.0 + _SAME_SURFACE))
    return torch.where(differ_little, len(around) / sum(1.0 / around), around[-1])


def resample_static(static: Tensor, depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which cells of a coarser grid are static: those whose pixels of known depth are all static.

    One moving pixel excludes its cell, because the latent of the cell encodes that pixel, too.

    Args:
        static: bool ``[..., H, W]``.
        depth: ``[..., H, W]`` metres; 0 or not finite means unknown.
        size: ``(h, w)``, dividing ``(H, W)``.

    Returns:
        bool ``[..., h, w]``.
    """
    known = torch.isfinite(depth) & (depth > 0)
    return cells_of(static | ~known, size).all(-1)


def _stacked(tensors: tuple[Tensor, ...], dim: int = 0) -> Tensor:
    """Stack tensors along a new dimension, without copying a single one."""
    return tensors[0].unsqueeze(dim) if len(tensors) == 1 else torch.stack(tensors, dim)


class PointMemory:
    """A :class:`~mirage_sim.protocols.SpatialMemory` that stores latents at 3D points.

    Args:
        channels: latent channels ``C``.
        stride: the codec's (t, y, x).
        tolerance: relative thickness of a surface. A read selects the oldest point of the nearest surface, and observed
            points before generated ones; 0 selects the nearest point.
        refine: a write replaces points that are more than this many times coarser than the current view.
        samples_per_cell: number of samples of a read per latent cell and axis (1, 2, 4, ...). More than one keeps
            neighbouring points that fall into the same cell.
        max_points: maximum number of points; beyond it, the least recently seen blocks are removed. None: no limit.
        block_size: minimum edge of a block of the map in metres.
        compact: store features with 8 bits per channel and coordinates with 16 bits, in a third of the memory.
        keep_observed: which of two observations of one surface is shown, ``"oldest"`` or ``"newest"``. The newest suits
            a place that changes.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        channels: int,
        stride: tuple[int, int, int],
        tolerance: float = 0.25,
        refine: float = 2.0,
        samples_per_cell: int = 1,
        max_points: int | None = None,
        block_size: float = 2.0,
        compact: bool = False,
        keep_observed: Literal["oldest", "newest"] = "oldest",
    ) -> None:
        if len(stride) != 3 or min(stride) < 1:
            raise ValueError(f"stride: expected positive (t, y, x), got {stride}")
        if not 0.0 <= tolerance < float("inf"):
            raise ValueError(f"tolerance: expected a finite number of at least 0, got {tolerance}")
        if not 1.0 <= refine:
            raise ValueError(f"refine: expected at least 1, got {refine}")
        if samples_per_cell < 1 or samples_per_cell & (samples_per_cell - 1):
            raise ValueError(f"samples_per_cell: expected a power of two, got {samples_per_cell}")
        if max_points is not None and max_points < 1:
            raise ValueError(f"max_points: expected None or at least 1, got {max_points}")
        if keep_observed not in ("oldest", "newest"):
            raise ValueError(f"keep_observed: expected 'oldest' or 'newest', got {keep_observed!r}")
        self.channels = channels
        self.stride = stride
        self.keep_observed = keep_observed
        self._params = RenderParams(tolerance, refine, samples_per_cell)
        self.max_points = max_points
        self._empty = LatentMap.empty(channels, block_size, compact)

    def empty(self) -> LatentMap:
        """Return an empty map."""
        return self._empty

    def compacted(self) -> "PointMemory":
        """Return this memory with ``compact=True``."""
        params, size = self._params, self._empty.block_size
        return PointMemory(
            self.channels,
            self.stride,
            *params,
            max_points=self.max_points,
            block_size=size,
            compact=True,
            keep_observed=self.keep_observed,
        )

    def write(
        self, map: LatentMap, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera
    ) -> LatentMap:
        """Return a map to which frames have been added.

        A cell is written if its depth is known, its content is static, and the map shows either a hole there or the
        same surface more than ``refine`` times coarser. Frames are written in order, each after reading the ones
        before. Features are never averaged.

        Args:
            map: the old map; it does not change.
            latents: ``[C, T, h, w]``.
            frames: unused.
            depth: z-depth ``[T, H, W]`` in metres; pixels with depth 0 or not finite are not written.
            static: bool ``[T, H, W]``; cells with a pixel that is False are not written.
            camera: batch shape ``[T]``, size ``(H, W)``.

        Raises:
            ValueError: if the shapes do not match.
        """
        grid, coarse, allowed = self._check(latents, depth, static, camera)
        for t in range(len(camera)):
            map = self._write_frame(map, latents[:, t], coarse[t], allowed[t], grid[t])
        return map if self.max_points is None else map.evict(self.max_points)

    def _check(self, latents: Tensor, depth: Tensor, static: Tensor, camera: Camera) -> tuple[Camera, Tensor, Tensor]:
        """Cameras, depth and what may be remembered on the latent grid, ``[T, h, w]`` each.

        Raises:
            ValueError: if shapes do not fit together.
        """
        grid = latent_grid(camera, self.stride)
        length, size = len(camera), grid.size
        for name, tensor, shape in (
            ("latents", latents, [self.channels, length, *size]),
            ("depth", depth, [length, *camera.size]),
            ("static", static, [length, *camera.size]),
        ):
            if list(tensor.shape) != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {list(tensor.shape)}")
        coarse = resample_depth(depth.float(), size)
        return grid, coarse, resample_static(static.bool(), depth, size) & (coarse > 0)

    def observe(
        self, map: LatentMap, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera
    ) -> LatentMap:
        """Return a map that also remembers observed frames, before all that was generated.

        Points that stand clearly in front of an observed surface are removed: the camera looked through them. So are
        generated points on that surface and, with ``keep_observed="newest"``, observed ones. Arguments and errors are
        those of :meth:`write`.
        """
        grid, coarse, allowed = self._check(latents, depth, static, camera)
        for t in range(len(camera)):
            map = self._clear(map, torch.where(static[t].bool(), depth[t].float(), 0.0), camera[t])
            map = self._write_frame(map, latents[:, t], coarse[t], allowed[t], grid[t], observed=True)
        return map if self.max_points is None else map.evict(self.max_points)

    def _clear(self, map: LatentMap, depth: Tensor, camera: Camera) -> LatentMap:
        """Remove the points that an observation with this depth ``[H, W]`` contradicts or replaces."""
        rows = np.sort(map.cull(camera).rows).tolist()
        if not rows:
            return map
        xyz, ids, _ = (column.to(depth.device) for column in map.select(rows))
        u, v, z = project(xyz, camera)
        height, width = camera.size
        inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        pixel = v.long().clamp(0, height - 1) * width + u.long().clamp(0, width - 1)
        known = torch.where(torch.isfinite(depth) & (depth > 0), depth, torch.inf)
        # an edge is uncertain by a pixel: the nearest of nine neighbours must be behind the point
        nearest = -torch.nn.functional.max_pool2d(-known[None, None], 3, stride=1, padding=1)[0, 0]
        behind, at = (grid.flatten()[pixel] for grid in (nearest, known))
        gone = torch.isfinite(at) & (z < behind * (1.0 - _SEEN_THROUGH))
        replaced = (
            torch.isfinite(at) & (z >= at / (1.0 + self._params.tolerance)) & (z <= at * (1.0 + self._params.tolerance))
        )
        gone |= replaced & ((ids >= GENERATED) | (self.keep_observed == "newest"))
        return map.without(rows, (gone & inside).to(map.device))

    def read(self, map: LatentMap, camera: Camera) -> MemoryView:
        """Render the map for cameras of batch shape ``[T]`` and pixel size."""
        grid = latent_grid(camera, self.stride)
        latents, source, depth, offset, log_scale = zip(*(render(map, one, self._params) for one in grid), strict=True)
        sources = _stacked(source)
        return MemoryView(
            latents=_stacked(latents).movedim(-1, 0),
            visible=sources >= 0,
            depth=_stacked(depth),
            source=sources,
            offset=_stacked(offset, 1),
            log_scale=_stacked(log_scale),
        )

    def _write_frame(
        self,
        map: LatentMap,
        latents: Tensor,
        depth: Tensor,
        allowed: Tensor,
        camera: Camera,
        observed: bool = False,
    ) -> LatentMap:
        # Same criterion as in a read, so that a cell that is written is visible and fine from this camera.
        known = block_coverage(map, camera, self._params)
        same_surface = depth <= known.surface * (1.0 + self._params.tolerance)
        hole = known.surface == 0
        lacking = allowed & (hole | (~known.fine & same_surface))
        if observed:  # what it contradicts is gone: a remembered surface can only be behind it
            lacking |= allowed & (depth * (1.0 + self._params.tolerance) < known.surface)
        cell = lacking.flatten().nonzero().squeeze(1)
        points = Points(
            unproject(depth, camera).flatten(0, 1)[cell],
            latents.flatten(1).T[cell],
            (map.next_observed if observed else map.next_id) + cell,
            (depth / camera.K[0, 0]).flatten()[cell],
        )
        return map.add(points, known.rows, camera.size[0] * camera.size[1], observed)
