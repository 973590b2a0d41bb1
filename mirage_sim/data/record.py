"""Recorded walks through reference simulators: training clips, and what the package ships as start images and walks."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.data.clips import Clip, save_clip
from mirage_sim.data.simulators import SHIPPED_SEEDS, TRAINING_SEEDS, ReferenceSimulator
from mirage_sim.data.simulators.miniworld import HELD_OUT_ENVIRONMENTS, TRAINING_ENVIRONMENTS, MiniWorldSimulator
from mirage_sim.data.walks import Walker


@dataclass(frozen=True)
class WalkSpec:
    """What makes a walk again: environment, scene seed, number of frames, kind of walk (None: drawn by the seed)."""

    environment: str
    seed: int
    frames: int
    kind: str | None = None


def record_walk(simulator: ReferenceSimulator, spec: WalkSpec) -> Clip:
    """Walk through the scene and keep everything; the same spec gives the same clip.

    Args:
        simulator: of ``spec.environment``.
        spec: the walk.
    """
    simulator.reset(spec.seed)
    walker = Walker(np.random.default_rng(spec.seed), spec.frames - 1, spec.kind)
    frames, depths, poses, commands, blocked = [], [], [], [], []
    bumped = False
    for step in range(spec.frames):
        frame, depth = simulator.render()
        frames.append(frame)
        depths.append(depth)
        poses.append(simulator.camera().c2w)
        if step + 1 < spec.frames:
            command = walker.command(bumped, depth)
            bumped = simulator.step(command)
            commands.append(command)
            blocked.append(bumped)
    return Clip(
        frames=torch.from_numpy(np.stack(frames)),
        depth=torch.from_numpy(np.stack(depths)),
        c2w=torch.stack(poses),
        K=simulator.camera().K,
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
        simulator = MiniWorldSimulator(name)
        for seed in missing:
            clip = record_walk(simulator, WalkSpec(name, seed, frames))
            save_clip(replace(clip, depth=clip.depth.half()), output / f"{name}-{seed:06d}.safetensors")
            recorded += 1
        simulator.close()
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
        simulator = MiniWorldSimulator(name)
        seeds = iter(range(SHIPPED_SEEDS.start + 500 * i, SHIPPED_SEEDS.start + 500 * (i + 1)))
        wanted = starts * (i + 1) // len(environments) - len(chosen)
        while wanted:
            simulator.reset(next(seeds))
            frame, depth = simulator.render()
            if np.median(depth) > 2.5 and np.abs(np.diff(frame.astype(np.int16), axis=1)).mean() > 2.0:
                chosen.append(torch.from_numpy(frame))
                wanted -= 1
        simulator.close()
    output.mkdir(parents=True, exist_ok=True)
    partial = output / f"starts.partial{os.getpid()}"
    save_file({"frames": torch.stack(chosen)}, partial)
    partial.replace(output / "starts.safetensors")

    seeds = iter(SHIPPED_SEEDS[9_000:])
    for name in ("FourRooms", "Maze", "RoomObjects", "CollectHealth", "YMaze")[:walks]:
        simulator = MiniWorldSimulator(name)
        clip = next(
            c for seed in seeds if _is_scenic(c := record_walk(simulator, WalkSpec(name, seed, frames, "wander")))
        )
        save_clip(replace(clip, depth=clip.depth.half()), output / "walks" / f"{name}.safetensors")
        simulator.close()


def _is_scenic(clip: Clip) -> bool:
    """Whether a walk bumps into nothing, covers ground and keeps looking at things worth seeing."""
    travelled = (clip.c2w[-1, :3, 3] - clip.c2w[0, :3, 3]).norm()
    open_space = clip.depth.flatten(1).median(dim=1).values.min()
    return not bool(clip.blocked.any()) and bool(travelled > 1.5) and bool(open_space > 1.8)
