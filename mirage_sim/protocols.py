"""Interfaces of the world model's components: memory, codec, denoiser, sampler, depth estimator and static filter.

Shapes: ``F, H, W`` pixel frames; ``T, h, w`` latent frames; ``C`` latent channels; ``B`` worlds in a batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, cells_of

_WITHIN_A_CELL = 0.25  # maximum relative depth difference within one surface, as in the memory


@dataclass(frozen=True)
class MemoryView:
    """The memory's content rendered for cameras. Leading batch dimensions ``...`` may precede all shapes.

    The grid ``h, w`` is the latent grid or finer by an integer factor, if the memory renders several samples per latent
    cell; :meth:`resize` converts between them.

    Attributes:
        latents: ``[..., C, T, h, w]``; zero in holes.
        visible: bool ``[..., T, h, w]``; False in holes, where the memory has no point.
        depth: ``[..., T, h, w]`` z-depth of the visible point in metres; 0 in holes.
        source: int64 ``[..., T, h, w]``: id of the visible point; -1 in holes.
        offset: ``[..., 2, T, h, w]``: (u, v) of the point relative to the cell centre, in [-0.5, 0.5); 0 in holes.
        log_scale: ``[..., T, h, w]``: log2 of the cell's footprint over the footprint of the point; 0 in holes.
    """

    latents: Tensor
    visible: Tensor
    depth: Tensor
    source: Tensor
    offset: Tensor
    log_scale: Tensor

    @classmethod
    def stack(cls, views: "list[MemoryView]") -> "MemoryView":
        """Stack the views of single worlds to a batch."""
        return cls(*(torch.stack([getattr(view, name) for view in views]) for name in cls.__dataclass_fields__))

    def surface(self, size: tuple[int, int]) -> Tensor:
        """Return the depth of the nearest surface in each cell of a coarser grid, ``[..., T, *size]`` metres.

        This is the harmonic mean depth of the samples on that surface, 0 in holes. The nearest sample alone, which
        :meth:`resize` selects, would be biased towards the camera on slanted surfaces.
        """
        depth = cells_of(self.depth.masked_fill(~self.visible, torch.inf), size)
        on_surface = depth <= depth.amin(-1, keepdim=True) * (1.0 + _WITHIN_A_CELL)
        mean = on_surface.sum(-1) / (on_surface / depth).sum(-1)
        return mean.masked_fill(~torch.isfinite(mean), 0.0)

    def resize(self, size: tuple[int, int]) -> "MemoryView":
        """Convert the view to another grid ``(height, width)``.

        On a finer grid each sample moves to the part of its cell that contains the point; the other parts become
        holes. On a coarser grid each cell takes the nearest of its samples. Offset and log_scale are converted, too.

        Raises:
            ValueError: if neither grid divides the other.
        """
        height, width = self.visible.shape[-2:]
        if size == (height, width):
            return self
        y, x = size[0] // height, size[1] // width
        if (y * height, x * width) == tuple(size):
            return self._finer(y, x)
        y, x = height // size[0], width // size[1]
        if (y * size[0], x * size[1]) == (height, width):
            return self._coarser(size, y, x)
        raise ValueError(f"size: expected a multiple or a divisor of {height} x {width}, got {size[0]} x {size[1]}")

    def at(self, frames: slice) -> "MemoryView":
        """Return a range of latent frames."""
        return MemoryView(*(getattr(self, name)[..., frames, :, :] for name in self.__dataclass_fields__))

    def _finer(self, y: int, x: int) -> "MemoryView":
        across, along = self.offset.unbind(-4)
        across, along = (across + 0.5) * x, (along + 0.5) * y
        column, row = across.floor().clamp(max=x - 1), along.floor().clamp(max=y - 1)  # the sum may round up to x or y
        columns = torch.arange(x, device=column.device)
        rows = torch.arange(y, device=row.device)[:, None, None]
        # [..., T, h, y, w, x]
        here = (row[..., :, None, :, None] == rows) & (column[..., :, None, :, None] == columns)
        here &= self.visible[..., :, None, :, None]

        def place(values: Tensor, filler: int = 0) -> Tensor:
            placed = torch.where(here, values[..., :, None, :, None], filler)
            return placed.flatten(-2).flatten(-3, -2)

        offset = torch.stack([place(across - column - 0.5), place(along - row - 0.5)], dim=-4)
        latents = torch.stack([place(channel) for channel in self.latents.unbind(-4)], dim=-4)
        visible = here.flatten(-2).flatten(-3, -2)
        return MemoryView(
            latents, visible, place(self.depth), place(self.source, -1), offset, place(self.log_scale - math.log2(x))
        )

    def _coarser(self, size: tuple[int, int], y: int, x: int) -> "MemoryView":
        visible = cells_of(self.visible, size)
        depth, chosen = cells_of(self.depth, size).masked_fill(~visible, torch.inf).min(-1, keepdim=True)
        visible = visible.any(-1)

        def choose(values: Tensor) -> Tensor:
            return cells_of(values, size).gather(-1, chosen).squeeze(-1)

        across, along = self.offset.unbind(-4)
        across = (chosen % x).squeeze(-1).add(0.5).add_(choose(across)).div_(x).sub_(0.5)
        along = (chosen // x).squeeze(-1).add(0.5).add_(choose(along)).div_(y).sub_(0.5)
        channels = self.latents.shape[-4]
        of_each = chosen.unsqueeze(-5).expand(*chosen.shape[:-4], channels, *chosen.shape[-4:])
        return MemoryView(
            latents=cells_of(self.latents, size).gather(-1, of_each).squeeze(-1),
            visible=visible,
            depth=torch.where(visible, depth.squeeze(-1), 0.0),
            source=choose(self.source),
            offset=torch.stack([across, along], dim=-4) * visible.unsqueeze(-4),
            log_scale=torch.where(visible, choose(self.log_scale) + math.log2(x), 0.0),
        )


@dataclass(frozen=True)
class Conditioning:
    """The denoiser's inputs for one chunk. The mini denoiser uses only the first four.

    Attributes:
        view: batched memory read-out ``[B, ...]`` at the chunk's cameras.
        preceding: the latest latents ``[B, C, P, h, w]``, clean, without ``first``.
        motion: twist from the preceding camera to each of the chunk, ``[B, T, 6]`` (metres, radians; camera axes).
        camera: the chunk's cameras, batch shape ``[B, T]``, pixel size.
        first: the first latent frame of an overlapping chunk, which is known, ``[B, C, 1, h, w]``.
        references: latents of earlier frames of the same place, ``[B, C, R, h, w]``, clean.
        preceding_readout: memory read-out at the cameras of ``preceding``, of the same shape, zero in holes.
        text: embedded prompt ``[B, L, channels]``.
    """

    view: MemoryView
    preceding: Tensor
    motion: Tensor
    camera: Camera
    first: Tensor | None = None
    references: Tensor | None = None
    preceding_readout: Tensor | None = None
    text: Tensor | None = None


class SpatialMemory(Protocol):
    """Writes latents to a map and renders the map for other cameras.

    Maps are immutable: ``write`` returns a new map. Keeping a map is therefore a snapshot, and writing to it twice a
    fork. A map has the attributes ``points`` (int) and ``nbytes`` (int).
    """

    def empty(self) -> Any:
        """Return an empty map."""

    def write(self, map: Any, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera) -> Any:
        """Return a map to which frames have been added, wherever the old map had no content.

        Args:
            map: the old map; it does not change.
            latents: ``[C, T, h, w]``.
            frames: the same frames as pixels, ``[3, T, H, W]`` in [-1, 1].
            depth: z-depth ``[T, H, W]`` in metres; pixels of depth 0 (unknown) are not written.
            static: bool ``[T, H, W]``; pixels that are False are not written.
            camera: batch shape ``[T]``, size ``(H, W)``.
        """

    def read(self, map: Any, camera: Camera) -> MemoryView:
        """Render the map for cameras of batch shape ``[T]`` and pixel size, on the latent grid or a finer one."""


class Codec(Protocol):
    """Encodes frames to latents and decodes them. ``stride`` is (t, y, x); ``F = stride_t * (T - 1) + 1``."""

    stride: tuple[int, int, int]
    channels: int

    def encode(self, video: Tensor) -> Tensor:
        """Encode video ``[B, 3, F, H, W]`` in [-1, 1] to latents ``[B, C, T, h, w]`` of about unit variance."""

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents ``[B, C, T, h, w]`` to video ``[B, 3, F, H, W]``, clamped to [-1, 1]."""


