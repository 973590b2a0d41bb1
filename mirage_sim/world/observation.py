"""What a world shows to its users, on the host."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mirage_sim.geometry import Camera


@dataclass(frozen=True)
class Observation:
    """One frame and what is known about it.

    Attributes:
        frame: uint8 RGB ``[H, W, 3]``.
        depth: estimated z-depth, float32 ``[H, W]``, metres; 0 where unknown.
        remembered: bool ``[H, W]``; False where the memory held nothing and the picture was invented.
        camera: where it was seen from, batch shape ``()``, on the CPU.
        info: ``remembered`` (fraction of the frame), ``points`` and ``nbytes`` of the memory after the step,
            ``seconds`` per phase (read, denoise, decode, depth, write; host time).
    """

    frame: np.ndarray
    depth: np.ndarray
    remembered: np.ndarray
    camera: Camera
    info: dict[str, Any]
