"""``mirage eval collision``: precision and recall of collisions in the memory, compared with the reference simulator.

The world is driven along the true cameras of the manifest's walks. *Queries* ask whether a straight path is blocked.
The simulator answers them, and so does a :class:`~mirage_sim.world.Body` of the same size in the memory of that step:

* *commands*: the walk's next motion, at every camera, unless it only turns;
* *steps*: one step at full speed (0.15 m);
* *drives*: one second at full speed (ten such steps, or until one is blocked).

Steps and drives are asked at every eighth camera: from the camera itself in eight directions 45 degrees apart, and from
24 places around it in one direction each. The scene's seed draws these places from the ground seen so far, by true
depth, where the agent can stand. The agent returns to its place after every query.

A query counts only *within remembered space*: :meth:`~mirage_sim.world.LocalObstacles.is_ground_seen` of the memory
under test must find that the ground of the path is remembered, up to where the body would stop. The truth plays no part
in this. Precision and recall of "blocked" are computed over all of these queries, over each kind, and over *seen* and
*new* paths. A path is seen if the first frame shows its ground, by true depth. Over new ground the world generates
content, which need not match the simulator.
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
EVERY = 8  # steps and drives are asked at every eighth camera
DIRECTIONS, PLACES, DRIVE_STEPS = 8, 24, 10
_REACH = 8.0  # metres around the camera within which places are drawn
_COUNTS = ("tp", "fp", "fn", "tn", "unknown")


@dataclass(frozen=True)
class Query:
    """A straight path and the simulator's answer. Coordinates are x and z of the first camera's frame, in metres.

    Attributes:
        frame: index of the camera and of the memory for the query.
        kind: one of ``KINDS``.
        start: ``[2]``, where the path begins.
        way: ``[2]``, from the start to the end of the path.
        blocked: the simulator's answer.
        seen: whether the first frame shows the ground of the path, by true depth.
    """

    frame: int
    kind: str
    start: NDArray[np.float32]
    way: NDArray[np.float32]
    blocked: bool
    seen: bool


def from_first(clip: Clip) -> Clip:
    """Express a clip in the frame of its first camera (+y down), which is the world frame of learned worlds."""
    return replace(clip, c2w=invert(clip.c2w[0]) @ clip.c2w)


def true_maps(clip: Clip, stride: tuple[int, int, int]) -> list[LatentMap]:
    """The memory after each frame with a perfect depth estimator: points written with true depth."""
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
    """The world's memory after each frame, driven from the true first frame along the true cameras.

    Args:
        model: of the world; the scene's seed is the seed of its noise.
        clips: of equal length, in the frames of their first cameras.
    """
    states = [
        model.init(to_tensor(clip.frames[0].numpy(), model.device), camera[0], int(clip.source["seed"]))[0]
        for clip, camera in ((clip, clip.cameras.to(model.device)) for clip in clips)
    ]
    maps = [[state.map] for state in states]
    for t in range(1, len(clips[0])):
        states, _ = model.advance(states, [clip.cameras[t : t + 1].to(model.device) for clip in clips])
        for clip_maps, state in zip(maps, states, strict=True):
            clip_maps.append(state.map)
    return maps


def body_of(simulator: ReferenceSimulator) -> Body:
    """A body with the radius and camera height of the simulator's."""
    height = simulator.mount.height
    return Body(simulator.radius, height=height + ABOVE_CAMERA, camera_height=height)


def ask(simulator: ReferenceSimulator, truth: Clip, maps: Sequence[LatentMap]) -> list[Query]:
    """Make all queries of one walk, with the simulator's answers.

    Args:
        simulator: of the walk's environment; it is reset but not rendered.
        truth: the walk, in level axes (+y down).
        maps: memories of true depth, one per frame, from which places are drawn.
    """
    simulator.reset(int(truth.source["seed"]))
    to_simulator = simulator.camera().c2w.double() @ torch.linalg.inv(truth.c2w[0].double())
    origin = to_simulator.numpy()[[0, 2]][:, [0, 2, 3]]  # to the simulator's x and z
    rng = np.random.default_rng(int(truth.source["seed"]))
    body, drive, queries = body_of(simulator), VelocityLimits(), []
    step = drive.max_speed * drive.dt

    @cache
    def seen_at_first(t: int) -> LocalObstacles:
        return body.around(maps[0], truth.cameras[t])

    def add(t: int, kind: str, start: NDArray[np.float32], way: NDArray[np.float32], blocked: bool) -> None:
        seen = seen_at_first(t).is_ground_seen(way, start - truth.c2w[t, [0, 2], 3].numpy())
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
        ground = ground[np.lexsort(ground.T)]  # so that the draw does not depend on the order of a map's points
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
    """Count a memory's answers: ``[parts, kinds, 5]`` tp, fp, fn, tn, and queries outside remembered space."""
    counts = np.zeros((len(PARTS), len(KINDS), len(_COUNTS)), np.int64)
    around = {t: body.around(maps[t], cameras[t]) for t in {query.frame for query in queries}}
    for query in queries:
        here, start = around[query.frame], query.start - cameras.c2w[query.frame, [0, 2], 3].numpy()
        blocked = here.contact(query.way, start)[0] < math.inf
        column = (2 if query.blocked else 3) - 2 * blocked
        remembered = here.is_ground_seen(query.way, start)
        counts[0 if query.seen else 1, KINDS.index(query.kind), column if remembered else 4] += 1
    return counts


