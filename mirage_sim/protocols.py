"""The contracts between the rooms: what a memory, a codec, a denoiser, a depth estimator and a filter promise.

Shapes: ``F, H, W`` pixel frames; ``T, h, w`` latent frames; ``C`` latent channels; ``B`` worlds in a batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, cells_of

_WITHIN_A_CELL = 0.25  # relative difference in depth of samples in one cell, at most; the memory's own tolerance


@dataclass(frozen=True)
class MemoryView:
    """What the memory shows to cameras. Leading batch dimensions ``...`` may precede all shapes.

    The grid is the latent grid or, from a memory that keeps points apart which fell into one latent cell, finer by a
    whole factor; :meth:`resize` goes from one to the other.

    Attributes:
        latents: ``[..., C, T, h, w]``; zero in holes.
        visible: bool ``[..., T, h, w]``: the cell was hit by a remembered point; False marks a hole.
        depth: ``[..., T, h, w]`` z-depth of what is seen, metres; 0 in holes.
        source: int64 ``[..., T, h, w]``: id of the point seen; -1 in holes.
        offset: ``[..., 2, T, h, w]``: where in its cell the point is: (u, v) from centre in [-0.5, 0.5); 0 in holes.
        log_scale: ``[..., T, h, w]``: log2 of the cell's footprint now over its footprint when written; 0 in holes.
    """

    latents: Tensor
    visible: Tensor
    depth: Tensor
    source: Tensor
    offset: Tensor
    log_scale: Tensor

    @classmethod
    def stack(cls, views: "list[MemoryView]") -> "MemoryView":
        """A batch from views of single worlds."""
        return cls(*(torch.stack([getattr(view, name) for view in views]) for name in cls.__dataclass_fields__))

    def surface(self, size: tuple[int, int]) -> Tensor:
        """Depth of what each cell of a coarser grid shows, ``[..., T, *size]`` metres; 0 in holes.

        The mean inverse depth of the samples on the nearest surface of the cell. The nearest sample alone, as
        :meth:`resize` chooses it, is nearer than the cell's centre on all that is not seen straight on.
        """
        depth = cells_of(self.depth.masked_fill(~self.visible, torch.inf), size)
        on_surface = depth <= depth.amin(-1, keepdim=True) * (1.0 + _WITHIN_A_CELL)
        mean = on_surface.sum(-1) / (on_surface / depth).sum(-1)
        return mean.masked_fill(~torch.isfinite(mean), 0.0)

    def resize(self, size: tuple[int, int]) -> "MemoryView":
        """The same view on another grid ``(height, width)``.

        On a finer one each sample lies in the part of its cell where the point fell, the other parts are holes; on a
        coarser one each cell shows the nearest of its samples. Offset and zoom are those of the new cells.

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
        """Some of the latent frames."""
        return MemoryView(*(getattr(self, name)[..., frames, :, :] for name in self.__dataclass_fields__))

    def _finer(self, y: int, x: int) -> "MemoryView":
        across, along = self.offset.unbind(-4)
        across, along = (across + 0.5) * x, (along + 0.5) * y
        column, row = across.floor().clamp(max=x - 1), along.floor().clamp(max=y - 1)  # the sum may round up to 1
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
    """All that the denoiser is told about a chunk. The mini world's denoiser looks at the first four alone.

    Attributes:
        view: batched memory read-out ``[B, ...]`` at the chunk's cameras.
        preceding: the latents generated last ``[B, C, P, h, w]``, clean; those before ``first``, where it is given.
        motion: twist from the preceding camera to each of the chunk's, ``[B, T, 6]`` (metres, radians; camera axes).
        camera: the chunk's cameras, batch shape ``[B, T]``, pixel size.
        first: the chunk's first latent frame ``[B, C, 1, h, w]``, where chunks overlap and it is known already.
        references: latents of earlier frames that saw the same place, ``[B, C, R, h, w]``, clean.
        preceding_readout: what the memory showed when ``preceding`` were made, of their shape, zero in holes.
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
    """Writes latents into a persistent map and reads them back from other cameras.

    The map is a value: ``write`` returns a new one and leaves the old one as it was, so that holding on to a map is a
    snapshot and using it twice is a fork. Its attributes ``points`` (int) and ``nbytes`` (int) tell its size.
    """

    def empty(self) -> Any:
        """The map that remembers nothing."""

    def write(self, map: Any, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera) -> Any:
        """A map that also remembers these frames, where it lacked them.

        Args:
            map: the map to start from.
            latents: ``[C, T, h, w]``.
            frames: the same frames as pixels, ``[3, T, H, W]`` in [-1, 1].
            depth: z-depth ``[T, H, W]`` in metres; 0 means unknown and is not written.
            static: bool ``[T, H, W]``; False must not be remembered.
            camera: batch shape ``[T]``, size ``(H, W)``.
        """

    def observe(
        self, map: Any, *, latents: Tensor, frames: Tensor, depth: Tensor, static: Tensor, camera: Camera
    ) -> Any:
        """Return a map that also remembers observed frames, which come before all that was generated.

        Arguments are those of :meth:`write`. Points that the observation contradicts are removed.
        """

    def read(self, map: Any, camera: Camera) -> MemoryView:
        """What the map shows to cameras of batch shape ``[T]`` and pixel size, on the latent grid or a finer one."""


class Codec(Protocol):
    """Frames to latents and back. ``stride`` is (t, y, x); ``F = stride_t * (T - 1) + 1``."""

    stride: tuple[int, int, int]
    channels: int

    def encode(self, video: Tensor) -> Tensor:
        """Video ``[B, 3, F, H, W]`` in [-1, 1] to latents ``[B, C, T, h, w]`` of about unit variance."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[B, C, T, h, w]`` to video ``[B, 3, F, H, W]``, clamped to [-1, 1]."""


