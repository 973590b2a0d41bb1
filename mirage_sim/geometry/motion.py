"""The unicycle model that turns velocity commands into camera motion."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.geometry.se3 import se3_exp


@dataclass(frozen=True)
class VelocityLimits:
    """Speed limits of a planar base with a level, forward-looking camera (unicycle model).

    Attributes:
        dt: simulated seconds per step.
        max_speed: metres per second at forward command 1.
        max_turn_rate: radians per second at turn command 1; positive turns left, as in REP-103.
    """

    dt: float = 0.1
    max_speed: float = 1.5
    max_turn_rate: float = math.pi / 3

    def motion(self, command: Tensor) -> Tensor:
        """Return the camera's motion in one step, such that ``c2w_next = c2w @ motion``.

        Args:
            command: ``[..., 2]``: forward speed and turn rate in [-1, 1], as fractions of the limits.

        Returns:
            ``[..., 4, 4]``: a constant twist (an arc) over ``dt``, in OpenCV camera axes: forward is +z, a left turn
            rotates about -y.
        """
        twist = torch.zeros(*command.shape[:-1], 6, dtype=torch.float32, device=command.device)
        twist[..., 2] = command[..., 0] * self.max_speed * self.dt
        twist[..., 4] = -command[..., 1] * self.max_turn_rate * self.dt
        return se3_exp(twist)
