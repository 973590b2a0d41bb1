"""Runs of a protocol: check settings, load true clips, drive and score every variant, and write the results."""

import datetime
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirage_sim.ambient import own_torch
from mirage_sim.build import build_world_model, instantiate
from mirage_sim.data.clips import Clip
from mirage_sim.evaluation import perceptual
from mirage_sim.evaluation.doctor import commit, cpu
from mirage_sim.evaluation.ground_truth import load_truth
from mirage_sim.evaluation.manifest import SIZE, load_manifest
from mirage_sim.evaluation.media import to_show, write_media
from mirage_sim.evaluation.result_cache import ARRAYS, ResultCache, fingerprint
from mirage_sim.evaluation.rollout import FIRST_FRAME, LATENT, VARIANTS, Rollout, drive, repeat_first_frame, variants_of
from mirage_sim.evaluation.scores import POOLED, STEPS, Row, Run, Scores, circuit_row, stack, walk_row
from mirage_sim.evaluation.summary import summarise, write_json
from mirage_sim.world import WorldModel

_log = logging.getLogger(__name__)

KNOWN = {"world", "protocol", "walks", "variants", "output", "cache", "batch", "memory", "latent"}
COMMANDS = {"fidelity": True, "revisit": False}  # whether a command drives walks as well as circuits

Describe = Callable[[np.ndarray], np.ndarray]  # images uint8 [N, H, W, 3] to features [N, D]
Arrays = dict[str, np.ndarray]


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
    """Drive and score every variant along all clips."""
    shown: dict[int, dict[str, np.ndarray]] = {i: {} for i in to_show(clips)}
    scores: dict[str, Scores] = {}
    features: list[np.ndarray] = []
    driven = 0
    for variant, model in models.items():
        started = time.perf_counter()
        variant_describe = describe if variant == LATENT else None

        def arrays_of(i: int, rollout: Rollout, describe: Describe | None = variant_describe) -> Arrays:
            arrays = {"frames": rollout.frames} if i in shown else {}
            return arrays | ({"features": describe(rollout.frames[POOLED])} if describe else {})

        wanted = [
            [name for name, needed in zip(ARRAYS, (i in shown, variant_describe), strict=True) if needed]
            for i in range(len(clips))
        ]
        cache = ResultCache(output, model) if output else None
        results, new = _score_variant(kind, score, model, clips, lengths, wanted, arrays_of, cache, batch)
        driven += new
        seconds = time.perf_counter() - started
        _log.info("%s: %d of %d %ss driven in %.0f s", variant, new, len(clips), kind, seconds)
        scores[variant] = stack([row for row, _ in results])
        for i, frames in shown.items():
            frames[variant] = results[i][1]["frames"]
        if variant_describe:
            features = [arrays["features"] for _, arrays in results]
    return Run(clips, scores, shown, driven, features)


def _score_variant(
    kind: str,
    score: Callable[[Clip, Rollout], Row],
    model: WorldModel,
    clips: Sequence[Clip],
    lengths: Sequence[int],
    wanted: Sequence[Collection[str]],
    arrays_of: Callable[[int, Rollout], Arrays],
    cache: ResultCache | None,
    batch: int,
) -> tuple[list[tuple[Row, Arrays]], int]:
    """Scores and wanted arrays of each clip, cached or driven now; and how many were driven.

    Each batch is scored and cached before the next one is driven.
    """
    results: dict[int, tuple[Row, Arrays]] = {}
    for i, clip in enumerate(clips):
        if cache and (found := cache.load(kind, clip, lengths[i], wanted[i])):
            results[i] = found
    # clips of similar length share a batch, so that it stays full until its end
    missing = sorted((i for i in range(len(clips)) if i not in results), key=lambda i: lengths[i])
    for first in range(0, len(missing), batch):
        group = missing[first : first + batch]
        rollouts = drive(model, [clips[i] for i in group], [lengths[i] for i in group], batch)
        for i, rollout in zip(group, rollouts, strict=True):
            results[i] = score(clips[i], rollout), arrays_of(i, rollout)
            if cache:
                cache.save(kind, clips[i], lengths[i], *results[i])
    return [results[i] for i in range(len(clips))], len(missing)


def score_walks(
    models: Mapping[str, WorldModel],
    clips: Sequence[Clip],
    steps: int = STEPS[-1],
    output: Path | None = None,
    batch: int = 8,
    describe: Describe | None = None,
) -> Run:
    """Drive and score every variant along the first ``steps`` steps of all walks, and the first frame repeated.

    Args:
        models: by name of the variant.
        clips: true walks.
        steps: to drive.
        output: folder that caches scores, batch by batch; None for no cache.
        batch: clips per batch.
        describe: computes the run's ``features`` from images of the model under test.
    """
    run = _score("walk", walk_row, models, clips, [steps] * len(clips), output, batch, describe)
    repeated = stack([walk_row(clip, repeat_first_frame(clip, steps)) for clip in clips])
    return replace(run, scores={**run.scores, FIRST_FRAME: repeated})