class StreamingCodec(Codec, Protocol):
    """A codec whose latent frames depend on those before, and that decodes them one after the other.

    A stream is all that it keeps of the frames before: a value, with ``tensors() -> dict[str, Tensor]``.
    """

    def decode_next(self, latents: Tensor, stream: Any = None) -> tuple[Tensor, Any]:
        """Frames of the next latent frame.

        Args:
            latents: ``[1, C, 1, h, w]``.
            stream: after the latent frame before; None at the first.

        Returns:
            Video ``[1, 3, 1, H, W]`` of the first latent frame, ``[1, 3, stride_t, H, W]`` of others, clamped to
            [-1, 1]; and the stream after it.
        """

    def stream(self, tensors: dict[str, Tensor], grid: tuple[int, int]) -> Any:
        """The stream that ``tensors()`` took apart.

        Args:
            tensors: by name.
            grid: ``(h, w)`` of the latents that it is to go on with.

        Raises:
            ValueError: if they are none of this codec's, or of another grid.
        """


class TextEncoder(Protocol):
    """Prompts to what the denoiser takes."""

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings ``[B, L, channels]`` of ``B`` prompts."""


class Denoiser(Protocol):
    """A flow-matching velocity field: velocity = noise - clean, ``x = (1 - sigma) clean + sigma noise``."""

    def condition(self, conditioning: Conditioning) -> Any:
        """What the conditioning becomes inside the network; computed once per chunk, used at every sampling step."""

    def velocity(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        """Velocity ``[B, C, T, h, w]`` at ``x`` of that shape and ``sigma [B, T]`` in [0, 1]."""


class Sampler(Protocol):
    """Goes from noise to clean latents along a velocity field."""

    def sample(self, denoiser: Any, condition: Any, noise: Tensor) -> Tensor:
        """Clean latents ``[B, C, T, h, w]`` from noise of that shape; ``condition`` is the denoiser's own."""


class DepthEstimator(Protocol):
    """Frames to metric z-depth."""

    def __call__(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """Estimate depth.

        Args:
            frames: ``[B, 3, F, H, W]`` in [-1, 1].
            camera: batch shape ``[B, F]``, size ``(H, W)``.
            known: depth that the memory remembers there, ``[B, F, h, w]`` metres, 0 where it remembers nothing: the new
                depth should agree with it.

        Returns:
            z-depth ``[B, F, H, W]`` in metres, 0 where unknown.
        """


class StaticFilter(Protocol):
    """Decides what may be remembered: not what moves."""

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """Bool ``[B, F, H, W]``, True where it may be remembered.

        Args:
            frames: ``[B, 3, F, H, W]`` in [-1, 1].
            depth: ``[B, F, H, W]`` metres.
            view: what the memory showed at the same cameras, batched.
            camera: batch shape ``[B, F]``.
        """
