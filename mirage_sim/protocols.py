"""The contracts between the rooms: what a memory, a codec, a denoiser, a depth estimator and a filter promise.

Shapes: ``F, H, W`` pixel frames; ``T, h, w`` latent frames; ``C`` latent channels; ``B`` worlds in a batch.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mirage_sim.geometry import Camera


@dataclass(frozen=True)
class MemoryView:
    """What the memory shows to cameras on the latent grid. Leading batch dimensions ``...`` may precede all shapes.

    Attributes:
        latents: ``[..., C, T, h, w]``; zero in holes.
        visible: bool ``[..., T, h, w]``: the cell was hit by a remembered point; False marks a hole.
        depth: ``[..., T, h, w]`` z-depth of what is seen, metres; 0 in holes.
        source: int64 ``[..., T, h, w]``: id of the point seen; -1 in holes.
        offset: ``[..., 2, T, h, w]``: where in its cell the point is: (u, v) from centre in [-0.5, 0.5); 0 in holes.
        zoom: ``[..., T, h, w]``: log2 of the cell's footprint now over its footprint when written; 0 in holes.
    """

    latents: Tensor
    visible: Tensor
    depth: Tensor
    source: Tensor
    offset: Tensor
    zoom: Tensor

    @classmethod
    def stack(cls, views: "list[MemoryView]") -> "MemoryView":
        """A batch from views of single worlds."""
        return cls(*(torch.stack([getattr(view, name) for view in views]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Conditioning:
    """All that the denoiser is told about a chunk.

    Attributes:
        view: batched memory read-out ``[B, ...]`` at the chunk's cameras.
        preceding: the latents generated last ``[B, C, P, h, w]``, clean.
        motion: twist from the preceding camera to each of the chunk's, ``[B, T, 6]`` (metres, radians; camera axes).
        camera: the chunk's cameras, batch shape ``[B, T]``, pixel size.
    """

    view: MemoryView
    preceding: Tensor
    motion: Tensor
    camera: Camera


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

    def read(self, map: Any, camera: Camera) -> MemoryView:
        """What the map shows to cameras of batch shape ``[T]`` and pixel size, on the latent grid."""


class Codec(Protocol):
    """Frames to latents and back. ``stride`` is (t, y, x); ``F = stride_t * (T - 1) + 1``."""

    stride: tuple[int, int, int]
    channels: int

    def encode(self, video: Tensor) -> Tensor:
        """Video ``[B, 3, F, H, W]`` in [-1, 1] to latents ``[B, C, T, h, w]`` of about unit variance."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[B, C, T, h, w]`` to video ``[B, 3, F, H, W]``, clamped to [-1, 1]."""


class Denoiser(Protocol):
    """A flow-matching velocity field: velocity = noise - clean, ``x = (1 - sigma) clean + sigma noise``."""

    def condition(self, conditioning: Conditioning) -> Any:
        """What the conditioning becomes inside the network; computed once per chunk, used at every sampling step."""

    def velocity(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        """Velocity ``[B, C, T, h, w]`` at ``x`` of that shape and ``sigma [B, T]`` in [0, 1]."""


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
