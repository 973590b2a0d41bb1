"""``mirage eval collision``: does the memory stop a body where the true world does? Scored apart.

The world is driven along the true cameras of the manifest's walks. *Queries* are put to a
:class:`~mirage_sim.world.Body` of the size of the simulator's, which moves through what is remembered at that step, and
to the reference simulator itself. Each asks whether a straight way is blocked:

* *commands*: the walk's own next motion, at every camera, where it is not a mere turn;
* *steps*: one step at full speed (0.15 m);
* *drives*: full speed for a second (ten such steps, or until one is blocked).

Steps and drives are asked at every eighth camera: from the camera itself in eight directions 45 degrees apart, and from
24 places around it in one direction each. These places are drawn, by the scene's seed, from the ground that has been
seen so far by true depth, where the agent can stand. The agent is put back after every query.

A query counts *within remembered space* only: where :meth:`~mirage_sim.world.LocalObstacles.is_ground_seen` says of the
very memory that is asked that the ground of the way is remembered, up to where the body would be stopped. The truth
plays no part in that. Precision and recall of "blocked" are taken over all of these queries, over each kind, and, as
the protocol does with pixels, over *seen* ways and *new* ones. Seen is a way whose ground the first frame shows, by
true depth; the world under test has to invent the others, and what it invents need not be what the simulator has there.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.ambient import own_torch
from mirage_sim.data.clips import Clip
from mirage_sim.data.simulators import ReferenceSimulator
from mirage_sim.data.simulators.simulator import ABOVE_CAMERA
from mirage_sim.evaluation.ground_truth import load_truth, open_simulator
from mirage_sim.evaluation.manifest import Walk, load_manifest
from mirage_sim.evaluation.metrics import bootstrap_ratio
from mirage_sim.evaluation.runner import KNOWN, build_model, check_settings
from mirage_sim.evaluation.summary import finite, write_json
from mirage_sim.geometry import Camera, VelocityLimits, invert
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.world import Body, LocalObstacles, WorldModel
from mirage_sim.world.images import to_tensor

_log = logging.getLogger(__name__)

KINDS = ("commands", "steps", "drives")
PARTS = ("seen", "new")
ESTIMATED, TRUE = "latent_memory", "true_depth"
VARIANTS = (ESTIMATED, TRUE)
EVERY = 8  # cameras from one that is probed to the next
DIRECTIONS, PLACES, DRIVE_STEPS = 8, 24, 10
_REACH = 8.0  # metres within which places are drawn
_COUNTS = ("tp", "fp", "fn", "tn", "unknown")


@dataclass(frozen=True)
class Query:
    """One straight way and the simulator's answer. Plan coordinates: x and z of the first camera's frame, metres.

    Attributes:
        frame: the camera, and with it the memory, that it is asked at.
        kind: of ``KINDS``.
        start: ``[2]``, where the way begins.
        way: ``[2]``.
        blocked: the truth.
        seen: whether the first frame shows the ground of the way, by true depth.
    """

    frame: int
    kind: str
    start: NDArray[np.float32]
    way: NDArray[np.float32]
    blocked: bool
    seen: bool


def from_first(clip: Clip) -> Clip:
    """The clip with its first camera as world frame: +y down, as learned worlds have it, instead of the simulator's."""
    return replace(clip, c2w=invert(clip.c2w[0]) @ clip.c2w)


