"""The contract that reference simulators fulfil, and the seeds that each use may draw from."""

import importlib
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mirage_sim.geometry import Camera, VelocityLimits

TRAINING_SEEDS = range(0, 790_000)
SHIPPED_SEEDS = range(790_000, 800_000)  # start images and demonstration walks
EVALUATION_SEEDS = range(800_000, 900_000)  # the protocols; seeds from 900,000 up are reserved and used nowhere

ABOVE_CAMERA = 0.1  # metres from the camera to the top of the body that carries it

# module and class of every simulator; each is imported only when it is made
SIMULATORS = {
    "miniworld": ("mirage_sim.data.simulators.miniworld", "MiniWorldSimulator"),
    "homes": ("mirage_sim.data.simulators.homes", "HomesSimulator"),
}


@dataclass(frozen=True)
class CameraMount:
    """How a camera is fixed to the body that carries it.

    Attributes:
        height: above the floor, metres.
        fov_deg: vertical field of view, degrees.
        pitch_deg: positive looks down, degrees.
    """

    height: float = 1.5
    fov_deg: float = 60.0
    pitch_deg: float = 0.0

    def camera_to_world(self, position: np.ndarray, heading: float) -> np.ndarray:
        """Pose of the camera on a body that stands at ``position`` and faces ``heading``.

        Args:
            position: ``[x, y, z]`` of the body's foot in the simulator's world frame, y up, metres.
            heading: radians about y; 0 faces +x, positive turns left.

        Returns:
            ``c2w`` float64 ``[4, 4]``, OpenCV axes: columns right, down, forward, and the camera's position.
        """
        cos, sin = math.cos(heading), math.sin(heading)
        right, ahead, up = np.array([sin, 0.0, cos]), np.array([cos, 0.0, -sin]), np.array([0.0, 1.0, 0.0])
        cos, sin = math.cos(math.radians(self.pitch_deg)), math.sin(math.radians(self.pitch_deg))
        c2w = np.eye(4)
        c2w[:3, 0] = right
        c2w[:3, 1] = -cos * up - sin * ahead
        c2w[:3, 2] = cos * ahead - sin * up
        c2w[:3, 3] = position + self.height * up
        return c2w


class ReferenceSimulator(Protocol):
    """A true world, driven by the same commands as the learned one.

    The world frame has y up and is metric; the floor is the x-z plane. A body stands on the floor, faces a heading and
    carries a camera.

    Attributes:
        size: image ``(height, width)`` in pixels.
        drive: what commands mean in metres and radians.
        mount: how the camera is fixed to the body; a change takes effect at the next reset.
        turn_distance: metres to an obstacle at which recorded walks turn away.
    """

    size: tuple[int, int]
    drive: VelocityLimits
    mount: CameraMount
    turn_distance: float

    def reset(self, seed: int) -> None:
        """Build the scene of this seed and put the body at its start. The same seed gives the same scene."""

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 ``[H, W, 3]`` and z-depth float32 ``[H, W]`` in metres (90 or more where the sky is)."""

    def static_mask(self) -> np.ndarray:
        """Bool ``[H, W]``: True where the image that :meth:`render` gives now shows nothing that moves."""

    def camera(self) -> Camera:
        """The true camera, batch shape ``[]``."""

    def step(self, command: np.ndarray) -> bool:
        """Hold ``(forward, turn)`` in [-1, 1]^2 for one step.

        The arc is exact: half of the turn, the chord, the other half. A blocked step turns, but does not move.

        Returns:
            True when the way was blocked.
        """

    @property
    def radius(self) -> float:
        """Radius of the body, metres."""

    def free_steps(self, place: np.ndarray, direction: np.ndarray, steps: int) -> int | None:
        """Count the full-speed steps straight ahead that succeed from ``place``, without moving the body.

        Args:
            place: ``[x, z]`` in the world frame, metres.
            direction: ``[x, z]``, where to drive to.
            steps: try at most this many.

        Returns:
            0 to ``steps``, or None where the body cannot stand.
        """

    def rendered_by(self) -> dict[str, str]:
        """Name the versions that decide the pixels: of the simulator's packages, of the GL driver and its renderer."""

    def close(self) -> None:
        """Free the graphics context."""


def arc(command: np.ndarray, drive: VelocityLimits) -> tuple[float, float]:
    """Chord in metres and turn in radians of one step; half of the turn, the chord, the other half make the exact arc.

    Args:
        command: forward speed and turn rate in [-1, 1]^2.
        drive: what they mean.
    """
    forward = float(command[0]) * drive.max_speed * drive.dt
    turn = float(command[1]) * drive.max_turn_rate * drive.dt
    return forward * float(np.sinc(turn / 2 / math.pi)), turn


def make_simulator(
    simulator: str,
    environment: str,
    size: tuple[int, int] = (96, 128),
    mount: CameraMount | None = None,
    drive: VelocityLimits | None = None,
) -> ReferenceSimulator:
    """Make a reference simulator by name.

    Args:
        simulator: ``"miniworld"`` or ``"homes"``.
        environment: kind of scene: for MiniWorld one of its environments, such as ``"OneRoom"``; for homes see
            :class:`mirage_sim.data.simulators.homes.HomesSimulator`.
        size: image ``(height, width)`` in pixels.
        mount: how the camera is fixed to the body; by default 1.5 m high, 60 degrees, level.
        drive: what commands mean.

    Raises:
        ValueError: for an unknown simulator or environment.
        ImportError: naming what to install, where its libraries or EGL are missing.
    """
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator: expected one of {sorted(SIMULATORS)}, got {simulator!r}")
    module, name = SIMULATORS[simulator]
    made: ReferenceSimulator = getattr(importlib.import_module(module), name)(
        environment, size, mount=mount, drive=drive
    )
    return made
