"""The world behind the node: ``MirageWorld-v0`` with velocity commands in metres and radians and a simulated clock.

This module does not use ROS. A :class:`Frame` holds everything that the node publishes about one time step.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import torch

from mirage_sim.build import build_world_model
from mirage_sim.envs.collisions import Collisions
from mirage_sim.envs.world_env import EnvSnapshot, MirageWorldEnv
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.memory import LatentMap
from mirage_sim.models.checkpoints import usable_device
from mirage_sim.ros.frames import teleported, velocity
from mirage_sim.ros.memory_views import PointColours
from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.world import Body, WorldModel
from mirage_sim.world.occupancy import OccupancyMap, occupancy_map


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

    @property
    def twist(self) -> np.ndarray:
        """Twist ``[6]`` of ``base_link`` since the previous frame, m/s and rad/s; 0 if there is none."""
        return np.zeros(6) if self.before is None else velocity(self.before.c2w, self.camera.c2w, self.period)


@dataclass(frozen=True)
class _Saved:
    """State kept by :meth:`Simulation.snapshot`. The clock is not part of it, because it never goes back."""

    episode: EnvSnapshot
    origin: np.ndarray
    colours: PointColours


class Simulation:
    """``MirageWorld-v0`` driven by velocity commands, with a clock. Not thread-safe.

    The clock advances by ``1 / frame_rate`` with every frame, including the frames of resets, teleports and restores.
    Frames never share a time, and the clock goes back only on request.

    Commands are clipped to ``VelocityLimits`` (1.5 m/s and pi/3 rad/s). A step of the environment moves the camera by
    at most ``max_speed * dt``. At frame rates below the world's own (10 for mini, 4 for wan5b) commands are therefore
    clipped to what one step can do, and the robot moves more slowly.

    Args:
        parameters: may be replaced between two calls, as :attr:`parameters`.

    Raises:
        FileNotFoundError: if the start image does not exist.
        ValueError: if a parameter is unusable.
    """

    def __init__(self, parameters: WorldParameters):
        self.parameters = parameters
        rays = parameters.scan_rays or None
        self._body = Body(camera_height=parameters.camera_height)
        used = None if parameters.collisions == "ignore" and rays is None else self._body
        self._env = gymnasium.make(
            "MirageWorld-v0",
            disable_env_checker=True,
            world=_world_model(parameters.world, parameters.device),
            action_mode="twist",
            observation="dict",
            task="none",
            collisions=parameters.collisions,
            body=used,
            scan=rays,
        )
        self._unwrapped: MirageWorldEnv = self._env.unwrapped  # type: ignore[assignment]
        self.limits = VelocityLimits(dt=self._unwrapped.world.model.dt)
        self._collisions = Collisions(parameters.collisions, used, rays)  # type: ignore[arg-type]
        self._command = (0.0, 0.0)
        self._command_age = 0  # steps made with it
        self._origin = np.eye(4)
        self._colours = PointColours()
        self._saved: _Saved | None = None
        self._nanoseconds = 0
        self.steps = 0
        self.frame = self.reset(rewind=True)

    def command(self, forward: float, turn: float) -> None:
        """Set the velocity of the following steps, until it times out.

        Args:
            forward: metres per second.
            turn: radians per second, positive to the left.

        Raises:
            ValueError: if one is not finite; the previous command stays.
        """
        if not (math.isfinite(forward) and math.isfinite(turn)):
            raise ValueError(f"forward, turn: expected finite velocities, got {forward} and {turn}")
        self._command, self._command_age = (float(forward), float(turn)), 0

    def action(self) -> np.ndarray:
        """Return the present command as an action of the environment, float32 ``[2]`` in [-1, 1]."""
        timeout, rate = self.parameters.cmd_vel_timeout, self.parameters.frame_rate
        if timeout and self._command_age >= math.ceil(timeout * rate - 1e-9):
            return np.zeros(2, np.float32)
        limits = np.array([self.limits.max_speed, self.limits.max_turn_rate])
        fraction = np.clip(np.array(self._command) / limits, -1.0, 1.0)
        return np.clip(fraction / (rate * self.limits.dt), -1.0, 1.0).astype(np.float32)

    def step(self) -> Frame:
        """Advance by one frame with the present command."""
        before, began = self._unwrapped.world.camera, time.perf_counter()
        observation, _, _, _, info = self._env.step(self.action())
        self._command_age += 1
        self.steps += 1
        return self._record(observation, info, before, began)

    def reset(self, rewind: bool = False) -> Frame:
        """Start a new episode with the seed and the start image of the parameters. The robot stops.

        Args:
            rewind: also set the clock to 0.

        Raises:
            FileNotFoundError: if the start image does not exist; nothing changes.
            ValueError: if it is not a usable image; nothing changes.
        """
        image, began = self.parameters.start_image, time.perf_counter()
        observation, info = self._env.reset(seed=self.parameters.seed, options={"image": image} if image else None)
        self._origin, self._colours = np.eye(4), PointColours()
        return self._jump(observation, info, began, rewind)

    def rewind_clock(self) -> Frame:
        """Set the clock to 0; the world stays as it is."""
        began = time.perf_counter()
        observation, info = self._unwrapped.restore(self._unwrapped.snapshot())
        return self._jump(observation, info, began, rewind=True)

    def teleport(self, c2w: np.ndarray) -> Frame:
        """Move the camera to another pose in one step, regardless of obstacles. The robot stops.

        Odometry does not change: its origin moves with the robot.

        Args:
            c2w: camera-to-world pose ``[4, 4]`` relative to the start, OpenCV axes, metres.

        Raises:
            ValueError: if it is not a rigid motion; nothing changes.
        """
        began, fork = time.perf_counter(), self._unwrapped.world.fork(1)[0]
        camera = fork.camera
        fork.step(Camera(torch.as_tensor(c2w, dtype=torch.float32), camera.K, camera.size))
        present = self._unwrapped.snapshot()
        moved = replace(present, world=fork.snapshot(), contact=self._collisions.query(fork))
        observation, info = self._unwrapped.restore(moved)
        self._origin = teleported(self._origin, camera.c2w, observation["pose"])
        return self._jump(observation, info, began)

    def snapshot(self) -> None:
        """Save the present state, replacing the one saved before."""
        self._saved = _Saved(self._unwrapped.snapshot(), self._origin, self._colours.copy())

    def restore(self) -> Frame:
        """Return to the saved state, which stays saved. The robot stops; the clock goes on.

        Raises:
            ValueError: if no state was saved.
        """
        if self._saved is None:
            raise ValueError("snapshot: expected one to restore, got none; take one first")
        began = time.perf_counter()
        observation, info = self._unwrapped.restore(self._saved.episode)
        self._origin, self._colours = self._saved.origin, self._saved.colours.copy()
        return self._jump(observation, info, began)

    def cloud(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all remembered points, float32 ``[N, 3]`` (metres, OpenCV axes), and their colours, uint8 RGB."""
        map = self.frame.map
        return map.xyz().cpu().numpy(), self._colours.of(map)

    def occupancy(self) -> OccupancyMap | None:
        """Return the memory in plan; None if it holds neither ground nor obstacles."""
        frame, parameters = self.frame, self.parameters
        try:
            return occupancy_map(
                frame.map,
                float(frame.camera.c2w[1, 3]),
                parameters.map_resolution,
                self._body,
                parameters.map_generated,
            )
        except ValueError:
            return None

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _jump(self, observation: Any, info: dict[str, Any], began: float, rewind: bool = False) -> Frame:
        self._command, self._command_age = (0.0, 0.0), 0
        return self._record(observation, info, None, began, rewind)

    def _record(
        self, observation: Any, info: dict[str, Any], before: Camera | None, began: float, rewind: bool = False
    ) -> Frame:
        step_seconds = time.perf_counter() - began
        period = 1.0 / self.parameters.frame_rate
        self._nanoseconds = 0 if rewind else self._nanoseconds + round(1e9 * period)
        world = self._unwrapped.world
        stride = world.model.frames // world.model.horizon.keep  # images per latent frame
        written = info["frames"][stride - 1 :: stride] if world.state.step else info["frames"][:1]
        self._colours.record(world.state.map, written)
        self.frame = Frame(
            self._nanoseconds / 1e9,
            observation["rgb"],
            observation["depth"],
            info["remembered_mask"],
            world.camera,
            self._origin,
            before,
            period,
            info.get("scan"),
            bool(info.get("collision", False)),
            world.state.map,
            step_seconds,
        )
        return self.frame


def _world_model(world: str, device: str) -> str | WorldModel:
    """Return the argument ``world`` of the environment: the name, or on other devices than the CPU the model."""
    target = usable_device(device)
    if target.type == "cpu":
        return world
    model = build_world_model(world)
    for part in (model.codec, model.denoiser, model.depth, model.static_filter):
        if isinstance(part, torch.nn.Module):
            part.to(target)
    return replace(model, device=target)
