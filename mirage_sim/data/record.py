"""Recording of walks through reference simulators: training clips, and the start images and walks of the package."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from mirage_sim.data.clips import Clip, save_clip
from mirage_sim.data.simulators import (
    SHIPPED_SEEDS,
    TRAINING_SEEDS,
    CameraMount,
    ReferenceSimulator,
    make_simulator,
    simulator_class,
)
from mirage_sim.data.simulators.miniworld import HELD_OUT_ENVIRONMENTS, TRAINING_ENVIRONMENTS, MiniWorldSimulator
from mirage_sim.data.trajectories import Walker
from mirage_sim.io import atomic_write

_BATCH = 50  # walks per task of a worker
_MOUNT = 7  # stream of random numbers for cameras


@dataclass(frozen=True)
class WalkSpec:
    """The settings that determine a walk.

    Attributes:
        environment: of the simulator.
        seed: of the scene and of the walk.
        frames: number of frames.
        kind: one of ``Walker.KINDS``; drawn by the seed if None.
        mount: of the camera; that of the simulator if None.
    """

    environment: str
    seed: int
    frames: int
    kind: str | None = None
    mount: CameraMount | None = None


def record_walk(simulator: ReferenceSimulator, spec: WalkSpec) -> Clip:
    """Record a walk with all that the simulator knows; the same spec gives the same clip.

    Args:
        simulator: a simulator of ``spec.environment``.
        spec: the walk.
    """
    if spec.mount is not None:
        simulator.mount = spec.mount
    simulator.reset(spec.seed)
    walker = Walker(np.random.default_rng(spec.seed), spec.frames - 1, spec.kind, simulator.turn_distance)
    frames, depths, poses, commands, blocked = [], [], [], [], []
    was_blocked = False
    for step in range(spec.frames):
        frame, depth = simulator.render()
        frames.append(frame)
        depths.append(depth)
        poses.append(simulator.camera().c2w)
        if step + 1 < spec.frames:
            command = walker.command(was_blocked, depth)
            was_blocked = simulator.step(command)
            commands.append(command)
            blocked.append(was_blocked)
    return Clip(
        frames=torch.from_numpy(np.stack(frames)),
        depth=torch.from_numpy(np.stack(depths)),
        c2w=torch.stack(poses),
        K=simulator.camera().K,
        commands=torch.from_numpy(np.array(commands, dtype=np.float32)),
        blocked=torch.tensor(blocked),
        source={"environment": spec.environment, "seed": str(spec.seed), "kind": walker.kind},
    )


def draw_mount(rng: np.random.Generator, robot_share: float) -> CameraMount:
    """Draw the camera of a walk: the default one, or a random one of a robot.

    Args:
        rng: random numbers.
        robot_share: probability of a robot's camera: 0.3 to 1.5 m high, with a vertical field of view of 50 to 75
            degrees and a pitch of -10 to 10 degrees.
    """
    if rng.random() >= robot_share:
        return CameraMount()
    height, fov_deg, pitch_deg = (round(float(rng.uniform(*ends)), 2) for ends in ((0.3, 1.5), (50, 75), (-10, 10)))
    return CameraMount(height, fov_deg, pitch_deg)


def record(
    output: Path,
    walks: int,
    frames: int = 40,
    first_seed: int = 0,
    simulator: str = "miniworld",
    robot_share: float = 0.0,
    workers: int = 1,
) -> int:
    """Record training walks; existing files are kept.

    Args:
        output: folder for ``ENVIRONMENT-SEED.safetensors``.
        walks: total number of walks, spread over the training environments of the simulator.
        frames: frames per walk.
        first_seed: seed of the first walk; the following seeds must be in ``TRAINING_SEEDS`` as well.
        simulator: ``"miniworld"`` or ``"homes"``.
        robot_share: share of the walks with a robot's camera, see :func:`draw_mount`.
        workers: number of processes.

    Returns:
        The number of new walks.

    Raises:
        ValueError: for seeds outside of ``TRAINING_SEEDS``, an unknown simulator or numbers out of range.
        ImportError: if the simulator's libraries or EGL are missing.
    """
    if walks < 1 or frames < 2 or workers < 1:
        raise ValueError(f"walks, frames, workers: expected at least 1, 2 and 1, got {walks}, {frames} and {workers}")
    if first_seed not in TRAINING_SEEDS or first_seed + walks - 1 not in TRAINING_SEEDS:
        raise ValueError(
            f"seeds: expected within {TRAINING_SEEDS} (the rest is for evaluation), got {first_seed}+{walks}"
        )
    environments = simulator_class(simulator).training_environments
    tasks = []
    for i, environment in enumerate(environments):
        seeds = range(first_seed + i, first_seed + walks, len(environments))
        missing = [seed for seed in seeds if not _path(output, environment, seed).exists()]
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            mounts = [draw_mount(np.random.default_rng([seed, _MOUNT]), robot_share) for seed in batch]
            specs = [WalkSpec(environment, s, frames, None, m) for s, m in zip(batch, mounts, strict=True)]
            tasks.append((output, simulator, specs))
    count = sum(len(specs) for _, _, specs in tasks)
    with tqdm(total=count, unit="walk", disable=None) as progress:
        if workers == 1:
            for task in tasks:
                progress.update(_record_batch(*task))
        else:
            # GL contexts do not survive a fork of the process
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
                for future in as_completed([pool.submit(_record_batch, *task) for task in tasks]):
                    progress.update(future.result())
    return count


def _record_batch(output: Path, simulator: str, specs: Sequence[WalkSpec]) -> int:
    """Record walks of one environment and return their number."""
    world = make_simulator(simulator, specs[0].environment)
    for spec in specs:
        clip = record_walk(world, spec)
        clip = replace(clip, depth=clip.depth.half(), source=clip.source | {"simulator": simulator})
        save_clip(clip, _path(output, spec.environment, spec.seed))
    world.close()
    return len(specs)


def _path(output: Path, environment: str, seed: int) -> Path:
    return output / f"{environment}-{seed:06d}.safetensors"


def record_shipped(output: Path, starts: int = 72, walks: int = 3, frames: int = 25) -> None:
    """Record the start images and short walks of the package, in scenes of ``SHIPPED_SEEDS``.

    A start image must have a median depth of more than 2.5 m, so that there is space to move, and some texture.

    Args:
        output: folder for ``starts.safetensors`` (``frames`` uint8 ``[N, H, W, 3]``) and ``walks/``.
        starts: number of start images.
        walks: number of walks.
        frames: frames per walk.
    """
    environments = TRAINING_ENVIRONMENTS + HELD_OUT_ENVIRONMENTS
    chosen: list[Tensor] = []
    for i, environment in enumerate(environments):
        simulator = MiniWorldSimulator(environment)
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
    with atomic_write(output / "starts.safetensors") as partial:
        save_file({"frames": torch.stack(chosen)}, partial)

    seeds = iter(SHIPPED_SEEDS[9_000:])
    for name in ("FourRooms", "Maze", "RoomObjects", "CollectHealth", "YMaze")[:walks]:
        simulator = MiniWorldSimulator(name)
        clip = next(
            c for seed in seeds if _is_scenic(c := record_walk(simulator, WalkSpec(name, seed, frames, "wander")))
        )
        save_clip(replace(clip, depth=clip.depth.half()), output / "walks" / f"{name}.safetensors")
        simulator.close()


def _is_scenic(clip: Clip) -> bool:
    """Return whether a walk is never blocked, covers some distance and never faces a near wall."""
    travelled = (clip.c2w[-1, :3, 3] - clip.c2w[0, :3, 3]).norm()
    open_space = clip.depth.flatten(1).median(dim=1).values.min()
    return not bool(clip.blocked.any()) and bool(travelled > 1.5) and bool(open_space > 1.8)
