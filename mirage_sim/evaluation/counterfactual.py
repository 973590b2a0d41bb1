"""``mirage eval counterfactual``: does the learned world do what the actions say?

From one state, K action sequences are played in forks of the learned world and in forks of the reference simulator,
with the same cameras. Each generated frame is compared with the K true frames of its step: *top-1* is the share whose
nearest true frame, by mean squared difference of RGB, is that of its own actions. The camera's motion between two
frames of a sequence is recovered from their pixels and compared with the commanded motion, for generated and for true
frames.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from mirage_sim.ambient import own_torch
from mirage_sim.build import instantiate
from mirage_sim.envs.reference_env import MirageReferenceEnv, paired_reset
from mirage_sim.envs.reference_world import Scene
from mirage_sim.envs.stepping import step_envs
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.evaluation.forks_manifest import ENVIRONMENTS, QUICK, STEPS, load_forks
from mirage_sim.evaluation.media import contact_sheet, save_image
from mirage_sim.evaluation.metrics import bootstrap_mean, bootstrap_ratio
from mirage_sim.evaluation.pixel_motion import motion_from_pixels, rotation_angle
from mirage_sim.evaluation.summary import finite, write_json
from mirage_sim.settings import CounterfactualSettings, ForkSettings
from mirage_sim.world import WorldModel

_log = logging.getLogger(__name__)

LAG = 2  # steps between the two frames that a motion is recovered from
GENERATED, TRUE = "", "_true_frames"  # endings of metrics

Row = dict[str, float]


@dataclass(frozen=True)
class ForkRun:
    """K action sequences from one state, in both worlds; index 0 is the shared start.

    Attributes:
        generated: frames uint8 ``[K, S + 1, H, W, 3]``.
        true: the simulator's frames, of the same shape.
        depth: true z-depth float32 ``[K, S + 1, H, W]``.
        remembered: bool ``[K, S + 1, H, W]``.
        c2w: of all frames, ``[K, S + 1, 4, 4]``.
        K: intrinsics ``[3, 3]``.
    """

    generated: NDArray[np.uint8]
    true: NDArray[np.uint8]
    depth: NDArray[np.float32]
    remembered: NDArray[np.bool_]
    c2w: NDArray[np.float64]
    K: NDArray[np.float64]


def play_forks(
    learned: MirageWorldEnv, true: MirageReferenceEnv, scene: Scene, sequences: NDArray[np.float32]
) -> ForkRun:
    """Play all sequences from the start of a scene, in both worlds.

    Args:
        learned: with ``observation="dict"``, ``task="none"`` and ``collisions="ignore"``.
        true: with the same arguments.
        scene: where to start.
        sequences: commands ``[K, S, 2]``.
    """
    begun = paired_reset(learned, true, scene.seed, {"environment": scene.environment, "scene": scene.seed})
    shown: list[list[list[tuple[Any, Any]]]] = []
    for env, first in zip((learned, true), begun, strict=True):
        forks = env.fork(len(sequences))
        steps = [[first] * len(sequences)]
        for commands in sequences.swapaxes(0, 1):
            steps.append([(each[0], each[4]) for each in step_envs(forks, list(commands))])
        shown.append(steps)

    def stack(world: int, key: str) -> NDArray[Any]:
        return np.stack([[observation[key] for observation, _ in step] for step in shown[world]], 1)

    K = true.world.camera.K.double().numpy()
    remembered = stack(0, "remembered").astype(bool)
    return ForkRun(stack(0, "rgb"), stack(1, "rgb"), stack(1, "depth"), remembered, stack(1, "pose").astype(float), K)


def nearest_frames(generated: NDArray[np.uint8], true: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return for each generated frame ``[K, H, W, 3]`` the index of the nearest of the true frames, ``[K]``."""
    difference = generated[:, None].astype(np.float32) - true[None].astype(np.float32)
    return np.asarray((difference**2).mean((2, 3, 4)).argmin(1))


def motion_errors(
    frames: NDArray[np.uint8], depth: NDArray[np.float32], c2w: NDArray[np.float64], K: NDArray[np.float64]
) -> tuple[float, float, float, bool]:
    """Compare the motion between two frames ``[2, ...]``, recovered from their pixels, with the commanded one.

    Where no motion can be recovered, the camera counts as at rest.

    Returns:
        Error of the rotation in degrees, error of the translation and commanded translation in metres, and whether a
        motion was recovered.
    """
    commanded = np.linalg.inv(c2w[0]) @ c2w[1]
    found = motion_from_pixels(frames[0], frames[1], depth[0], K)
    motion = np.eye(4) if found is None else found
    turned = rotation_angle(motion[:3, :3].T @ commanded[:3, :3])
    away = float(np.linalg.norm(motion[:3, 3] - commanded[:3, 3]))
    return turned, away, float(np.linalg.norm(commanded[:3, 3])), found is not None


