"""The ground-truth twin: MiniWorld environments driven by the same commands as the learned world.

Needs the ``twin`` extra and EGL (Debian: ``libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri``). Importing this module needs
neither; making a :class:`Twin` does.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.data.clips import Clip, save_clip
from mirage_sim.data.walks import Walker
from mirage_sim.geometry import Camera, Drive

CAMERA_HEIGHT = 1.5  # metres
FOV_DEG = 60.0  # vertical

TRAINING_ENVIRONMENTS = (
    "OneRoom",
    "FourRooms",
    "Hallway",
    "TMaze",
    "Maze",
    "MazeS3",
    "RoomObjects",
    "PickupObjects",
    "CollectHealth",
    "PutNext",
)
HELD_OUT_ENVIRONMENTS = ("YMaze", "WallGap")  # evaluated, never trained on
TRAINING_SEEDS = range(0, 790_000)
SHIPPED_SEEDS = range(790_000, 800_000)  # start frames and demonstration walks
EVALUATION_SEEDS = range(800_000, 900_000)


class Twin:
    """One MiniWorld environment with a pinned camera: height 1.5 m, vertical field of view 60 degrees, no pitch.

    Domain randomisation is on, for variety; what it would change about the camera is set back after every reset.

    Args:
        name: environment, such as ``"OneRoom"``.
        size: picture ``(height, width)``.
        drive: what commands mean.
    """

    def __init__(self, name: str, size: tuple[int, int] = (96, 128), drive: Drive | None = None):
        try:
            import pyglet

            pyglet.options["headless"] = True
            import gymnasium
            import miniworld  # noqa: F401  (registers the environments)
        except ImportError as error:
            raise ImportError(
                f"the ground-truth twin needs MiniWorld and EGL: pip install mirage_sim[twin] ({error})"
            ) from error
        self.drive = drive or Drive()
        self.size = size
        height, width = size
        self._env: Any = gymnasium.make(
            f"MiniWorld-{name}-v0",
            obs_width=width,
            obs_height=height,
            domain_rand=True,
            max_episode_steps=10**9,
            disable_env_checker=True,
        ).unwrapped

    def reset(self, seed: int) -> None:
        """Build the scene of this seed."""
        self._env.reset(seed=seed)
        agent = self._env.agent
        agent.cam_height, agent.cam_pitch, agent.cam_fov_y, agent.cam_fwd_disp = CAMERA_HEIGHT, 0.0, FOV_DEG, 0.0

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Frame uint8 ``[H, W, 3]`` and z-depth float32 ``[H, W]`` in metres (about 100 where the sky is)."""
        frame = np.ascontiguousarray(self._env.render_obs())
        return frame, np.ascontiguousarray(self._env.render_depth()[..., 0], dtype=np.float32)

    def camera(self) -> Camera:
        """The true camera; the world frame is MiniWorld's (y up, metres)."""
        agent = self._env.agent
        cos, sin = math.cos(agent.dir), math.sin(agent.dir)
        c2w = np.eye(4)
        c2w[:3, 0] = sin, 0.0, cos  # right = forward x up
        c2w[:3, 1] = 0.0, -1.0, 0.0
        c2w[:3, 2] = cos, 0.0, -sin
        c2w[:3, 3] = agent.pos + np.array([0.0, CAMERA_HEIGHT, 0.0])
        return Camera.from_fov(torch.from_numpy(c2w).float(), FOV_DEG, self.size)

    def step(self, command: np.ndarray) -> bool:
        """Hold ``(forward, turn)`` in [-1, 1]^2 for one step; True when the way was blocked.

        The arc is exact: half of the turn, the chord, the other half. A blocked step still turns, as a robot would.
        """
        forward = float(command[0]) * self.drive.max_speed * self.drive.dt
        turn = float(command[1]) * self.drive.max_turn_rate * self.drive.dt
        chord = forward * float(np.sinc(turn / 2 / math.pi))
        self._env.turn_agent(math.degrees(turn / 2))
        moved = self._env.move_agent(chord, 0.0) if chord else True
        self._env.turn_agent(math.degrees(turn / 2))
        return not moved

    @property
    def radius(self) -> float:
        """Radius of the agent in metres: 0.4, but 1.5 in RoomObjects."""
        return float(self._env.agent.radius)

    def free_steps(self, place: np.ndarray, direction: np.ndarray, steps: int) -> int | None:
        """How many full-speed steps straight on succeed from some place; the agent is put back afterwards.

        Args:
            place: ``[x, z]`` in MiniWorld's world frame, metres.
            direction: ``[x, z]``, to drive to.
            steps: at most so many are tried.

        Returns:
            At most ``steps``; None where the agent cannot stand.
        """
        agent = self._env.agent
        pos, heading = agent.pos.copy(), agent.dir
        agent.pos = np.array([place[0], pos[1], place[1]])
        agent.dir = math.atan2(-direction[1], direction[0])
        free: int | None = None
        if self._env.move_agent(0.0, 0.0):
            free = 0
            while free < steps and self._env.move_agent(self.drive.max_speed * self.drive.dt, 0.0):
                free += 1
        agent.pos, agent.dir = pos, heading
        return free

    def close(self) -> None:
        """Free the GL context."""
        self._env.close()