def metrics_of(counts: Mapping[str, NDArray[np.int64]]) -> dict[str, float | None]:
    """Metrics from counts ``[walks, parts, kinds, 5]`` of each variant, with 95 % bootstrap intervals over walks.

    Names end with the kind or the part, if any, and with ``_true_depth`` for the memory of true depth.
    """
    metrics: dict[str, float | None] = {"walks": len(next(iter(counts.values())))}
    for variant, own in counts.items():
        end = "" if variant == ESTIMATED else f"_{variant}"
        groups = [
            ("", own.sum((1, 2))),
            *((f"_{part}", own[:, i].sum(1)) for i, part in enumerate(PARTS)),
            *((f"_{kind}", own[:, :, i].sum(1)) for i, kind in enumerate(KINDS)),
        ]
        for group, (tp, fp, fn, tn, unknown) in ((name, rows.T) for name, rows in groups):
            inside = int((tp + fp + fn + tn).sum())
            metrics |= {
                f"probes{group}{end}": inside,
                f"blocked{group}{end}": int((tp + fn).sum()),
                f"unknown{group}{end}": int(unknown.sum()),
            }
            for name, total in (("precision", tp + fp), ("recall", tp + fn)):
                key = f"{name}{group}{end}"
                if total.sum():
                    interval = bootstrap_ratio(tp, total).metrics(name)
                    metrics |= {key + k.removeprefix(name): finite(value) for k, value in interval.items()}
                else:
                    metrics |= {key: None, f"{key}_lo": None, f"{key}_hi": None}
    return metrics


@own_torch()
def evaluate(cfg: Mapping[str, Any], model: WorldModel | None = None) -> dict[str, Any]:
    """Compare collisions in a world's memory with the reference simulator's.

    Args:
        cfg: ``world`` (a name, or a composed node with ``_target_``; default ``"mini"``), ``protocol`` (name of the
            reference simulator, ``"miniworld"`` or ``"homes"``), ``walks`` (``"quick"`` or ``"full"``), ``variants``
            (some of ``"latent_memory"``, with estimated depth, and ``"true_depth"``; None: both), ``output`` (folder
            for ``collision.json``; None writes nothing), ``cache`` (folder for true clips; None: the user's cache),
            ``batch`` (clips per batch).
        model: evaluate this one instead of ``world``.

    Returns:
        ``marks`` and, by environment, the counts of each variant and kind.

    Raises:
        ValueError: for unknown keys and values, or when rendered clips differ from the manifest.
        ImportError: if the simulator's packages or EGL are missing.
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
        _log.info("%s: queries of %d walks", environment, len(own))
    arrays = {name: np.stack(rows) for name, rows in counts.items()}
    result: dict[str, Any] = {
        "protocol": manifest.protocol,
        "subset": cfg.get("walks", "quick"),
        "marks": metrics_of(arrays),
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
    """Make and count the queries of some walks of one environment; add a row for each walk to ``counts``."""
    clips = [clip for _, clip in group]
    maps_of_truth = [true_maps(clip, model.codec.stride) for clip in clips]
    asked = []
    for (walk, clip), maps in zip(group, maps_of_truth, strict=True):
        simulator.mount = walk.mount
        asked.append((ask(simulator, clip, maps), body_of(simulator)))
    for name, rows in counts.items():
        clip_maps = maps_of_truth if name == TRUE else learned_maps(model, clips)
        rows += [
            count(queries, maps, clip.cameras, body)
            for (queries, body), maps, clip in zip(asked, clip_maps, clips, strict=True)
        ]
