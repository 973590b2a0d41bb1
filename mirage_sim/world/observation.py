"""What a world returns to its users, as NumPy arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mirage_sim.geometry import Camera


@dataclass(frozen=True)
class Observation:
    """The frames of a step, and depth and memory coverage of the last one.

    Attributes:
        frames: all frames of the step, uint8 RGB ``[F, H, W, 3]``; after a reset the start image ``F`` times.
        depth: estimated z-depth, float32 ``[H, W]``, metres; 0 where unknown.
        remembered: bool ``[H, W]``; False where the memory had no content and the model generated the pixel.
        camera: of the last frame, batch shape ``()``, on the CPU.
        info: ``remembered`` (fraction of the frame), ``points`` and ``nbytes`` of the memory after the step,
            ``seconds`` per phase (read, denoise, decode, depth, reproject, write; host time).
    """

    frames: np.ndarray
    depth: np.ndarray
    remembered: np.ndarray
    camera: Camera
    info: dict[str, Any]

    @property
    def frame(self) -> np.ndarray:
        """The last frame, uint8 RGB ``[H, W, 3]``."""
        return self.frames[-1]

    @property
    def new(self) -> np.ndarray:
        """Which pixels show a surface for the first time, bool ``[H, W]``: those that were generated."""
        return ~self.remembered
