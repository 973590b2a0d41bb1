"""Makes the manifest. Run once per protocol; its output is committed and then never changes.

``python -c "from mirage_sim.evaluation.generate import write_manifest; write_manifest()"``
"""

import logging
from pathlib import Path

import numpy as np

from mirage_sim.data.clips import Clip
from mirage_sim.data.record import WalkSpec, record_walk
from mirage_sim.data.simulators import EVALUATION_SEEDS, ReferenceSimulator
from mirage_sim.data.simulators.miniworld import HELD_OUT_ENVIRONMENTS, TRAINING_ENVIRONMENTS
from mirage_sim.evaluation.manifest import Manifest, Walk, manifest_path, save_manifest
from mirage_sim.evaluation.truth import digest, follow, open_simulator, rendered_by
from mirage_sim.evaluation.visibility import seen_from

_log = logging.getLogger(__name__)

ENVIRONMENTS = TRAINING_ENVIRONMENTS + HELD_OUT_ENVIRONMENTS
WALKS, QUICK_WALKS = 16, 2  # per environment
CIRCUITS, QUICK_CIRCUITS = 4, 1
STEPS = 32
LEGS = range(8, 17)  # steps from A to B: three legs make 24 to 48 steps
IN_VIEW = 0.2  # at most this part of A's pixels may still be in view at B
_SEEDS_PER_ENVIRONMENT = 1_000
_FIRST_CIRCUIT_SEED = 50_000  # after the first evaluation seed
CIRCUIT_KINDS = ("turn", "arc", "walk")

Commands = list[tuple[float, float]]


def _rounded(commands: np.ndarray) -> Commands:
    """Four decimals: what is driven is exactly what the manifest can say."""
    return [(round(float(forward), 4), round(float(turn), 4)) for forward, turn in commands]


def _walk(clip: Clip, commands: Commands, quick: bool, leg: int = 0) -> Walk:
    c2w = clip.c2w.double().numpy()
    headings = np.arctan2(-c2w[:, 2, 2], c2w[:, 0, 2])
    poses = zip(c2w[:, 0, 3], c2w[:, 2, 3], headings, strict=True)
    return Walk(
        environment=clip.source["environment"],
        seed=int(clip.source["seed"]),
        quick=quick,
        commands=tuple(commands),
        blocked=tuple(int(step) for step in np.flatnonzero(clip.blocked.numpy())),
        poses=tuple((round(float(x), 6), round(float(z), 6), round(float(heading), 6)) for x, z, heading in poses),
        sha256=digest(clip),
        leg=leg,
    )


def wander(simulator: ReferenceSimulator, environment: str, seed: int, quick: bool) -> Walk:
    """A smooth walk of 32 steps: the recorder's commands, rounded, driven again."""
    recorded = record_walk(simulator, WalkSpec(environment, seed, STEPS + 1, "wander"))
    commands = _rounded(recorded.commands.numpy())
    return _walk(follow(simulator, environment, seed, commands), commands, quick)


def outbound(kind: str, rng: np.random.Generator) -> Commands:
    """Commands that lead away from A, for the longest leg: turn in place, drive an arc, or walk and then turn."""
    commands = np.zeros((LEGS[-1], 2))
    commands[:, 1] = rng.uniform(0.85, 1.0) * rng.choice([-1.0, 1.0])
    if kind == "arc":
        commands[:, 0] = rng.uniform(0.3, 0.8)
    elif kind == "walk":
        steps = int(rng.integers(3, 6))
        commands[:steps] = rng.uniform(0.5, 1.0) * rng.choice([1.0, 1.0, -1.0]), 0.0
    return _rounded(commands)


def undo(commands: Commands) -> Commands:
    """Commands that lead back: arcs are symmetric, so the reversed and negated ones retrace them."""
    return [(-forward, -turn) for forward, turn in reversed(commands)]


def circuit(simulator: ReferenceSimulator, environment: str, seed: int, kind: str, quick: bool) -> Walk | None:
    """The circuit of this seed, or None when its way is blocked or A stays in view for too long."""
    commands = outbound(kind, np.random.default_rng(seed))
    away = follow(simulator, environment, seed, commands)
    cameras = away.cameras
    for leg in LEGS:
        if away.blocked[:leg].any():
            return None
        if seen_from(away.depth[0], cameras[0], away.depth[leg], cameras[leg]).float().mean() <= IN_VIEW:
            break
    else:
        return None
    there = commands[:leg]
    commands = [*there, *undo(there), *there]
    whole = follow(simulator, environment, seed, commands)
    if whole.blocked.any():
        return None
    return _walk(whole, commands, quick, leg)


def write_manifest(path: Path | None = None) -> Manifest:
    """Write the manifest of protocol 1: 192 walks and 48 circuits (about five minutes).

    Args:
        path: where to; the committed place inside the package by default.

    Raises:
        ImportError: where MiniWorld or EGL is missing.
    """
    walks, circuits, made_by = [], [], {}
    for i, environment in enumerate(ENVIRONMENTS):
        simulator = open_simulator(environment)
        made_by = rendered_by()
        first = EVALUATION_SEEDS[0] + i * _SEEDS_PER_ENVIRONMENT
        walks += [wander(simulator, environment, first + j, j < QUICK_WALKS) for j in range(WALKS)]
        found, seed = 0, first + _FIRST_CIRCUIT_SEED
        while found < CIRCUITS:
            kind = CIRCUIT_KINDS[(i + found) % len(CIRCUIT_KINDS)]
            made = circuit(simulator, environment, seed, kind, found < QUICK_CIRCUITS)
            seed += 1
            if made is not None:
                circuits.append(made)
                found += 1
        _log.info(
            "%s: %d walks; %d circuits from %d seeds", environment, WALKS, found, seed - first - _FIRST_CIRCUIT_SEED
        )
        simulator.close()
    manifest = Manifest(tuple(walks), tuple(circuits), made_by)
    save_manifest(manifest, path or manifest_path())
    return manifest
