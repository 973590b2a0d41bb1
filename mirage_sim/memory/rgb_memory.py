"""Baselines: colours at points, encoded anew at every read, and no memory at all."""

from dataclasses import replace

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, cells_of
from mirage_sim.memory.latent_map import LatentMap
from mirage_sim.memory.point_memory import PointMemory, latent_grid
from mirage_sim.protocols import Codec, MemoryView


def encode_rendering(codec: Codec, seen: MemoryView, size: tuple[int, int]) -> MemoryView:
    """Encode what coloured points show: from the pixel grid to the latent grid, each frame by itself.

    A latent cell is visible if at least half of its pixels are. Its depth and source are those of the lower median of
    these pixels; its ``offset`` (in cells) and ``log_scale`` are their means: the picture is at the right place and
    scale up
    to these.

    Args:
        codec: encodes the pictures; no gradient passes.
        seen: batched view ``[B, ...]`` on the pixel grid ``(H, W)``; its ``latents [B, 3, T, H, W]`` are colours in
            [-1, 1], 0 (grey) in holes.
        size: latent grid ``(h, w)``, dividing ``(H, W)``.

    Returns:
        View ``[B, ...]`` with latents ``[B, C, T, h, w]``.

    Raises:
        ValueError: if the grid does not divide the picture.
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

    pictures = seen.latents.transpose(1, 2)
    with torch.no_grad():
        encoded = codec.encode(pictures.flatten(0, 1)[:, :, None])
    latents = encoded[:, :, 0].unflatten(0, pictures.shape[:2]).transpose(1, 2)
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


def to_colours(frames: Tensor) -> Tensor:
    """Frames in [-1, 1] as uint8 of the same shape."""
    return ((frames.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


class RgbMemory:
    """The memory to beat: coloured points, drawn as a picture at every read, which the codec then encodes.

    It writes and reads by the rules of :class:`PointMemory`, at pixel resolution. Colours are stored as uint8.

    Args:
        codec: encodes the pictures; frozen.
        stride: the codec's (t, y, x).
        tolerance: relative thickness of a surface.
        max_points: most points to keep.

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
        """The map that remembers nothing."""
        return self._colours.empty()

    def write(
        self, map: LatentMap, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera
    ) -> LatentMap:
        """A map that also remembers these frames, where it lacked them; see :class:`PointMemory`.

        Args:
            map: the map to start from.
            latents: unused; the frames say it all.
            frames: ``[3, T, H, W]`` in [-1, 1].
            depth: z-depth ``[T, H, W]`` in metres; 0 or not finite means unknown and is not written.
            static: bool ``[T, H, W]``; False is not remembered.
            camera: batch shape ``[T]``, size ``(H, W)``.

        Raises:
            ValueError: if shapes do not fit together.
        """
        colours = to_colours(frames)
        return self._colours.write(map, latents=colours, frames=frames, depth=depth, static=static, camera=camera)

    def observe(
        self, map: LatentMap, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera
    ) -> LatentMap:
        """Return a map that also remembers observed frames; see :meth:`PointMemory.observe`."""
        colours = to_colours(frames)
        return self._colours.observe(map, latents=colours, frames=frames, depth=depth, static=static, camera=camera)

    def read(self, map: LatentMap, camera: Camera) -> MemoryView:
        """What the map shows to cameras of batch shape ``[T]`` and pixel size, on the latent grid.

        See :func:`encode_rendering` for when a cell is visible, and with which depth and source.
        """
        size = latent_grid(camera, self.stride).size
        seen = self._colours.read(map, camera)
        colours = torch.where(seen.visible, seen.latents.float() / 127.5 - 1.0, 0.0)
        view = encode_rendering(self.codec, MemoryView.stack([replace(seen, latents=colours)]), size)
        return MemoryView(*(getattr(view, name)[0] for name in MemoryView.__dataclass_fields__))


class EmptyMemory:
    """No memory: writes nothing and shows only holes.

    Args:
        channels: latent channels ``C``.
        stride: the codec's (t, y, x).
    """

    def __init__(self, channels: int, stride: tuple[int, int, int]) -> None:
        self.channels = channels
        self.stride = stride
        self._empty = LatentMap.empty(channels)

    def empty(self) -> LatentMap:
        """The map that remembers nothing."""
        return self._empty

    def write(
        self, map: LatentMap, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera
    ) -> LatentMap:
        """The map as it was; all else is unused."""
        return map

    observe = write

    def read(self, map: LatentMap, camera: Camera) -> MemoryView:
        """Holes, for cameras of batch shape ``[T]`` and pixel size, on the latent grid."""
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
