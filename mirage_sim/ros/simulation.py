"""The world that the node shows: ``MirageWorld-v0``, velocity commands in metres and radians, and a simulated clock.

Nothing in here knows ROS. Everything that the node publishes about a moment is in one :class:`Frame`.
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
from mirage_sim.ros.conversions import teleported, velocity
from mirage_sim.ros.point_colours import PointColours
from mirage_sim.ros.settings import Settings
from mirage_sim.world import WorldModel


@dataclass(frozen=True)
class Frame:
    """What is to be seen and known at one moment of simulated time.

    Attributes:
        seconds: simulated, since the clock began.
        image: uint8 RGB ``[H, W, 3]``, of the world's own size.
        depth: estimated z-depth, float32 ``[H, W]``, metres; 0 where unknown.
        remembered: bool ``[H, W]``; False where the picture was invented.
        camera: where it was seen from, batch shape ``()``, relative to the start.
        origin: where odometry began, camera-to-world ``[4, 4]``: the start, until a teleport moves it along (REP-105).
        before: the camera of the frame before; None after a jump.
        period: simulated seconds between the two.
        scan: ranges in metres, float32 ``[rays]``, as the environment gives them; None where none was asked for.
        collision: whether something was in the way.
        map: what is remembered; a value.
        step_seconds: of wall clock that making it took.
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
        """Of ``base_link``, ``[6]``, m/s and rad/s: how it moved to get here; 0 after a jump."""
        return np.zeros(6) if self.before is None else velocity(self.before.c2w, self.camera.c2w, self.period)


@dataclass(frozen=True)
class Moment:
    """What a snapshot keeps. Not the clock, which only ever goes forward."""

    episode: EnvSnapshot
    origin: np.ndarray
    colours: PointColours


