"""What becomes of a body's motion, and what obstacles around it must answer."""

from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mirage_sim.geometry import Camera

Response = Literal["report", "block", "slide"]


class MotionResult(NamedTuple):
    """The result of one motion.

    Attributes:
        camera: of the body after the motion.
        collision: whether an obstacle, or unobserved space if the body treats it as blocked, was in the way.
        clearance: metres between the body and the nearest obstacle before the motion; 0 if they touch, infinite if the
            memory has no obstacle within range.
        contact: metres of the straight path before the body touches an obstacle; infinite if the path is free.
    """

    camera: Camera
    collision: bool
    clearance: float
    contact: float


class Obstacles(Protocol):
    """Obstacles around a body; :class:`LocalObstacles` describes the members."""

    @property
    def clearance(self) -> float:
        """Metres between the body and the nearest obstacle."""

    def travel(self, camera: Camera, response: Response = "report") -> MotionResult:
        """Move the body to a camera."""

    def scan(self, rays: int) -> NDArray[np.float32]:
        """Return the ranges of a planar lidar."""
