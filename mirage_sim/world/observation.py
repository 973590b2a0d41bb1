"""What a world shows to its users, on the host."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mirage_sim.geometry import Camera


@dataclass(frozen=True)
class Observation:
    """What a step shows, and what is known about its last frame.

    Attributes:
        frames: uint8 RGB ``[F, H, W, 3]``: all of the step; after a reset the start picture, as often.
        depth: estimated z-depth, float32 ``[H, W]``, metres; 0 where unknown.
        remembered: bool ``[H, W]``; False where the memory held nothing and the picture was invented.
        camera: where it was seen from, batch shape ``()``, on the CPU.
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