@dataclass(frozen=True)
class WalkSpec:
    """What makes a walk again: environment, scene seed, number of frames, kind of walk (None: drawn by the seed)."""

    environment: str
    seed: int
    frames: int
    kind: str | None = None


def record_walk(twin: Twin, spec: WalkSpec) -> Clip:
    """Walk through the scene and keep everything; the same spec gives the same clip."""
    twin.reset(spec.seed)
    walker = Walker(np.random.default_rng(spec.seed), spec.frames - 1, spec.kind)
    frames, depths, poses, commands, blocked = [], [], [], [], []
    bumped = False
    for step in range(spec.frames):
        frame, depth = twin.render()
        frames.append(frame)
        depths.append(depth)
        poses.append(twin.camera().c2w)
        if step + 1 < spec.frames:
            command = walker.command(bumped, depth)
            bumped = twin.step(command)
            commands.append(command)
            blocked.append(bumped)
    return Clip(
        frames=torch.from_numpy(np.stack(frames)),
        depth=torch.from_numpy(np.stack(depths)),
        c2w=torch.stack(poses),
        K=twin.camera().K,
        commands=torch.from_numpy(np.array(commands, dtype=np.float32)),
        blocked=torch.tensor(blocked),
        source={"environment": spec.environment, "seed": str(spec.seed), "kind": walker.kind},
    )


def record(output: Path, walks: int, frames: int = 40, first_seed: int = 0) -> int:
    """Record training walks, spread over the training environments, skipping those that are there already.

    Args:
        output: folder for ``ENVIRONMENT-SEED.safetensors``.
        walks: how many in all.
        frames: frames per walk.
        first_seed: of the first walk; seeds count up. Must stay within ``TRAINING_SEEDS``.

    Returns:
        How many were recorded now.
    """
    if first_seed not in TRAINING_SEEDS or first_seed + walks - 1 not in TRAINING_SEEDS:
        raise ValueError(
            f"seeds: expected within {TRAINING_SEEDS} (the rest is for evaluation), got {first_seed}+{walks}"
        )
    recorded = 0
    for i, name in enumerate(TRAINING_ENVIRONMENTS):
        seeds = range(first_seed + i, first_seed + walks, len(TRAINING_ENVIRONMENTS))
        missing = [seed for seed in seeds if not (output / f"{name}-{seed:06d}.safetensors").exists()]
        if not missing:
            continue
        twin = Twin(name)
        for seed in missing:
            clip = record_walk(twin, WalkSpec(name, seed, frames))
            save_clip(replace(clip, depth=clip.depth.half()), output / f"{name}-{seed:06d}.safetensors")
            recorded += 1
        twin.close()
    return recorded


def record_shipped(output: Path, starts: int = 72, walks: int = 3, frames: int = 25) -> None:
    """Make what the package ships: start frames and short walks, from scenes that no training has seen.

    A start must show a place to go: at least half of it farther than 2.5 m, and some texture.

    Args:
        output: folder for ``starts.safetensors`` (``frames`` uint8 ``[N, H, W, 3]``) and ``walks/``.
        starts: number of start frames.
        walks: number of walks.
        frames: frames per walk.
    """
    environments = TRAINING_ENVIRONMENTS + HELD_OUT_ENVIRONMENTS
    chosen: list[Tensor] = []
    for i, name in enumerate(environments):
        twin = Twin(name)
        seeds = iter(range(SHIPPED_SEEDS.start + 500 * i, SHIPPED_SEEDS.start + 500 * (i + 1)))
        wanted = starts * (i + 1) // len(environments) - len(chosen)
        while wanted:
            twin.reset(next(seeds))
            frame, depth = twin.render()
            if np.median(depth) > 2.5 and np.abs(np.diff(frame.astype(np.int16), axis=1)).mean() > 2.0:
                chosen.append(torch.from_numpy(frame))
                wanted -= 1
        twin.close()
    output.mkdir(parents=True, exist_ok=True)
    partial = output / f"starts.partial{os.getpid()}"
    save_file({"frames": torch.stack(chosen)}, partial)
    partial.replace(output / "starts.safetensors")

    seeds = iter(SHIPPED_SEEDS[9_000:])
    for name in ("FourRooms", "Maze", "RoomObjects", "CollectHealth", "YMaze")[:walks]:
        twin = Twin(name)
        clip = next(c for seed in seeds if _is_scenic(c := record_walk(twin, WalkSpec(name, seed, frames, "wander"))))
        save_clip(replace(clip, depth=clip.depth.half()), output / "walks" / f"{name}.safetensors")
        twin.close()


def _is_scenic(clip: Clip) -> bool:
    """Whether a walk bumps into nothing, covers ground and keeps looking at things worth seeing."""
    travelled = (clip.c2w[-1, :3, 3] - clip.c2w[0, :3, 3]).norm()
    open_space = clip.depth.flatten(1).median(dim=1).values.min()
    return not bool(clip.blocked.any()) and bool(travelled > 1.5) and bool(open_space > 1.8)
