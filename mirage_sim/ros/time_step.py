"""What the node publishes about one time step, without ROS."""

from dataclasses import dataclass

import numpy as np

from mirage_sim.geometry import Camera
from mirage_sim.memory import LatentMap
from mirage_sim.ros.frames import velocity


@dataclass(frozen=True)
class Frame:
    """One time step of the simulation.

    Attributes:
        seconds: simulation time.
        image: uint8 RGB ``[H, W, 3]`` in the world's own size.
        depth: estimated z-depth, float32 ``[H, W]``, metres; 0 where unknown.
        remembered: bool ``[H, W]``; False where the image was generated.
        camera: the camera, batch shape ``()``, relative to the start.
        origin: camera-to-world pose ``[4, 4]`` at which odometry is zero: the start, moved by teleports (REP-105).
        before: the camera of the previous frame; None after a reset, teleport or restore.
        period: seconds of simulation between two frames.
        scan: ranges in metres, float32 ``[rays]``, as in ``info["scan"]``; None without a scan.
        collision: whether an obstacle was in the way.
        map: the memory.
        step_seconds: wall-clock time of the step.
        observed: whether a robot's camera took the image.
    """

    seconds: float
    image: np.ndarray
    depth: np.ndarray
    remembered: np.ndarray
    camera: Camera
    origin: np.ndarray
    before: Camera | None
    period: float
    scan: np.ndarray | None
    collision: bool
    map: LatentMap
    step_seconds: float
    observed: bool = False

    @property
    def twist(self) -> np.ndarray:
        """Twist ``[6]`` of ``base_link`` since the previous frame, m/s and rad/s; 0 if there is none."""
        return np.zeros(6) if self.before is None else velocity(self.before.c2w, self.camera.c2w, self.period)


@dataclass(frozen=True)
class Imagined:
    """An image of a fork.

    Attributes:
        image: uint8 RGB ``[H, W, 3]``.
        camera: batch shape ``()``.
        collision: whether an obstacle was on the straight way from the previous pose.
    """

    image: np.ndarray
    camera: Camera
    collision: bool