class StreamingCodec(Codec, Protocol):
    """A codec that decodes latent frames one after the other, each depending on the ones before.

    A stream is the decoder's immutable state between two latent frames. It has ``tensors() -> dict[str, Tensor]``.
    """

    def decode_next(self, latents: Tensor, stream: Any = None) -> tuple[Tensor, Any]:
        """Decode the next latent frame.

        Args:
            latents: ``[1, C, 1, h, w]``.
            stream: after the previous latent frame; None for the first.

        Returns:
            Video ``[1, 3, 1, H, W]`` for the first latent frame and ``[1, 3, stride_t, H, W]`` for others, clamped to
            [-1, 1]; and the new stream.
        """

    def stream(self, tensors: dict[str, Tensor], grid: tuple[int, int]) -> Any:
        """Restore a stream from the tensors that its ``tensors()`` returned.

        Args:
            tensors: by name.
            grid: ``(h, w)`` of the latents.

        Raises:
            ValueError: if they belong to another codec or grid.
        """


class TextEncoder(Protocol):
    """Embeds text prompts for the denoiser."""

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings ``[B, L, channels]`` of ``B`` prompts."""


class Denoiser(Protocol):
    """Predicts the flow-matching velocity ``noise - clean`` at ``x = (1 - sigma) clean + sigma noise``."""

    def condition(self, conditioning: Conditioning) -> Any:
        """Prepare the conditioning; called once per chunk, its result is used at every sampling step."""

    def velocity(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        """Return the velocity at ``x [B, C, T, h, w]`` and ``sigma [B, T]`` in [0, 1]; same shape as ``x``."""


class Sampler(Protocol):
    """Integrates a velocity field from noise to clean latents."""

    def sample(self, denoiser: Any, condition: Any, noise: Tensor) -> Tensor:
        """Return clean latents for noise ``[B, C, T, h, w]``; ``condition`` comes from the denoiser."""


class DepthEstimator(Protocol):
    """Estimates the metric z-depth of frames."""

    def __call__(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """Estimate depth.

        Args:
            frames: ``[B, 3, F, H, W]`` in [-1, 1].
            camera: batch shape ``[B, F]``, size ``(H, W)``.
            known: depth of the memory at the same cameras, ``[B, F, h, w]`` metres, 0 in holes. The estimate should
                agree with it.

        Returns:
            z-depth ``[B, F, H, W]`` in metres, 0 where unknown.
        """


class StaticFilter(Protocol):
    """Decides which pixels the memory may store: those of static content."""

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """Return bool ``[B, F, H, W]``, True where the memory may store the pixel.

        Args:
            frames: ``[B, 3, F, H, W]`` in [-1, 1].
            depth: ``[B, F, H, W]`` metres.
            view: batched memory view at the same cameras.
            camera: batch shape ``[B, F]``.
        """