def score_circuits(
    models: Mapping[str, WorldModel], clips: Sequence[Clip], output: Path | None = None, batch: int = 8
) -> Run:
    """Drive and score every variant along all circuits, to their ends; arguments as for :func:`score_walks`."""
    return _score("circuit", circuit_row, models, clips, [len(clip) - 1 for clip in clips], output, batch)


def _describe(wanted: bool) -> Describe | None:
    """The function that computes features for ``kd_lite0``; None if not wanted or not installed."""
    if not wanted:
        return None
    try:
        perceptual.features(np.zeros((1, *SIZE, 3), np.uint8))
    except ImportError as error:
        _log.warning("kd_lite0 is null: %s", error)
        return None
    return perceptual.features


def _kernel_distance(run: Run) -> dict[str, float | None]:
    """``kd_lite0``, its interval and its floor; all None if the run has no features."""
    true = [perceptual.features(clip.frames[POOLED].numpy()) for clip in run.clips] if run.features else []
    return perceptual.score(run.features, true)


def _folder(cfg: Mapping[str, Any], name: str) -> Path | None:
    """The folder that a setting names; None if it is unset."""
    path = Path(cfg[name]) if cfg.get(name) else None
    if path and path.exists() and not path.is_dir():
        raise ValueError(f"{name}: expected a folder, got the file {path}")
    return path


def check_settings(cfg: Mapping[str, Any], known: Collection[str], variants: Sequence[str]) -> tuple[list[str], int]:
    """Check the settings of an evaluation, and return its variants and batch size.

    Args:
        cfg: the settings; ``variants`` (all if missing or None) and ``batch`` (8 if missing) among them.
        known: allowed keys.
        variants: allowed names of variants.

    Raises:
        ValueError: for an unknown key or variant, or an unusable batch.
    """
    if unknown := sorted(set(cfg) - set(known)):
        raise ValueError(f"cfg: expected keys among {sorted(known)}, got {unknown}")
    batch = cfg.get("batch", 8)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch: expected a positive integer, got {batch!r}")
    chosen = cfg.get("variants")
    names = list(variants) if chosen is None else chosen
    if isinstance(names, str) or not names or not set(names) <= set(variants):
        raise ValueError(f"variants: expected some of {variants}, got {chosen!r}")
    return list(names), batch


def build_model(cfg: Mapping[str, Any]) -> WorldModel:
    """Build ``cfg["world"]``: a name (default ``"mini"``), or a composed node with ``_target_``."""
    world = cfg.get("world", "mini")
    model: WorldModel = build_world_model(world) if isinstance(world, str) else instantiate(world)
    return model


@own_torch()
def evaluate(command: str, cfg: Mapping[str, Any], model: WorldModel | None = None) -> dict[str, Any]:
    """Run ``mirage eval fidelity`` (all walks and circuits of a protocol) or ``mirage eval revisit`` (circuits alone).

    Args:
        command: a key of ``COMMANDS``; also the name of the JSON file and of the folder of images in ``output``.
        cfg: ``world`` (a name, or a composed node with ``_target_``; default ``"mini"``), ``protocol`` (name of the
            reference simulator, ``"miniworld"`` or ``"homes"``), ``walks`` (``"quick"`` or ``"full"``), ``variants``
            (some of ``VARIANTS``; None: all), ``output`` (folder for the result, images, videos, and cached scores, so
            that a stopped run continues and ``revisit`` takes the circuits of ``fidelity``; None writes nothing),
            ``cache`` (folder for true clips; None: the user's cache), ``batch`` (clips per batch).
        model: evaluate this one instead of ``cfg["world"]``.

    Returns:
        ``marks`` (flat, the means with ``_lo`` and ``_hi``), ``held_out``, ``environments``, ``tables`` and more, all
        fit for JSON; see ``docs/protocol.md``. Only the file in ``output`` has the scores of each clip.

    Raises:
        ValueError: for unknown keys and values, or when rendered clips differ from the manifest.
        ImportError: if clips must be rendered, and the simulator's packages or EGL are missing.
    """
    names, batch = check_settings(cfg, KNOWN, VARIANTS)
    with_walks = COMMANDS[command]
    full = load_manifest(protocol=cfg.get("protocol", "miniworld"))
    subset = cfg.get("walks", "quick")
    manifest = full.subset(subset)
    output, cache = _folder(cfg, "output"), _folder(cfg, "cache")
    model = model or build_model(cfg)
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
    describe = _describe(with_walks and LATENT in names and subset == "full")
    walks = score_walks(models, truth["walks"], STEPS[-1], output, batch, describe) if with_walks else None
    circuits = score_circuits(models, truth["circuits"], output, batch)
    pairs = score_walks({LATENT: model}, truth["pairs"], STEPS[-1], output, batch) if truth["pairs"] else None
    result: dict[str, Any] = {
        "command": command,
        "subset": subset,
        "manifest": full.sha256,
        "model": fingerprint(model),
        "cpu": cpu(),
        "commit": commit(),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **summarise(manifest.protocol, walks, circuits, pairs),
        "driven": sum(run.driven for run in (walks, circuits, pairs) if run),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if walks:
        result["marks"] |= _kernel_distance(walks)
    if output:
        write_media(output / command, walks, circuits)
        write_json(result, output / f"{command}.json")
    return {key: value for key, value in result.items() if not key.startswith("per_")}