def true_maps(clip: Clip, stride: tuple[int, int, int]) -> list[LatentMap]:
    """What a perfect depth estimator would remember by after each frame: points written with true depth."""
    memory, cameras = PointMemory(1, stride), clip.cameras
    height, width = cameras.size
    nothing = {"latents": torch.zeros(1, 1, height // stride[1], width // stride[2]), "frames": torch.zeros(3, 1, 1, 1)}
    static = torch.ones(1, height, width, dtype=torch.bool)
    maps, map = [], memory.empty()
    for t in range(len(clip)):
        depth = clip.depth[t : t + 1].float()
        map = memory.write(map, depth=depth, static=static, camera=cameras[t : t + 1], **nothing)
        maps.append(map)
    return maps


@torch.inference_mode()
def learned_maps(model: WorldModel, clips: Sequence[Clip]) -> list[list[LatentMap]]:
    """What the world remembers after each frame, driven from the true first frame along the true cameras.

    Args:
        model: estimates depth itself; draws its noise from the scene's seed.
        clips: equally long, in the frame of their first cameras.
    """
    states = [
        model.observe(to_tensor(clip.frames[0].numpy(), model.device), camera[0], int(clip.source["seed"]))[0]
        for clip, camera in ((clip, clip.cameras.to(model.device)) for clip in clips)
    ]
    maps = [[state.map] for state in states]
    for t in range(1, len(clips[0])):
        states, _ = model.advance(states, [clip.cameras[t : t + 1].to(model.device) for clip in clips])
        for kept, state in zip(maps, states, strict=True):
            kept.append(state.map)
    return maps


def body_of(simulator: ReferenceSimulator) -> Body:
    """A body of the size of the simulator's, which carries the camera where the simulator's does."""
    height = simulator.mount.height
    return Body(simulator.radius, height=height + ABOVE_CAMERA, camera_height=height)


def ask(simulator: ReferenceSimulator, truth: Clip, maps: Sequence[LatentMap]) -> list[Query]:
    """All queries of one walk, answered by the simulator.

    Args:
        simulator: of the walk's environment; it is reset, and not rendered.
        truth: the walk, in the frame of its first camera.
        maps: of true depth, one per frame: where the places are drawn from.
    """
    simulator.reset(int(truth.source["seed"]))
    origin = simulator.camera().c2w.double().numpy()[[0, 2]][:, [0, 2, 3]]  # plan to the simulator's x and z
    rng = np.random.default_rng(int(truth.source["seed"]))
    body, drive, queries = body_of(simulator), VelocityLimits(), []
    step = drive.max_speed * drive.dt

    @cache
    def given(t: int) -> LocalObstacles:
        return body.around(maps[0], truth.cameras[t])

    def add(t: int, kind: str, start: NDArray[np.float32], way: NDArray[np.float32], blocked: bool) -> None:
        seen = given(t).is_ground_seen(way, start - truth.c2w[t, [0, 2], 3].numpy())
        queries.append(Query(t, kind, start, way, blocked, seen))

    for t, command in enumerate(truth.commands):
        if command[0] != 0:
            moved = truth.c2w[t] @ drive.motion(command)
            start, end = (c2w[[0, 2], 3].numpy() for c2w in (truth.c2w[t], moved))
            add(t, "commands", start, end - start, bool(truth.blocked[t]))
    for t in range(0, len(truth), EVERY):
        here, ahead = truth.c2w[t, [0, 2], 3].numpy(), truth.c2w[t, [0, 2], 2].numpy()
        turns = np.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS) + math.atan2(ahead[1], ahead[0])
        starts = [here] * DIRECTIONS
        ground = body.around(maps[t], truth.cameras[t]).ground(_REACH)
        ground = ground[np.lexsort(ground.T)]  # which places are drawn must not depend on how a map keeps its points
        if len(ground):
            starts += list(here + ground[rng.integers(len(ground), size=PLACES)])
            turns = np.concatenate([turns, rng.uniform(0, 2 * math.pi, PLACES)])
        for place, turn in zip(starts, turns, strict=True):
            direction = np.array([math.cos(turn), math.sin(turn)])
            free = simulator.free_steps(origin @ [*place, 1.0], origin[:, :2] @ direction, DRIVE_STEPS)
            if free is not None:
                for kind, steps in (("steps", 1), ("drives", DRIVE_STEPS)):
                    way = (direction * step * steps).astype(np.float32)
                    add(t, kind, place, way, free < steps)
    return queries


def count(queries: Sequence[Query], maps: Sequence[LatentMap], cameras: Camera, body: Body) -> NDArray[np.int64]:
    """How a memory answers: ``[parts, kinds, 5]`` hits, false alarms, misses, passes and ways not remembered."""
    counts = np.zeros((len(PARTS), len(KINDS), len(_COUNTS)), np.int64)
    around = {t: body.around(maps[t], cameras[t]) for t in {query.frame for query in queries}}
    for query in queries:
        here, start = around[query.frame], query.start - cameras.c2w[query.frame, [0, 2], 3].numpy()
        blocked = here.contact(query.way, start)[0] < math.inf
        column = (2 if query.blocked else 3) - 2 * blocked
        remembered = here.is_ground_seen(query.way, start)
        counts[0 if query.seen else 1, KINDS.index(query.kind), column if remembered else 4] += 1
    return counts


def marks_of(counts: Mapping[str, NDArray[np.int64]]) -> dict[str, float | None]:
    """The marks of counts ``[walks, parts, kinds, 5]`` by variant, with 95 % bootstrap intervals over walks.

    Names end with the kind or the part unless over all, and then with ``_true_depth`` unless of the memory under test.
    """
    metrics: dict[str, float | None] = {"walks": len(next(iter(counts.values())))}
    for variant, own in counts.items():
        end = "" if variant == ESTIMATED else f"_{variant}"
        groups = [
            ("", own.sum((1, 2))),
            *((f"_{part}", own[:, i].sum(1)) for i, part in enumerate(PARTS)),
            *((f"_{kind}", own[:, :, i].sum(1)) for i, kind in enumerate(KINDS)),
        ]
        for group, (tp, alarms, fn, tn, unknown) in ((name, rows.T) for name, rows in groups):
            inside = int((tp + alarms + fn + tn).sum())
            metrics |= {
                f"probes{group}{end}": inside,
                f"blocked{group}{end}": int((tp + fn).sum()),
                f"unknown{group}{end}": int(unknown.sum()),
            }
            for name, total in (("precision", tp + alarms), ("recall", tp + fn)):
                key = f"{name}{group}{end}"
                if total.sum():
                    own_marks = bootstrap_ratio(tp, total).metrics(name)
                    metrics |= {key + k.removeprefix(name): finite(value) for k, value in own_marks.items()}
                else:
                    metrics |= {key: None, f"{key}_lo": None, f"{key}_hi": None}
    return metrics


@own_torch()
def evaluate(cfg: Mapping[str, Any], model: WorldModel | None = None) -> dict[str, Any]:
    """Compare collisions with the reference simulator's.

    Args:
        cfg: ``world`` (a name, or a composed node with ``_target_``; default ``"mini"``), ``protocol`` (name of the
            reference simulator, ``"miniworld"`` or ``"homes"``), ``walks`` (``"quick"`` or ``"full"``), ``variants``
            (some of ``"latent_memory"``, the world's own depth, and ``"true_depth"``; None: both), ``output`` (folder
            for ``collision.json``; None writes nothing), ``cache`` (folder for true clips; None: the user's cache),
            ``batch`` (clips that go through the networks together).
        model: evaluate this one instead of ``world``.

    Returns:
        ``metrics`` and, by environment, the counts of each variant and kind.

    Raises:
        ValueError: for unknown keys and values, or when rendered truth differs from the manifest.
        ImportError: where the simulator's packages or EGL are missing.
    """
    chosen, batch = check_settings(cfg, KNOWN, VARIANTS)
    names = [name for name in VARIANTS if name in chosen]
    manifest = load_manifest(protocol=cfg.get("protocol", "miniworld")).subset(cfg.get("walks", "quick"))
    model = model or build_model(cfg)
    started = time.perf_counter()
    cache = Path(cfg["cache"]) if cfg.get("cache") else None
    clips = [from_first(clip) for clip in load_truth(manifest.walks, manifest, cache)]
    counts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names}
    environments = [walk.environment for walk in manifest.walks]
    for environment in sorted(set(environments), key=environments.index):
        simulator = open_simulator(manifest.simulator, environment, manifest.furniture)
        own = [pair for pair in zip(manifest.walks, clips, strict=True) if pair[0].environment == environment]
        for first in range(0, len(own), batch):
            _count_group(simulator, own[first : first + batch], model, counts)
        simulator.close()
        _log.info("%s: %d walks asked", environment, len(own))
    arrays = {name: np.stack(rows) for name, rows in counts.items()}
    result: dict[str, Any] = {
        "protocol": manifest.protocol,
        "subset": cfg.get("walks", "quick"),
        "marks": marks_of(arrays),
        "environments": {
            environment: {
                name: {
                    kind: dict(zip(_COUNTS, total.tolist(), strict=True))
                    for kind, total in zip(KINDS, rows[np.array(environments) == environment].sum((0, 1)), strict=True)
                }
                for name, rows in arrays.items()
            }
            for environment in sorted(set(environments))
        },
        "seconds": round(time.perf_counter() - started, 1),
    }
    if cfg.get("output"):
        write_json(result, Path(cfg["output"]) / "collision.json")
    return result


def _count_group(
    simulator: ReferenceSimulator,
    group: Sequence[tuple[Walk, Clip]],
    model: WorldModel,
    counts: Mapping[str, list[NDArray[np.int64]]],
) -> None:
    """Ask on some walks of one environment, and add a row for each to the counts."""
    clips = [clip for _, clip in group]
    perfect = [true_maps(clip, model.codec.stride) for clip in clips]
    asked = []
    for (walk, clip), maps in zip(group, perfect, strict=True):
        simulator.mount = walk.mount
        asked.append((ask(simulator, clip, maps), body_of(simulator)))
    for name, rows in counts.items():
        held = perfect if name == TRUE else learned_maps(model, clips)
        rows += [
            count(queries, maps, clip.cameras, body)
            for (queries, body), maps, clip in zip(asked, held, clips, strict=True)
        ]
