"""One run of the protocol: settings checked, truth loaded, every variant driven and scored, results written."""

import datetime
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirage_sim.build import build_world_model, instantiate
from mirage_sim.data.clips import Clip
from mirage_sim.evaluation import perceptual
from mirage_sim.evaluation.ground_truth import load_truth
from mirage_sim.evaluation.manifest import SIZE, load_manifest
from mirage_sim.evaluation.provenance import commit, cpu
from mirage_sim.evaluation.result_cache import ARRAYS, Parts, fingerprint
from mirage_sim.evaluation.rollout import FIRST_FRAME, LATENT, VARIANTS, Rollout, drive, repeat_first_frame, variants_of
from mirage_sim.evaluation.scores import POOLED, STEPS, Row, Run, Scores, circuit_row, stack, walk_row
from mirage_sim.evaluation.sheets import to_show, write_pictures
from mirage_sim.evaluation.summary import summarise, write_json
from mirage_sim.world import WorldModel

_log = logging.getLogger(__name__)

KNOWN = {"world", "protocol", "walks", "variants", "output", "cache", "batch", "memory", "latent"}


Describe = Callable[[np.ndarray], np.ndarray]  # images uint8 [N, H, W, 3] to features [N, D]


def _score(
    kind: str,
    score: Callable[[Clip, Rollout], Row],
    models: Mapping[str, WorldModel],
    clips: Sequence[Clip],
    lengths: Sequence[int],
    output: Path | None,
    batch: int,
    describe: Describe | None = None,
) -> Run:
    """Drive every variant along all clips; each batch is scored and kept before the next one is driven."""
    shown: dict[int, dict[str, np.ndarray]] = {i: {} for i in to_show(clips)}
    scores: dict[str, Scores] = {}
    features: list[np.ndarray] = []
    driven = 0
    for variant, model in models.items():
        started = time.perf_counter()
        made: dict[int, tuple[Row, dict[str, np.ndarray]]] = {}
        described = describe if variant == LATENT else None
        wanted = [
            [name for name, needed in zip(ARRAYS, (i in shown, described), strict=True) if needed]
            for i in range(len(clips))
        ]
        parts = Parts(output, model) if output else None
        for i, clip in enumerate(clips):
            if parts and (found := parts.load(kind, clip, lengths[i], wanted[i])):
                made[i] = found
        # alike lengths share a batch, so that it stays full until its end
        left = sorted((i for i in range(len(clips)) if i not in made), key=lambda i: lengths[i])
        for first in range(0, len(left), batch):
            group = left[first : first + batch]
            rollouts = drive(model, [clips[i] for i in group], [lengths[i] for i in group], batch)
            for i, rollout in zip(group, rollouts, strict=True):
                arrays = {"frames": rollout.frames} if i in shown else {}
                if described:
                    arrays["features"] = described(rollout.frames[POOLED])
                made[i] = score(clips[i], rollout), arrays
                if parts:
                    parts.save(kind, clips[i], lengths[i], *made[i])
        driven += len(left)
        seconds = time.perf_counter() - started
        _log.info("%s: %d of %d %ss driven in %.0f s", variant, len(left), len(clips), kind, seconds)
        scores[variant] = stack([made[i][0] for i in range(len(clips))])
        for i, frames in shown.items():
            frames[variant] = made[i][1]["frames"]
        if described:
            features = [made[i][1]["features"] for i in range(len(clips))]
    return Run(clips, scores, shown, driven, features)


def score_walks(
    models: Mapping[str, WorldModel],
    clips: Sequence[Clip],
    steps: int = STEPS[-1],
    output: Path | None = None,
    batch: int = 8,
    describe: Describe | None = None,
) -> Run:
    """Drive every variant along the first ``steps`` steps of all walks; the first frame repeated is one more variant.

    Args:
        models: by variant.
        clips: true walks.
        steps: to drive.
        output: folder that keeps what is measured, batch by batch; None keeps nothing.
        batch: clips that go through the networks together.
        describe: makes the run's ``features`` of what the model under test shows.
    """
    run = _score("walk", walk_row, models, clips, [steps] * len(clips), output, batch, describe)
    repeated = stack([walk_row(clip, repeat_first_frame(clip, steps)) for clip in clips])
    return replace(run, scores={**run.scores, FIRST_FRAME: repeated})


def score_circuits(
    models: Mapping[str, WorldModel], clips: Sequence[Clip], output: Path | None = None, batch: int = 8
) -> Run:
    """Drive every variant along all circuits, to their ends; arguments as of :func:`score_walks`."""
    return _score("circuit", circuit_row, models, clips, [len(clip) - 1 for clip in clips], output, batch)


