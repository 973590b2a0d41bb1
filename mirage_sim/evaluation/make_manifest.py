"""Makes the manifests of the protocols. They were made once and are committed; they do not change.

``python -c "from mirage_sim.evaluation.make_manifest import write_miniworld; write_miniworld()"``, ``write_homes``
likewise.
"""

import logging
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np

from mirage_sim.data.clips import Clip
from mirage_sim.data.record import WalkSpec, record_walk
from mirage_sim.data.simulators import EVALUATION_SEEDS, CameraMount, ReferenceSimulator
from mirage_sim.data.simulators.miniworld import HELD_OUT_ENVIRONMENTS, TRAINING_ENVIRONMENTS
from mirage_sim.evaluation.ground_truth import digest, follow, open_simulator, seen_from
from mirage_sim.evaluation.manifest import (
    MOUNT,
    PAIRED,
    SEEN,
    UNSEEN,
    Manifest,
    Walk,
    manifest_path,
    save_manifest,
)

_log = logging.getLogger(__name__)

WALKS, QUICK_WALKS = 16, 2  # per environment of MiniWorld
CIRCUITS, QUICK_CIRCUITS = 4, 1
HOMES_WALKS = {SEEN: (72, 18), UNSEEN: (24, 6)}  # all, quick
HOMES_CIRCUITS = {SEEN: (18, 9), UNSEEN: (6, 3)}
STEPS = 32
LEGS = range(8, 17)  # steps from A to B: three legs make 24 to 48 steps
IN_VIEW = 0.2  # largest fraction of A's pixels that is in view at B
_SEEDS_PER_ENVIRONMENT = 1_000
_FIRST_CIRCUIT_SEED = 50_000  # after the first evaluation seed
CIRCUIT_KINDS = ("turn", "arc", "walk")

Commands = list[tuple[float, float]]


def _rounded(commands: np.ndarray) -> Commands:
    """Round commands to the four decimals of the manifest, so that exactly these are driven."""
    return [(round(float(forward), 4), round(float(turn), 4)) for forward, turn in commands]


def _walk(clip: Clip, commands: Commands, quick: bool, mount: CameraMount, leg: int = 0) -> Walk:
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
        mount=mount,
    )


def wander(simulator: ReferenceSimulator, environment: str, seed: int, quick: bool, mount: CameraMount = MOUNT) -> Walk:
    """Make a smooth walk of 32 steps: record one, round its commands, and drive them again."""
    recorded = record_walk(simulator, WalkSpec(environment, seed, STEPS + 1, "wander", mount))
    commands = _rounded(recorded.commands.numpy())
    return _walk(follow(simulator, environment, seed, commands, mount), commands, quick, mount)


def outbound(kind: str, rng: np.random.Generator) -> Commands:
    """Random commands of the longest leg away from A: turn in place, drive an arc, or walk and then turn."""
    commands = np.zeros((LEGS[-1], 2))
    commands[:, 1] = rng.uniform(0.85, 1.0) * rng.choice([-1.0, 1.0])
    if kind == "arc":
        commands[:, 0] = rng.uniform(0.3, 0.8)
    elif kind == "walk":
        steps = int(rng.integers(3, 6))
        commands[:steps] = rng.uniform(0.5, 1.0) * rng.choice([1.0, 1.0, -1.0]), 0.0
    return _rounded(commands)


def undo(commands: Commands) -> Commands:
    """Commands that lead back: reversed and negated, they retrace the path, because arcs are symmetric."""
    return [(-forward, -turn) for forward, turn in reversed(commands)]


def circuit(
    simulator: ReferenceSimulator, environment: str, seed: int, kind: str, quick: bool, mount: CameraMount = MOUNT
) -> Walk | None:
    """Make the circuit of a seed; None if its path is blocked or A stays in view for too long."""
    commands = outbound(kind, np.random.default_rng(seed))
    away = follow(simulator, environment, seed, commands, mount)
    cameras = away.cameras
    for leg in LEGS:
        if away.blocked[:leg].any():
            return None
        if seen_from(away.depth[0], cameras[0], away.depth[leg], cameras[leg]).float().mean() <= IN_VIEW:
            break
    else:
        return None
    outward = commands[:leg]
    commands = [*outward, *undo(outward), *outward]
    clip = follow(simulator, environment, seed, commands, mount)
    return None if clip.blocked.any() else _walk(clip, commands, quick, mount, leg)


def circuits(
    simulator: ReferenceSimulator,
    environment: str,
    first_seed: int,
    mounts: Sequence[CameraMount],
    quick: int,
    first_kind: int,
) -> list[Walk]:
    """Make one circuit for each mount, from the first possible seeds; the first ``quick`` are in the quick subset."""
    found: list[Walk] = []
    seeds = count(first_seed)
    while len(found) < len(mounts):
        kind = CIRCUIT_KINDS[(first_kind + len(found)) % len(CIRCUIT_KINDS)]
        walk = circuit(simulator, environment, next(seeds), kind, len(found) < quick, mounts[len(found)])
        found += [walk] if walk else []
    _log.info("%s: %d circuits from %d seeds", environment, len(found), next(seeds) - first_seed)
    return found


