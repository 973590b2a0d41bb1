"""The world behind the node: ``MirageWorld-v0`` with velocity commands in metres and radians and a simulated clock.

This module does not use ROS. A :class:`Frame` holds everything that the node publishes about one time step.
"""

import math
import time
from copy import copy
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
from mirage_sim.memory.blocks import GENERATED, Blocks
from mirage_sim.models.checkpoints import usable_device
from mirage_sim.ros.frames import teleported, velocity
from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.world import WorldModel
from mirage_sim.world.body import RANGE
from mirage_sim.world.export import point_colours


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
        scan: ranges in metres, float32 ``[rays]``, as in ``info["scan"]``; None without a scan. See :func:`ranges`.
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


def ranges(scan: np.ndarray, map: LatentMap, camera: Camera) -> np.ndarray:
    """Tell free space from unknown space in a scan of the environment, as REP-117 demands.

    The environment's ranges are infinite wherever no obstacle is remembered. A ray is known to be free only if the
    memory holds a point (sky, for example) beyond the range of the scan in its direction.

    Args:
        scan: ``info["scan"]``, float32 ``[rays]``.
        map: the memory.
        camera: the camera, batch shape ``()``.

    Returns:
        float32 ``[rays]``: finite ranges as in `scan`; infinite where free up to 20 m; NaN where unknown.
    """
    spacing = 2 * math.pi / len(scan)
    forward, left = (camera.c2w[[0, 2], 2], -camera.c2w[[0, 2], 0])
    plan = map.xyz().cpu()[:, [0, 2]] - camera.c2w[[0, 2], 3]
    distance = torch.hypot(plan[:, 0], plan[:, 1])
    far = distance > RANGE
    plan, distance, footprint = plan[far], distance[far], map.footprint().cpu().float()[far]
    angle = torch.atan2(plan @ left, plan @ forward)
    half = torch.atan2(footprint / 2, distance)
    first = ((angle - half + math.pi) / spacing).ceil().long()
    last = ((angle + half + math.pi) / spacing).floor().long()
    # +1 at the first ray that a point covers and -1 after the last one, over three turns
    changes = torch.zeros(3 * len(scan) + 1, dtype=torch.int64)
    changes.index_add_(0, first + len(scan), torch.ones_like(first))
    changes.index_add_(0, last + len(scan) + 1, -torch.ones_like(last))
    free = (changes[:-1].cumsum(0) > 0).reshape(3, -1).any(0).numpy()
    return np.where(np.isfinite(scan) | free, scan, np.float32(np.nan))


class PointColours:
    """Colours of remembered points, which hold latents but no colours.

    The id of a point identifies the write and the cell, and so the part of an image that the point was written from.
    Images are kept at one colour per cell until colours are requested; then only colours by point are kept.
    """

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int64)  # of the points whose colours are kept, ascending
        self._rgb = np.zeros((0, 3), np.uint8)  # their colours
        self._images: dict[int, np.ndarray] = {}  # uint8 [cells, 3] of newer writes, by the first id of the write
        self._blocks: Blocks | None = None
        self._next = (0, GENERATED)  # first unused ids of observed and of generated points

    @classmethod
    def of_world(cls, model: WorldModel, map: LatentMap) -> "PointColours":
        """Return the colours of a saved world's points, decoded from their latents."""
        colours, ids = cls(), map.ids().cpu().numpy()
        order = np.argsort(ids)
        colours._ids, colours._rgb = ids[order], point_colours(model, map)[order]
        colours._blocks, colours._next = map.blocks, (map.next_observed, map.next_id)
        return colours

    def copy(self) -> "PointColours":
        """Return an independent copy. Arrays are shared because they are never modified."""
        other = copy(self)
        other._images = dict(self._images)
        return other

    def record(self, map: LatentMap, images: np.ndarray) -> None:
        """Record the images of the newest points.

        Args:
            map: after the step. Recording the same map again has no effect.
            images: images that were written since the previous map, uint8 ``[T, H, W, 3]``.
        """
        after = (map.next_observed, map.next_id)
        if map.blocks is not self._blocks:
            for first, last in zip(self._next, after, strict=True):
                if last > first:
                    cells = (last - first) // len(images)
                    self._images[first] = np.concatenate([_cell_means(image, cells) for image in images])
        self._blocks, self._next = map.blocks, after

    def of(self, map: LatentMap) -> np.ndarray:
        """Return the colours of all points, uint8 RGB ``[N, 3]``, in the order of ``map.xyz()``.

        Args:
            map: the map that was recorded last, or a part of it.
        """
        ids = map.ids().cpu().numpy()
        colours = np.zeros((len(ids), 3), np.uint8)
        at = np.searchsorted(self._ids, ids).clip(max=max(len(self._ids) - 1, 0))
        known = self._ids[at] == ids if len(self._ids) else np.zeros(len(ids), bool)
        colours[known] = self._rgb[at[known]]
        if self._images:
            images = dict(sorted(self._images.items()))
            starts, lengths = np.array(list(images)), np.array([len(image) for image in images.values()])
            write = np.searchsorted(starts, ids[~known], side="right") - 1
            rows = (np.cumsum(lengths) - lengths - starts)[write] + ids[~known]
            colours[~known] = np.concatenate(list(images.values()))[rows]
        order = np.argsort(ids)
        self._ids, self._rgb, self._images = ids[order], colours[order], {}
        return colours


def _cell_means(image: np.ndarray, cells: int) -> np.ndarray:
    """Return the mean colours ``[cells, 3]`` of an image's square cells, row by row."""
    height, width = image.shape[:2]
    stride = round((height * width / cells) ** 0.5)
    squares = image[: height // stride * stride, : width // stride * stride]
    squares = squares.reshape(height // stride, stride, width // stride, stride, 3)
    return squares.mean((1, 3)).round().astype(np.uint8).reshape(-1, 3)


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
        FileNotFoundError: if the start image or the saved world does not exist.
        ValueError: if a parameter is unusable.
    """

    def __init__(self, parameters: WorldParameters):
        self.parameters = parameters
        rays = parameters.scan_rays or None
        self._env = gymnasium.make(
            "MirageWorld-v0",
            disable_env_checker=True,
            world=_world_model(parameters.world, parameters.device),
            action_mode="twist",
            observation="dict",
            task="none",
            collisions=parameters.collisions,
            scan=rays,
        )
        self._unwrapped: MirageWorldEnv = self._env.unwrapped  # type: ignore[assignment]
        self.limits = VelocityLimits(dt=self._unwrapped.world.model.dt)
        self._collisions = Collisions(parameters.collisions, None, rays)  # type: ignore[arg-type]
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
        """Start a new episode with the seed and the start image or saved world of the parameters. The robot stops.

        Args:
            rewind: also set the clock to 0.

        Raises:
            FileNotFoundError: if the start image or the saved world does not exist; nothing changes.
            ValueError: if it is not usable; nothing changes.
        """
        began, files = time.perf_counter(), {"image": self.parameters.start_image, "world": self.parameters.start}
        options = {name: path for name, path in files.items() if path}
        observation, info = self._env.reset(seed=self.parameters.seed, options=options)
        world, self._origin = self._unwrapped.world, np.eye(4)
        self._colours = PointColours.of_world(world.model, world.state.map) if self.parameters.start else PointColours()
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
