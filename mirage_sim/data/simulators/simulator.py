"""The interface of reference simulators, the registry of simulators, and the ranges of seeds."""

import importlib
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mirage_sim.geometry import Camera, VelocityLimits

TRAINING_SEEDS = range(0, 790_000)
SHIPPED_SEEDS = range(790_000, 800_000)  # start images and demonstration walks
EVALUATION_SEEDS = range(800_000, 900_000)  # protocols; seeds from 900,000 on are reserved

ABOVE_CAMERA = 0.1  # metres from the camera to the top of the body that carries it

# module and class of every simulator; a module is imported when its simulator is first used
SIMULATORS = {
    "miniworld": ("mirage_sim.data.simulators.miniworld", "MiniWorldSimulator"),
    "homes": ("mirage_sim.data.simulators.homes", "HomesSimulator"),
}


@dataclass(frozen=True)
class CameraMount:
    """Pose and field of view of a camera on the body that carries it.

    Attributes:
        height: above the floor, metres.
        fov_deg: vertical field of view, degrees.
        pitch_deg: degrees, positive downwards.
    """

    height: float = 1.5
    fov_deg: float = 60.0
    pitch_deg: float = 0.0

    def camera_to_world(self, position: np.ndarray, heading: float) -> np.ndarray:
        """Compute the pose of the camera on a body.

        Args:
            position: ``[x, y, z]`` of the body on the floor, in the simulator's world frame, metres.
            heading: of the body, radians about y; 0 faces +x, positive is left.

        Returns:
            ``c2w`` float64 ``[4, 4]`` in OpenCV axes.
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
    """A simulator with exact images, depth and collisions, driven by the same commands as the learned world.

    A body stands on the floor, faces a heading and carries a camera. The world frame is metric with y up; the floor is
    the x-z plane. The arguments of the constructor are those of :func:`make_simulator`.

    Attributes:
        training_environments: environments that ``mirage record`` records.
        size: image ``(height, width)`` in pixels.
        drive: scale of commands in metres and radians.
        mount: pose of the camera on the body; a change takes effect at the next reset.
        turn_distance: metres to an obstacle at which recorded walks turn away.
    """

    training_environments: tuple[str, ...]
    size: tuple[int, int]
    drive: VelocityLimits
    mount: CameraMount
    turn_distance: float

    def __init__(
        self,
        environment: str,
        size: tuple[int, int] = (96, 128),
        *,
        mount: CameraMount | None = None,
        drive: VelocityLimits | None = None,
    ): ...

    def reset(self, seed: int) -> None:
        """Build the scene of this seed and put the body at its start. The same seed gives the same scene."""

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the image uint8 ``[H, W, 3]`` and its z-depth float32 ``[H, W]`` in metres, 90 or more for the sky."""

    def static_mask(self) -> np.ndarray:
        """Return where the current image shows nothing that moves: bool ``[H, W]``."""

    def camera(self) -> Camera:
        """Return the true camera, batch shape ``[]``."""

    def step(self, command: np.ndarray) -> bool:
        """Hold ``(forward, turn)`` in [-1, 1]^2 for one step.

        The body moves along an exact arc, see :func:`arc`. A blocked step turns without moving.

        Returns:
            True if the step was blocked.
        """

    @property
    def radius(self) -> float:
        """Radius of the body, metres."""

    def put(self, place: np.ndarray, heading: float) -> None:
        """Put the body somewhere, whatever is there.

        Args:
            place: ``[x, z]`` in the world frame, metres.
            heading: radians, as :meth:`CameraMount.camera_to_world` takes it.
        """

    def free_steps(self, place: np.ndarray, direction: np.ndarray, steps: int) -> int | None:
        """Count the full-speed steps straight ahead that succeed from ``place``, without moving the body.

        Args:
            place: ``[x, z]`` in the world frame, metres.
            direction: ``[x, z]`` of the steps.
            steps: largest number to try.

        Returns:
            0 to ``steps``, or None if the body cannot stand at ``place``.
        """

    def move_to(self, place: np.ndarray, heading: float) -> None:
        """Put the body at ``place``, ``[x, z]`` in metres, facing ``heading`` in radians; obstacles do not matter."""

    def obstacle_distance(self, places: np.ndarray) -> np.ndarray:
        """Return the metres in the ground plane from each place ``[..., 2]`` to the nearest obstacle, ``[...]``."""

    def rendered_by(self) -> dict[str, str]:
        """Return the versions that determine the pixels: of packages, of the GL driver and of its renderer."""

    def close(self) -> None:
        """Free the graphics context."""


def arc(command: np.ndarray, drive: VelocityLimits) -> tuple[float, float]:
    """Return chord and turn of one step: half of the turn, the chord and the other half make the exact arc.

    Args:
        command: forward speed and turn rate in [-1, 1]^2.
        drive: scale of the command.

    Returns:
        Chord in metres and turn in radians.
    """
    forward = float(command[0]) * drive.max_speed * drive.dt
    turn = float(command[1]) * drive.max_turn_rate * drive.dt
    return forward * float(np.sinc(turn / 2 / math.pi)), turn


def simulator_class(simulator: str) -> type[ReferenceSimulator]:
    """Return the class of a simulator by its name in ``SIMULATORS``.

    Raises:
        ValueError: for an unknown name.
    """
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator: expected one of {sorted(SIMULATORS)}, got {simulator!r}")
    module, name = SIMULATORS[simulator]
    found: type[ReferenceSimulator] = getattr(importlib.import_module(module), name)
    return found


def make_simulator(
    simulator: str,
    environment: str,
    size: tuple[int, int] = (96, 128),
    mount: CameraMount | None = None,
    drive: VelocityLimits | None = None,
) -> ReferenceSimulator:
    """Make a reference simulator by name.

    Args:
        simulator: name in ``SIMULATORS``, ``"miniworld"`` or ``"homes"``.
        environment: kind of scene: for MiniWorld one of its environments, such as ``"OneRoom"``; for homes see
            :class:`mirage_sim.data.simulators.homes.HomesSimulator`.
        size: image ``(height, width)`` in pixels.
        mount: pose of the camera on the body; by default level and 1.5 m high, with a field of view of 60 degrees.
        drive: scale of commands in metres and radians.

    Raises:
        ValueError: for an unknown simulator or environment.
        ImportError: if libraries of the simulator or EGL are missing; the message says what to install.
    """
    return simulator_class(simulator)(environment, size, mount=mount, drive=drive)