def pairs(
    unseen: ReferenceSimulator, paired: ReferenceSimulator, first_seed: int, mounts: Sequence[CameraMount], quick: int
) -> tuple[list[Walk], list[Walk]]:
    """Make a walk for each mount through homes with held-out furniture, and the same walks among seen pieces.

    A seed is skipped if the two drives differ, because the path is blocked in one home and free in the other.
    """
    walks: list[Walk] = []
    paired_walks: list[Walk] = []
    seeds = count(first_seed)
    while len(walks) < len(mounts):
        seed, mount = next(seeds), mounts[len(walks)]
        walk = wander(unseen, UNSEEN, seed, len(walks) < quick, mount)
        commands = list(walk.commands)
        other = _walk(follow(paired, PAIRED, seed, commands, mount), commands, walk.quick, mount)
        if (walk.poses, walk.blocked) == (other.poses, other.blocked):
            walks.append(walk)
            paired_walks.append(other)
    _log.info("%s: %d pairs from %d seeds", UNSEEN, len(walks), next(seeds) - first_seed)
    return walks, paired_walks


def write_miniworld(path: Path | None = None) -> Manifest:
    """Write the manifest of protocol 1: 192 walks and 48 circuits (about five minutes).

    Args:
        path: of the file; by default that of the committed manifest.

    Raises:
        ImportError: if MiniWorld or EGL is missing.
    """
    walks, found_circuits, rendered_by = [], [], {}
    for i, environment in enumerate(TRAINING_ENVIRONMENTS + HELD_OUT_ENVIRONMENTS):
        simulator = open_simulator("miniworld", environment)
        rendered_by = simulator.rendered_by()
        first = EVALUATION_SEEDS[0] + i * _SEEDS_PER_ENVIRONMENT
        walks += [wander(simulator, environment, first + j, j < QUICK_WALKS) for j in range(WALKS)]
        found_circuits += circuits(
            simulator, environment, first + _FIRST_CIRCUIT_SEED, [MOUNT] * CIRCUITS, QUICK_CIRCUITS, first_kind=i
        )
        simulator.close()
    manifest = Manifest(tuple(walks), tuple(found_circuits), rendered_by)
    save_manifest(manifest, path or manifest_path("miniworld"))
    return manifest


def robot_mounts(number: int, seed: int) -> list[CameraMount]:
    """The pinned mount for half of the walks, and a robot's for the others: 0.3 to 1.2 m high, 50 to 75 degrees.

    The second and third of every four walks have a robot's, so that even and odd walks have equally many.
    """
    rng = np.random.default_rng(seed)
    robots = [
        CameraMount(round(float(rng.uniform(0.3, 1.2)), 2), round(float(rng.uniform(50, 75)), 1)) for _ in range(number)
    ]
    return [robots[j] if j % 4 in (1, 2) else MOUNT for j in range(number)]


def write_homes(path: Path | None = None) -> Manifest:
    """Write the manifest of protocol 2: 96 walks, 24 of them in pairs, and 24 circuits.

    Args:
        path: of the file; by default that of the committed manifest.

    Raises:
        ImportError: if the homes simulator's packages or EGL are missing.
        ValueError: if furniture is not prepared.
    """
    from mirage_sim.data.simulators.homes.furniture import load_furniture

    first = {SEEN: EVALUATION_SEEDS[0], UNSEEN: EVALUATION_SEEDS[0] + _SEEDS_PER_ENVIRONMENT}
    walk_mounts = {name: robot_mounts(HOMES_WALKS[name][0], first[name]) for name in first}
    circuit_mounts = {name: robot_mounts(HOMES_CIRCUITS[name][0], first[name] + _FIRST_CIRCUIT_SEED) for name in first}
    homes = {name: open_simulator("homes", name) for name in (SEEN, UNSEEN, PAIRED)}
    walks = [
        wander(homes[SEEN], SEEN, first[SEEN] + j, j < HOMES_WALKS[SEEN][1], mount)
        for j, mount in enumerate(walk_mounts[SEEN])
    ]
    unseen, paired = pairs(homes[UNSEEN], homes[PAIRED], first[UNSEEN], walk_mounts[UNSEEN], HOMES_WALKS[UNSEEN][1])
    found_circuits = [
        walk
        for i, name in enumerate(first)
        for walk in circuits(
            homes[name], name, first[name] + _FIRST_CIRCUIT_SEED, circuit_mounts[name], HOMES_CIRCUITS[name][1], i
        )
    ]
    manifest = Manifest(
        walks=(*walks, *unseen),
        circuits=tuple(found_circuits),
        pairs=tuple(paired),
        rendered_by=homes[SEEN].rendered_by(),
        simulator="homes",
        furniture=load_furniture().digest,
    )
    for home in homes.values():
        home.close()
    save_manifest(manifest, path or manifest_path("homes"))
    return manifest
