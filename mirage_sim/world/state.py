"""The state of a world and the result of a step; both immutable."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.protocols import MemoryView
from mirage_sim.world.history import History
from mirage_sim.world.images import to_uint8
from mirage_sim.world.keyframes import Keyframes


@dataclass(frozen=True)
class WorldState:
    """The complete state of a world between two steps. Immutable: keeping it is a snapshot, sharing it a fork.

    Attributes:
        map: of the spatial memory.
        preceding: the latest latents, ``[C, P, h, w]``.
        camera: of the last frame, batch shape ``()``.
        seed: of the episode; determines the noise together with ``step``.
        step: number of steps since the start.
        history: past frames, for a model with overlapping chunks; None for others.
        keyframes: observed images, for a model that reprojects them; None for others.
    """

    map: Any
    preceding: Tensor
    camera: Camera
    seed: int
    step: int
    history: History | None = None
    keyframes: Keyframes | None = None


@dataclass(frozen=True)
class Chunk:
    """The result of one step of one world: the frames that are kept of the denoiser's chunk.

    Attributes:
        frames: ``[3, F, H, W]`` in [-1, 1].
        depth: estimated z-depth ``[T, H, W]`` of the last pixel frame of each latent frame, metres, 0 where unknown.
        view: memory view before the step at the cameras of the ``T`` latent frames.
        known: depth of the view on the latent grid ``[T, h, w]``, metres, 0 in holes.
        latents: ``[C, T, h, w]``.
        seconds: host time per phase (read, denoise, decode, depth, reproject, write) for all worlds of the batch
            together; reproject only if the model reprojects.
    """

    frames: Tensor
    depth: Tensor
    view: MemoryView
    known: Tensor
    latents: Tensor
    seconds: dict[str, float]

    def images(self) -> np.ndarray:
        """Return all frames, uint8 ``[F, H, W, 3]``."""
        return np.stack([to_uint8(frame) for frame in self.frames.unbind(1)])

    def remembered(self, size: tuple[int, int]) -> np.ndarray:
        """Return which pixels of the last frame, of this ``(height, width)``, come from memory: bool ``[H, W]``."""
        visible = (self.known[-1] > 0).cpu().numpy()
        rows, columns = (side // cells for side, cells in zip(size, visible.shape, strict=True))
        return np.asarray(visible.repeat(rows, axis=0).repeat(columns, axis=1))


class Stopwatch:
    """Splits host time into named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """End a phase, which began when the one before ended."""
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now