def score_forks(run: ForkRun) -> Row:
    """Score one scene.

    Motion is scored between the frames whose true images let the estimator recover a motion: elsewhere, such as at a
    wall without texture, it says nothing about the learned world.
    """
    row: Row = {}
    for step in STEPS:
        nearest = nearest_frames(run.generated[:, step], run.true[:, step])
        row[f"top1_{step}"] = float((nearest == np.arange(len(nearest))).mean())
    errors: dict[str, list[tuple[float, float, float, bool]]] = {GENERATED: [], TRUE: []}
    pairs = 0
    for k in range(len(run.true)):
        for step in range(LAG, run.true.shape[1], LAG):
            at = [step - LAG, step]
            pairs += 1
            true = motion_errors(run.true[k, at], run.depth[k, at], run.c2w[k, at], run.K)
            if true[3]:
                errors[TRUE].append(true)
                errors[GENERATED].append(motion_errors(run.generated[k, at], run.depth[k, at], run.c2w[k, at], run.K))
    row["pairs"], row["pairs_scored"] = float(pairs), float(len(errors[TRUE]))
    for ending, values in errors.items():
        turned, away, commanded, found = np.array(values, float).reshape(-1, 4).T
        row[f"rotation_error_deg{ending}"] = float(turned.mean()) if len(turned) else np.nan
        row[f"metres_off{ending}"], row["metres"] = float(away.sum()), float(commanded.sum())
        row[f"recovered{ending}"] = float(found.mean()) if len(found) else np.nan
    return row


def metrics_of(rows: Sequence[Row]) -> dict[str, float | None]:
    """Return the metrics over scenes with 95 % intervals (``_lo``, ``_hi``); None where nothing was measured."""
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    names = [f"top1_{step}" for step in STEPS]
    names += [f"{name}{ending}" for name in ("rotation_error_deg", "recovered") for ending in (GENERATED, TRUE)]
    metrics: dict[str, float | None] = {"scenes": float(len(rows))}
    intervals = {name: bootstrap_mean(column[name]) for name in names}
    if column["metres"].sum() > 0:
        for ending in (GENERATED, TRUE):
            intervals[f"translation_error{ending}"] = bootstrap_ratio(column[f"metres_off{ending}"], column["metres"])
    for name, interval in intervals.items():
        metrics |= {key: finite(value) for key, value in interval.metrics(name).items()}
    metrics["motion_scored"] = finite(column["pairs_scored"].sum() / column["pairs"].sum())
    return metrics


def runs_of(settings: ForkSettings, model: WorldModel | None = None) -> Iterator[tuple[Scene, ForkRun]]:
    """Play the sequences of the manifest in the scenes that the settings choose.

    Raises:
        ImportError: if the simulator's packages or EGL are missing.
        ValueError: if furniture has not been prepared.
    """
    forks = load_forks(settings.protocol)
    scenes = forks.scenes[: settings.scenes or (QUICK if settings.runs == "quick" else None)]
    shared: dict[str, Any] = {"observation": "dict", "task": "none", "collisions": "ignore"}
    learned = gymnasium.make("MirageWorld-v0", world=model or instantiate(settings.world), **shared).unwrapped
    true = gymnasium.make(
        "MirageReference-v0", simulator=settings.protocol, environments=ENVIRONMENTS[settings.protocol], **shared
    ).unwrapped
    try:
        for number, scene in enumerate(scenes):
            started = time.perf_counter()
            run = play_forks(cast(MirageWorldEnv, learned), cast(MirageReferenceEnv, true), scene, forks.sequences)
            _log.info("scene %d of %d in %.1f s", number + 1, len(scenes), time.perf_counter() - started)
            yield scene, run
    finally:
        true.close()


@own_torch()
def evaluate(settings: CounterfactualSettings, model: WorldModel | None = None) -> dict[str, Any]:
    """Measure counterfactual action fidelity.

    Args:
        settings: of the command.
        model: evaluate this one instead of ``settings.world``.

    Returns:
        ``marks`` with intervals, ``chance`` of top-1, ``distances`` between the sequences' poses, and ``per_scene``.

    Raises:
        ImportError: if the simulator's packages or EGL are missing.
        ValueError: if furniture has not been prepared.
    """
    started, forks = time.perf_counter(), load_forks(settings.protocol)
    rows, output = [], Path(settings.output) if settings.output else None
    for scene, run in runs_of(settings, model):
        rows.append(scene._asdict() | score_forks(run))
        if output:
            output.mkdir(parents=True, exist_ok=True)
            save_image(_sheet(run), output / f"{scene.environment}-{scene.seed}.png")
    result: dict[str, Any] = {
        "protocol": settings.protocol,
        "marks": metrics_of([{key: row[key] for key in row if key not in Scene._fields} for row in rows]),
        "chance": 1 / len(forks.sequences),
        "distances": {str(step): list(span) for step, span in forks.distances.items()},
        "per_scene": [{key: finite(v) if isinstance(v, float) else v for key, v in row.items()} for row in rows],
        "seconds": round(time.perf_counter() - started, 1),
    }
    if output:
        write_json(result, output / "counterfactual.json")
    return result


def _sheet(run: ForkRun) -> Any:
    """Return a contact sheet: generated above true frames of every sequence."""
    rows: dict[str, Any] = {}
    for k in range(len(run.true)):
        rows |= {f"{k} generated": list(run.generated[k, STEPS]), f"{k} true": list(run.true[k, STEPS])}
    return contact_sheet(rows, list(STEPS))