def _describe(wanted: bool) -> Describe | None:
    """The network whose features ``kd_lite0`` compares; None where it is not wanted or not installed."""
    if not wanted:
        return None
    try:
        perceptual.features(np.zeros((1, *SIZE, 3), np.uint8))
    except ImportError as error:
        _log.warning("kd_lite0 is null: %s", error)
        return None
    return perceptual.features


def _kernel_marks(run: Run) -> dict[str, float | None]:
    """``kd_lite0``, its interval and its floor; all None where the run has no features."""
    true = [perceptual.features(clip.frames[POOLED].numpy()) for clip in run.clips] if run.features else []
    return perceptual.score(run.features, true)


def _folder(cfg: Mapping[str, Any], name: str) -> Path | None:
    """A folder among the settings, which exists or can be made; None where none is wanted."""
    path = Path(cfg[name]) if cfg.get(name) else None
    if path and path.exists() and not path.is_dir():
        raise ValueError(f"{name}: expected a folder, got the file {path}")
    return path


def check_settings(cfg: Mapping[str, Any], known: Collection[str], variants: Sequence[str]) -> tuple[list[str], int]:
    """Variants and batch of an evaluation's settings, usable, before anything takes time.

    Args:
        cfg: the settings; ``variants`` (all if missing or None) and ``batch`` (8 if missing) among them.
        known: keys that may be there.
        variants: names to choose from.

    Raises:
        ValueError: for an unknown key or variant, or an unusable batch.
    """
    if unknown := sorted(set(cfg) - set(known)):
        raise ValueError(f"cfg: expected keys among {sorted(known)}, got {unknown}")
    batch = cfg.get("batch", 8)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch: expected a positive integer, got {batch!r}")
    given = cfg.get("variants")
    names = list(variants) if given is None else given
    if isinstance(names, str) or not names or not set(names) <= set(variants):
        raise ValueError(f"variants: expected some of {variants}, got {given!r}")
    return list(names), batch


def run_protocol(command: str, cfg: Mapping[str, Any], model: WorldModel | None, with_walks: bool) -> dict[str, Any]:
    """What ``mirage eval fidelity`` and ``mirage eval revisit`` both are.

    Args:
        command: its name; also of the JSON file and the folder of pictures in ``output``.
        cfg: see :func:`mirage_sim.evaluation.fidelity.evaluate`.
        model: evaluate this one instead of ``cfg["world"]``.
        with_walks: drive the walks as well as the circuits.

    Returns:
        The result without the figures of each clip.

    Raises:
        ValueError: for unknown keys and values, or when rendered truth differs from the manifest.
        ImportError: where truth must be rendered, and the simulator's packages or EGL are missing.
    """
    names, batch = check_settings(cfg, KNOWN, VARIANTS)
    whole = load_manifest(protocol=cfg.get("protocol", "miniworld"))
    manifest = whole.subset(cfg.get("walks", "quick"))
    output, cache = _folder(cfg, "output"), _folder(cfg, "cache")
    if model is None:
        world = cfg.get("world", "mini")
        model = build_world_model(world) if isinstance(world, str) else instantiate(world)
    models = variants_of(model, names)
    started = time.perf_counter()
    truth = {
        kind: load_truth(chosen, manifest, cache)
        for kind, chosen in (
            ("walks", manifest.walks if with_walks else ()),
            ("circuits", manifest.circuits),
            ("pairs", manifest.pairs if with_walks and LATENT in names else ()),
        )
    }
    describe = _describe(with_walks and LATENT in names and cfg.get("walks") == "full")
    walks = score_walks(models, truth["walks"], STEPS[-1], output, batch, describe) if with_walks else None
    circuits = score_circuits(models, truth["circuits"], output, batch)
    pairs = score_walks({LATENT: model}, truth["pairs"], STEPS[-1], output, batch) if truth["pairs"] else None
    runs = [run for run in (walks, circuits, pairs) if run]
    result: dict[str, Any] = {
        "command": command,
        "subset": cfg.get("walks", "quick"),
        "manifest": whole.sha256,
        "model": fingerprint(model),
        "cpu": cpu(),
        "commit": commit(),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **summarise(manifest.protocol, walks, circuits, pairs),
        "driven": sum(run.driven for run in runs),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if walks:
        result["marks"] |= _kernel_marks(walks)
    if output:
        write_pictures(output / command, walks, circuits)
        write_json(result, output / f"{command}.json")
    return {key: value for key, value in result.items() if not key.startswith("per_")}
