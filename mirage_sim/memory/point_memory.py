"""The latent spatial memory: latent features at 3D points."""

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, cells_of, unproject
from mirage_sim.memory.blocks import Points
from mirage_sim.memory.latent_map import LatentMap
from mirage_sim.memory.rendering import RenderParams, block_coverage, render
from mirage_sim.protocols import MemoryView

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
        tolerance: relative thickness of a surface. A read selects the oldest point of the nearest surface; 0 selects
            the nearest point.
        refine: a write replaces points that are more than this many times coarser than the current view.
        samples_per_cell: number of samples of a read per latent cell and axis (1, 2, 4, ...). More than one keeps
            neighbouring points that fall into the same cell.
        max_points: maximum number of points; beyond it, the least recently seen blocks are removed. None: no limit.
        block_size: minimum edge of a block of the map in metres.
        compact: store features with 8 bits per channel and coordinates with 16 bits, in a third of the memory.

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
        self.channels = channels
        self.stride = stride
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
            self.channels, self.stride, *params, max_points=self.max_points, block_size=size, compact=True
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
        grid = latent_grid(camera, self.stride)
        length, size = len(camera), grid.size
        for name, tensor, shape in (
            ("latents", latents, [self.channels, length, *size]),
            ("depth", depth, [length, *camera.size]),
            ("static", static, [length, *camera.size]),
        ):
            if list(tensor.shape) != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {list(tensor.shape)}")
        coarse_depth = resample_depth(depth.float(), size)
        allowed = resample_static(static.bool(), depth, size) & (coarse_depth > 0)
        for t in range(length):
            map = self._write_frame(map, latents[:, t], coarse_depth[t], allowed[t], grid[t])
        return map if self.max_points is None else map.evict(self.max_points)

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
        self, map: LatentMap, latents: Tensor, depth: Tensor, allowed: Tensor, camera: Camera
    ) -> LatentMap:
        # Same criterion as in a read, so that a cell that is written is visible and fine from this camera.
        known = block_coverage(map, camera, self._params)
        same_surface = depth <= known.surface * (1.0 + self._params.tolerance)
        hole = known.surface == 0
        lacking = allowed & (hole | (~known.fine & same_surface))
        cell = lacking.flatten().nonzero().squeeze(1)
        points = Points(
            unproject(depth, camera).flatten(0, 1)[cell],
            latents.flatten(1).T[cell],
            map.next_id + cell,
            (depth / camera.K[0, 0]).flatten()[cell],
        )
        return map.add(points, known.rows, camera.size[0] * camera.size[1])