class Simulation:
    """``MirageWorld-v0`` with twists, observed whole, on a clock. To be used by one thread at a time.

    The clock advances by ``1 / frame_rate`` with every frame, also with those after a reset, teleport or restore: no
    two frames have the same time, and time goes back only when that is asked for.

    A step of the environment moves the camera by at most ``VelocityLimits.max_speed * VelocityLimits.dt`` and turns
    it by at most
    ``VelocityLimits.max_turn_rate * VelocityLimits.dt``; commands are divided by that. Faster ones are clipped to
    ``max_speed`` (1.5 m/s)
    and ``max_turn_rate`` (pi/3 rad/s); at frame rates below the world's own (10 for mini, 4 for wan5b) to what one step
    can do, that share of it.

    Args:
        settings: see :class:`~mirage_sim.ros.settings.Settings`; :attr:`settings` may be replaced between two calls.

    Raises:
        FileNotFoundError: if the start picture does not exist.
        ValueError: if a setting is unusable.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        rays = settings.scan_rays or None
        self._env = gymnasium.make(
            "MirageWorld-v0",
            disable_env_checker=True,
            world=_world_model(settings.world, settings.device),
            action_mode="twist",
            observation="dict",
            task="none",
            collisions=settings.collisions,
            scan=rays,
        )
        self._unwrapped: MirageWorldEnv = self._env.unwrapped  # type: ignore[assignment]
        self.drive = VelocityLimits(dt=self._unwrapped.world.model.dt)
        self._collisions = Collisions(settings.collisions, None, rays)  # type: ignore[arg-type]
        self._command = (0.0, 0.0)
        self._command_age = 0  # steps made with it
        self._origin = np.eye(4)
        self._colours = PointColours()
        self._moment: Moment | None = None
        self._nanoseconds = 0
        self.steps = 0  # since this was made
        self.frame = self.reset(rewind=True)

    @property
    def seconds_per_step(self) -> float:
        """Simulated."""
        return 1.0 / self.settings.frame_rate

    def command(self, forward: float, turn: float) -> None:
        """Set the velocity of the steps to come, until it times out.

        Args:
            forward: metres per second.
            turn: radians per second, positive to the left.

        Raises:
            ValueError: if one is not finite; the former command then stays.
        """
        if not (math.isfinite(forward) and math.isfinite(turn)):
            raise ValueError(f"forward, turn: expected finite velocities, got {forward} and {turn}")
        self._command, self._command_age = (float(forward), float(turn)), 0

    def action(self) -> np.ndarray:
        """The present command as an action of the environment, float32 ``[2]`` in [-1, 1]."""
        timeout = self.settings.cmd_vel_timeout
        if timeout and self._command_age >= math.ceil(timeout * self.settings.frame_rate - 1e-9):
            return np.zeros(2, np.float32)
        limits = np.array([self.drive.max_speed, self.drive.max_turn_rate])
        fraction = np.clip(np.array(self._command) / limits, -1.0, 1.0)
        return np.clip(fraction / (self.settings.frame_rate * self.drive.dt), -1.0, 1.0).astype(np.float32)

    def step(self) -> Frame:
        """Advance by one frame, with the present command."""
        before, began = self._unwrapped.world.camera, time.perf_counter()
        observation, _, _, _, info = self._env.step(self.action())
        self._command_age += 1
        self.steps += 1
        return self._show(observation, info, before, began)

    def reset(self, rewind: bool = False) -> Frame:
        """Start anew, with the seed and the start picture of the settings; the robot stands.

        Args:
            rewind: set the clock to 0, too.

        Raises:
            FileNotFoundError: if the start picture does not exist; nothing has changed then.
            ValueError: if it is no usable picture; nothing has changed then.
        """
        image, began = self.settings.start_image, time.perf_counter()
        observation, info = self._env.reset(seed=self.settings.seed, options={"image": image} if image else None)
        self._origin, self._colours = np.eye(4), PointColours()
        return self._jumped(observation, info, began, rewind)

    def rewind_clock(self) -> Frame:
        """Set the clock to 0 and leave the world as it is."""
        began = time.perf_counter()
        observation, info = self._unwrapped.restore(self._unwrapped.snapshot())
        return self._jumped(observation, info, began, rewind=True)

    def teleport(self, c2w: np.ndarray) -> Frame:
        """Look from another place at once; nothing in between is seen or bumped into. The robot stands.

        Odometry does not notice: its origin jumps with the robot.

        Args:
            c2w: camera-to-world motion ``[4, 4]``, relative to the start, OpenCV axes, metres.

        Raises:
            ValueError: if it is no rigid motion; nothing has changed then.
        """
        began, ahead = time.perf_counter(), self._unwrapped.world.fork(1)[0]
        camera = ahead.camera
        ahead.step(Camera(torch.as_tensor(c2w, dtype=torch.float32), camera.K, camera.size))
        now = self._unwrapped.snapshot()
        there = replace(now, world=ahead.snapshot(), contact=self._collisions.query(ahead))
        observation, info = self._unwrapped.restore(there)
        self._origin = teleported(self._origin, camera.c2w, observation["pose"])
        return self._jumped(observation, info, began)

    def snapshot(self) -> None:
        """Keep this moment, in place of the one kept before."""
        self._moment = Moment(self._unwrapped.snapshot(), self._origin, self._colours.copy())

    def restore(self) -> Frame:
        """Go back to the moment kept, as often as wanted. The robot stands; the clock goes on.

        Raises:
            ValueError: if none was kept.
        """
        if self._moment is None:
            raise ValueError("snapshot: expected one to restore, got none; take one first")
        began = time.perf_counter()
        observation, info = self._unwrapped.restore(self._moment.episode)
        self._origin, self._colours = self._moment.origin, self._moment.colours.copy()
        return self._jumped(observation, info, began)

    def cloud(self) -> tuple[np.ndarray, np.ndarray]:
        """All points remembered: float32 ``[N, 3]``, metres from the start, OpenCV axes, and their uint8 RGB."""
        map = self.frame.map
        return map.xyz().cpu().numpy(), self._colours.of(map)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _jumped(self, observation: Any, info: dict[str, Any], began: float, rewind: bool = False) -> Frame:
        self._command, self._command_age = (0.0, 0.0), 0
        return self._show(observation, info, None, began, rewind)

    def _show(
        self, observation: Any, info: dict[str, Any], before: Camera | None, began: float, rewind: bool = False
    ) -> Frame:
        took = time.perf_counter() - began
        period = self.seconds_per_step
        self._nanoseconds = 0 if rewind else self._nanoseconds + round(1e9 * period)
        world = self._unwrapped.world
        stride = world.model.frames // world.model.horizon.keep  # pixel frames of a latent frame
        written = info["frames"][stride - 1 :: stride] if world.state.step else info["frames"][:1]
        self._colours.note(world.state.map, written)
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
            took,
        )
        return self.frame


def _world_model(world: str, device: str) -> str | WorldModel:
    """What ``gymnasium.make`` gets as ``world``: the name, or the model itself where it is not to run on the CPU."""
    place = usable_device(device)
    if place.type == "cpu":
        return world
    model = build_world_model(world)
    for part in (model.codec, model.denoiser, model.depth, model.static_filter):
        if isinstance(part, torch.nn.Module):
            part.to(place)
    return replace(model, device=place)
