"""The manifest of ``mirage eval counterfactual``: scenes, and action sequences that are played from one state."""

import json
from dataclasses import dataclass
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.data.simulators import EVALUATION_SEEDS, CameraMount
from mirage_sim.data.simulators.miniworld import HELD_OUT_ENVIRONMENTS, TRAINING_ENVIRONMENTS
from mirage_sim.envs.actions import moved
from mirage_sim.envs.reference_env import BODIES
from mirage_sim.envs.reference_world import ReferenceModel, Scene
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.io import atomic_write
from mirage_sim.paths import ASSETS

PATH = ASSETS / "protocol" / "forks.json"
STEPS = (1, 4, 8, 16)  # after which frames are retrieved
LEVER = 2.0  # metres; a turn of a radian counts as this distance, by which it moves what is that far away
QUICK, FULL = 12, {"miniworld": 24, "homes": 12}  # scenes
SPEEDS = {"miniworld": 1.0, "homes": 0.5}  # of the sequences; homes are narrow
_TRIES = 100  # seeds of each environment; narrow ones have few scenes
FIRST_SEED = 60_000  # after the first evaluation seed; walks and circuits use others
ENVIRONMENTS = {"miniworld": (*TRAINING_ENVIRONMENTS, *HELD_OUT_ENVIRONMENTS), "homes": ("seen", "unseen")}
#: Segments (steps, forward, turn) of each sequence.
SEQUENCES = (
    ((16, 1.0, 0.0),),
    ((16, -0.5, 0.0),),
    ((16, 0.0, 1.0),),
    ((16, 0.0, -1.0),),
    ((8, 0.8, 0.5), (8, 0.8, 0.0)),
    ((8, 0.8, -0.5), (8, 0.4, -1.0)),
    ((8, -0.4, 0.6), (8, 0.0, 0.6)),
    ((8, -0.4, -0.6), (8, 0.8, -0.3)),
)


@dataclass(frozen=True)
class Forks:
    """Action sequences and scenes of one simulator.

    Attributes:
        sequences: commands ``[K, steps, 2]``.
        scenes: from which the sequences start; the first ``QUICK`` are the quick subset.
        distances: by number of steps, the least and the greatest distance between the poses of two sequences.
    """

    sequences: NDArray[np.float32]
    scenes: tuple[Scene, ...]
    distances: dict[int, tuple[float, float]]


def cameras_of(sequences: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the poses of all sequences from the identity, ``[K, steps + 1, 4, 4]``."""
    drive, poses = VelocityLimits(), []
    for commands in sequences:
        camera = Camera.from_fov(torch.eye(4), 60.0, (96, 128))
        path = [camera]
        for command in commands:
            path.append(moved(path[-1], drive.motion(torch.from_numpy(command))))
        poses.append([each.c2w.double().numpy() for each in path])
    return np.array(poses)


def pose_distances(sequences: NDArray[np.float32]) -> dict[int, tuple[float, float]]:
    """Return the least and greatest pose distance between two sequences after each of ``STEPS``.

    The distance of two poses is the root of the sum of squares of their metres and of two metres times their radians.
    """
    poses, distances = cameras_of(sequences), {}
    for step in STEPS:
        found = []
        for a, b in combinations(poses[:, step], 2):
            angle = np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1))
            found.append(float(np.hypot(np.linalg.norm(a[:3, 3] - b[:3, 3]), LEVER * angle)))
        distances[step] = round(min(found), 3), round(max(found), 3)
    return distances


def commands_of(segments: Any, speed: float) -> NDArray[np.float32]:
    """Return the commands ``[K, steps, 2]`` of sequences of segments, with all forward speeds times ``speed``."""
    return np.array(
        [[(speed * forward, turn) for steps, forward, turn in each for _ in range(steps)] for each in segments],
        np.float32,
    )


def load_forks(simulator: str, path: Path = PATH) -> Forks:
    """Load the manifest's part for a simulator.

    Raises:
        ValueError: if the distances are not those of the sequences.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    own = content[simulator]
    sequences = commands_of(content["sequences"], own["speed"])
    distances = {int(step): (least, greatest) for step, (least, greatest) in own["distances"].items()}
    if distances != (found := pose_distances(sequences)):
        raise ValueError(f"distances: expected those of the sequences, {found}, got {distances}")
    return Forks(sequences, tuple(Scene(*scene) for scene in own["scenes"]), distances)


def write_forks(path: Path = PATH) -> None:
    """Make the manifest: scenes in turn from all environments, where the body can drive all sequences.

    It was made once and is committed: ``python -c "from mirage_sim.evaluation.forks_manifest import write_forks;
    write_forks()"``.
    """
    content: dict[str, Any] = {"lever_m": LEVER, "sequences": SEQUENCES}
    for simulator, speed in SPEEDS.items():
        sequences = commands_of(SEQUENCES, speed)
        content[simulator] = {
            "speed": speed,
            "distances": pose_distances(sequences),
            "scenes": free_scenes(simulator, sequences),
        }
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")


def free_scenes(simulator: str, sequences: NDArray[np.float32]) -> list[Scene]:
    """Find scenes from which the simulator's body can drive all sequences, in turn from all environments."""
    model, body = ReferenceModel(simulator, CameraMount()), BODIES[simulator]
    poses, chosen, rows = cameras_of(sequences), [], []
    for i, environment in enumerate(ENVIRONMENTS[simulator]):
        found: list[Scene] = []
        for seed in count(EVALUATION_SEEDS.start + FIRST_SEED + 1_000 * i):
            scene = Scene(environment, seed)
            places = (model.first_camera(scene) @ poses)[..., [0, 2], 3]
            if (model.enter(scene).obstacle_distance(places) > body.radius).all():
                found.append(scene)
            if len(found) == FULL[simulator] // len(ENVIRONMENTS[simulator]) or seed % 1_000 == _TRIES - 1:
                break
        rows.append(found)
        model.close()
    for turn in range(max(map(len, rows))):
        chosen += [found[turn] for found in rows if turn < len(found)]
    return chosen
