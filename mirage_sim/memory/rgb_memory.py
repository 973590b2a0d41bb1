"""Baseline memories: coloured points that are encoded at every read, and no memory."""

from dataclasses import replace

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, cells_of
from mirage_sim.memory.latent_map import LatentMap
from mirage_sim.memory.point_memory import PointMemory, latent_grid
from mirage_sim.protocols import Codec, MemoryView


def encode_rendering(codec: Codec, seen: MemoryView, size: tuple[int, int]) -> MemoryView:
    """Encode rendered colours from the pixel grid to the latent grid, frame by frame.

    A latent cell is visible if at least half of its pixels are. It takes depth and source from the visible pixel of
    median depth (the lower median), and the means of ``offset`` (in cells) and ``log_scale``.

    Args:
        codec: encodes the images, without gradients.
        seen: batched view ``[B, ...]`` on the pixel grid ``(H, W)``; its ``latents [B, 3, T, H, W]`` are colours in
            [-1, 1], 0 (grey) in holes.
        size: latent grid ``(h, w)``, dividing ``(H, W)``.

    Returns:
        View ``[B, ...]`` with latents ``[B, C, T, h, w]``.

    Raises:
        ValueError: if the grid does not divide the image.
    """
    hit = cells_of(seen.visible, size)
    count = hit.sum(-1)
    visible = count * 2 >= hit.shape[-1]
    ordered, order = cells_of(seen.depth, size).masked_fill(~hit, torch.inf).sort(dim=-1, stable=True)
    median = ((count - 1).clamp(min=0) // 2)[..., None]
    source = cells_of(seen.source, size).gather(-1, order.gather(-1, median)).squeeze(-1)
    depth = torch.where(visible, ordered.gather(-1, median).squeeze(-1), 0.0)
    cell = (seen.visible.shape[-1] // size[1], seen.visible.shape[-2] // size[0])

    def mean(values: Tensor) -> Tensor:
        return (cells_of(values, size) * hit).sum(-1) / count.clamp(min=1) * visible

    images = seen.latents.transpose(1, 2)
    with torch.no_grad():
        encoded = codec.encode(images.flatten(0, 1)[:, :, None])
    latents = encoded[:, :, 0].unflatten(0, images.shape[:2]).transpose(1, 2)
    return MemoryView(
        latents=latents * visible[:, None],
        visible=visible,
        depth=depth,
        source=torch.where(visible, source, -1),
        offset=torch.stack(
            [mean(along) / pixels for along, pixels in zip(seen.offset.unbind(1), cell, strict=True)], 1
        ),
        log_scale=mean(seen.log_scale),
    )


class RgbMemory:
    """A memory of coloured points, which each read renders to an image and encodes with the codec.

    Reads and writes follow :class:`PointMemory`, at pixel resolution. Colours are stored as uint8.

    Args:
        codec: encodes the rendered images.
        stride: the codec's (t, y, x).
        tolerance: relative thickness of a surface.
        max_points: maximum number of points; None: no limit.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, codec: Codec, stride: tuple[int, int, int], tolerance: float = 0.25, max_points: int | None = None
    ) -> None:
        self.codec = codec
        self.stride = stride
        self._colours = PointMemory(3, (stride[0], 1, 1), tolerance=tolerance, max_points=max_points)

    def empty(self) -> LatentMap:
        """Return an empty map."""
        return self._colours.empty()

    def write(
        self, map: LatentMap, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera
    ) -> LatentMap:
        """Return a map to which frames have been added; see :meth:`PointMemory.write`.

        Args:
            map: the old map; it does not change.
            latents: unused.
            frames: ``[3, T, H, W]`` in [-1, 1].
            depth: z-depth ``[T, H, W]`` in metres; pixels with depth 0 or not finite are not written.
            static: bool ``[T, H, W]``; pixels that are False are not written.
            camera: batch shape ``[T]``, size ``(H, W)``.

        Raises:
            ValueError: if the shapes do not match.
        """
        colours = ((frames.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return self._colours.write(map, latents=colours, frames=frames, depth=depth, static=static, camera=camera)

    def read(self, map: LatentMap, camera: Camera) -> MemoryView:
        """Render the map for cameras of batch shape ``[T]`` and pixel size and encode it to the latent grid.

        See :func:`encode_rendering` for visibility, depth and source of a cell.
        """
        size = latent_grid(camera, self.stride).size
        seen = self._colours.read(map, camera)
        colours = torch.where(seen.visible, seen.latents.float() / 127.5 - 1.0, 0.0)
        view = encode_rendering(self.codec, MemoryView.stack([replace(seen, latents=colours)]), size)
        return MemoryView(*(getattr(view, name)[0] for name in MemoryView.__dataclass_fields__))


class EmptyMemory:
    """A memory that stores nothing: every read is a hole.

    Args:
        channels: latent channels ``C``.
        stride: the codec's (t, y, x).
    """

    def __init__(self, channels: int, stride: tuple[int, int, int]) -> None:
        self.channels = channels
        self.stride = stride
        self._empty = LatentMap.empty(channels)

    def empty(self) -> LatentMap:
        """Return an empty map."""
        return self._empty

    def write(
        self, map: LatentMap, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera
    ) -> LatentMap:
        """Return the map unchanged."""
        return map

    def read(self, map: LatentMap, camera: Camera) -> MemoryView:
        """Return holes for cameras of batch shape ``[T]`` and pixel size, on the latent grid."""
        grid = latent_grid(camera, self.stride)
        shape, device = (len(grid), *grid.size), grid.c2w.device
        return MemoryView(
            latents=torch.zeros(self.channels, *shape, device=device),
            visible=torch.zeros(shape, dtype=torch.bool, device=device),
            depth=torch.zeros(shape, device=device),
            source=torch.full(shape, -1, device=device),
            offset=torch.zeros(2, *shape, device=device),
            log_scale=torch.zeros(shape, device=device),
        )
