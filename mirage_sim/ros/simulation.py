"""The world behind the node: ``MirageWorld-v0`` with velocity commands in metres and radians and a simulated clock.

This module does not use ROS.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import torch

from mirage_sim.build import build_world_model
from mirage_sim.data.recordings import RecordedFrame
from mirage_sim.data.recordings.place import NEW, news
from mirage_sim.data.recordings.prepare import to_size
from mirage_sim.envs.collisions import Collisions
from mirage_sim.envs.episode_env import EnvSnapshot
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.models.checkpoints import usable_device
from mirage_sim.ros.frames import teleported
from mirage_sim.ros.memory_views import PointColours
from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.ros.time_step import Frame, Imagined
from mirage_sim.world import Body, World, WorldModel
from mirage_sim.world.occupancy import OccupancyMap, occupancy_map


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

    With the parameter ``observe``, images of a robot fill the memory (:meth:`observe`) until :meth:`start_here` makes
    a simulation of it.

    Args:
        parameters: may be replaced between two calls, as :attr:`parameters`.

    Raises:
        FileNotFoundError: if the start image or the saved world does not exist.
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
        self._seen: RecordedFrame | None = None  # the last image of the robot
        self._place: _Saved | None = None  # where episodes start instead of at a start image
        self.observing = False
        self.steps = 0
        self.frame = self.reset(rewind=True)
        if parameters.observe:
            self.observing = True
            self.frame = self.reset()

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
        """Advance by one frame with the present command.

        Raises:
            ValueError: while a robot is observed.
        """
        self._check_simulated("step")
        before, began = self._unwrapped.world.camera, time.perf_counter()
        observation, _, _, _, info = self._env.step(self.action())
        self._command_age += 1
        self.steps += 1
        return self._record(observation, info, before, began)

    def reset(self, rewind: bool = False) -> Frame:
        """Start a new episode with the seed and the start image or saved world of the parameters. The robot stops.

        After :meth:`start_here`, episodes start there. While a robot is observed, its memory is emptied instead.

        Args:
            rewind: also set the clock to 0.

        Raises:
            FileNotFoundError: if the start image or the saved world does not exist; nothing changes.
            ValueError: if it is not usable; nothing changes.
        """
        began, files = time.perf_counter(), {"image": self.parameters.start_image, "world": self.parameters.start}
        if self.observing:
            self._seen, empty = None, self._unwrapped.world.model.memory.empty()
            self._colours = PointColours()
            self.frame = replace(self.frame, map=empty, scan=None, observed=True)
            return self.frame
        if self._place:
            observation, info = self._unwrapped.restore(self._place.episode)
            self._unwrapped.world.restart(self.parameters.seed)
            self._origin, self._colours = self._place.origin, self._place.colours.copy()
            return self._jump(observation, info, began, rewind)
        options = {name: path for name, path in files.items() if path}
        observation, info = self._env.reset(seed=self.parameters.seed, options=options)
        world, self._origin = self._unwrapped.world, np.eye(4)
        self._colours = PointColours.of_world(world.model, world.state.map) if self.parameters.start else PointColours()
        return self._jump(observation, info, began, rewind)

    def rewind_clock(self) -> Frame:
        """Set the clock to 0; the world stays as it is.

        Raises:
            ValueError: while a robot is observed.
        """
        self._check_simulated("rewind_clock")
        began = time.perf_counter()
        observation, info = self._unwrapped.restore(self._unwrapped.snapshot())
        return self._jump(observation, info, began, rewind=True)

    def teleport(self, c2w: np.ndarray) -> Frame:
        """Move the camera to another pose in one step, regardless of obstacles. The robot stops.

        Odometry does not change: its origin moves with the robot.

        Args:
            c2w: camera-to-world pose ``[4, 4]`` relative to the start, OpenCV axes, metres.

        Raises:
            ValueError: if it is not a rigid motion, or while a robot is observed; nothing changes.
        """
        self._check_simulated("teleport")
        began, fork = time.perf_counter(), self._unwrapped.world.fork(1)[0]
        camera = fork.camera
        fork.step(Camera(torch.as_tensor(c2w, dtype=torch.float32), camera.K, camera.size))
        present = self._unwrapped.snapshot()
        moved = replace(present, world=fork.snapshot(), contact=self._collisions.query(fork))
        observation, info = self._unwrapped.restore(moved)
        self._origin = teleported(self._origin, camera.c2w, observation["pose"])
        return self._jump(observation, info, began)

    def snapshot(self) -> None:
        """Save the present state, replacing the one saved before.

        Raises:
            ValueError: while a robot is observed.
        """
        self._check_simulated("snapshot")
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

    def observe(self, seen: RecordedFrame) -> Frame:
        """Follow a robot to where it took an image, and add the image to the memory if that lacks what it shows.

        The first image starts the memory. The clock is that of the images.

        Args:
            seen: of any size.

        Raises:
            ValueError: if no robot is observed, or the image is unusable.
        """
        began, world = time.perf_counter(), self._unwrapped.world
        if not self.observing:
            raise ValueError("observe: expected the parameter observe and no start_here yet, got a simulation")
        seen = to_size(seen, world.model.size)
        if self._seen is None:
            start = {"image": seen.image, "c2w": seen.camera.c2w.numpy(), "K": seen.camera.K.numpy()}
            if seen.depth is not None:
                start["depth"] = seen.depth
            self._unwrapped.reset(seed=self.parameters.seed, options={"observations": [start]})
            self._colours = PointColours()
        elif news(world, seen) >= NEW:
            world.observe(seen.image, seen.camera, seen.depth, move=True)
        map, rays = world.state.map, self.parameters.scan_rays
        self._colours.record(map, seen.image[None])
        self._seen, self._nanoseconds = seen, round(1e9 * seen.stamp)
        depth = np.zeros(seen.image.shape[:2], np.float32) if seen.depth is None else seen.depth
        self.frame = Frame(
            seen.stamp,
            seen.image,
            depth,
            np.ones(depth.shape, bool),
            seen.camera,
            np.eye(4),
            None,
            1.0 / self.parameters.frame_rate,
            self._body.around(map, seen.camera).scan(rays) if rays else None,
            False,
            map,
            time.perf_counter() - began,
            observed=True,
        )
        return self.frame

    def start_here(self) -> Frame:
        """Make a simulation of the observed place, at the robot's last image. Later episodes start there as well.

        Raises:
            ValueError: if no robot is observed, or no image was yet.
        """
        if not self.observing or self._seen is None:
            raise ValueError("start_here: expected an observed image to start at, got none")
        began, world, seen = time.perf_counter(), self._unwrapped.world, self._seen
        if not torch.equal(world.camera.c2w, seen.camera.c2w):
            world.observe(seen.image, seen.camera, seen.depth, move=True)
        world.restart(self.parameters.seed)
        self._colours.record(world.state.map, seen.image[None])
        present = replace(self._unwrapped.snapshot(), contact=self._collisions.query(world))
        observation, info = self._unwrapped.restore(present)
        self.observing, self._origin = False, np.eye(4)
        self._place = _Saved(present, self._origin, self._colours.copy())
        return self._jump(observation, info, began)

    def fork(self) -> World:
        """Return an independent world at the present moment.

        Raises:
            ValueError: if a robot is observed and no image was yet.
        """
        if self.observing and self._seen is None:
            raise ValueError("imagine: expected an observed image before the path, got none")
        return self._unwrapped.world.fork(1)[0]

    def imagine(self, fork: World, c2w: np.ndarray) -> Imagined:
        """Move a fork to a pose, whatever is in the way.

        Args:
            fork: of :meth:`fork`.
            c2w: camera-to-world pose ``[4, 4]``, OpenCV axes, metres.
        """
        camera = Camera(torch.as_tensor(c2w, dtype=torch.float32), fork.camera.K, fork.camera.size)
        travel = self._body.around(fork.state.map, fork.camera).travel(camera)
        return Imagined(fork.step(camera).frame, camera, travel.collision)

    def _check_simulated(self, call: str) -> None:
        if self.observing:
            raise ValueError(f"{call}: expected a simulation, got a robot that is observed; call ~/start_here first")

    def cloud(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all remembered points, float32 ``[N, 3]`` (metres, OpenCV axes), and their colours, uint8 RGB."""
        map = self.frame.map
        return map.xyz().cpu().numpy(), self._colours.of(map)

    def occupancy(self) -> OccupancyMap | None:
        """Return the memory in plan; None if it holds neither ground nor obstacles."""
        frame, parameters = self.frame, self.parameters
        camera = float(frame.camera.c2w[1, 3])
        floor = camera + parameters.camera_height  # where base_link is
        resolution, generated = parameters.map_resolution, parameters.map_generated
        try:
            return occupancy_map(frame.map, camera, resolution, self._body, generated, floor)
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
