"""``mirage eval fidelity``: how well a learned world agrees with the true one, by protocol 1."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirage_sim.build import build_world_model, instantiate
from mirage_sim.data.clips import Clip
from mirage_sim.data.miniworld import HELD_OUT_ENVIRONMENTS
from mirage_sim.evaluation.manifest import PROTOCOL, load_manifest
from mirage_sim.evaluation.metrics import (
    Array,
    Interval,
    abs_rel,
    bootstrap_mean,
    bootstrap_ratio,
    gradient_energy,
    psnr,
    ssim,
)
from mirage_sim.evaluation.report import write_report
from mirage_sim.evaluation.revisit import revisit_figures, revisit_intervals
from mirage_sim.evaluation.rollout import (
    FIRST_FRAME,
    LATENT,
    VARIANTS,
    Rollout,
    drive,
    repeat_first_frame,
    variants_of,
)
from mirage_sim.evaluation.truth import load_truth
from mirage_sim.evaluation.visibility import seen_from
from mirage_sim.world import WorldModel

_log = logging.getLogger(__name__)

STEPS = (1, 2, 4, 8, 16, 24)
REGIONS = ("whole", "seen", "new")
Figures = dict[str, Array]  # one array [walks] per name such as "psnr_whole_16"


@dataclass(frozen=True)
class Runs:
    """True walks and circuits, and what each variant showed on them.

    Attributes:
        walks: true walks.
        circuits: true circuits.
        on_walks: per variant one rollout per walk; the first frame repeated among them.
        on_circuits: per variant one rollout per circuit.
    """

    walks: Sequence[Clip]
    circuits: Sequence[Clip]
    on_walks: Mapping[str, Sequence[Rollout]]
    on_circuits: Mapping[str, Sequence[Rollout]]


def run_variants(
    models: Mapping[str, WorldModel], walks: Sequence[Clip], circuits: Sequence[Clip], steps: int, batch: int = 8
) -> Runs:
    """Drive every variant along all walks (``steps`` steps) and all circuits (to their ends)."""
    on_walks: dict[str, Sequence[Rollout]] = {}
    on_circuits: dict[str, Sequence[Rollout]] = {}
    for name, model in models.items():
        started = time.perf_counter()
        on_walks[name] = drive(model, walks, [steps] * len(walks), batch)
        on_circuits[name] = drive(model, circuits, [len(clip) - 1 for clip in circuits], batch)
        _log.info("%s: %d walks, %d circuits in %.0f s", name, len(walks), len(circuits), time.perf_counter() - started)
    on_walks[FIRST_FRAME] = [repeat_first_frame(clip, steps) for clip in walks]
    return Runs(walks, circuits, on_walks, on_circuits)


def seen_masks(clip: Clip, steps: Sequence[int]) -> np.ndarray:
    """Where each of these steps shows what the first frame showed, by true depth: bool ``[len(steps), H, W]``."""
    at, cameras = torch.tensor(steps), clip.cameras
    return seen_from(clip.depth[at], cameras[at], clip.depth[0], cameras[0]).numpy()


def walk_figures(clips: Sequence[Clip], rollouts: Sequence[Rollout]) -> Figures:
    """Every figure of one variant, ``[walks]`` each: psnr and ssim per region and step, gradient energies, abs_rel."""
    last = min(len(rollout.frames) for rollout in rollouts) - 1
    steps = [step for step in STEPS if step <= last]
    rows: list[dict[str, float]] = []
    for clip, rollout in zip(clips, rollouts, strict=True):
        true, generated = clip.frames[steps].numpy(), rollout.frames[steps]
        seen = seen_masks(clip, steps)
        arrays = {
            "energy": gradient_energy(generated),
            "true_energy": gradient_energy(true),
            "abs_rel": abs_rel(rollout.depth[steps], clip.depth[steps].numpy()),
            "seen_part": seen.mean((-2, -1)),
            "remembered": rollout.remembered[steps],
        }
        for region, mask in zip(REGIONS, (None, seen, ~seen), strict=True):
            arrays[f"psnr_{region}"] = psnr(generated, true, mask)
            arrays[f"ssim_{region}"] = ssim(generated, true, mask)
        rows.append(
            {f"{name}_{step}": float(values[i]) for name, values in arrays.items() for i, step in enumerate(steps)}
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def walk_intervals(figures: Mapping[str, Figures]) -> dict[str, Interval]:
    """The named marks over walks, from :func:`walk_figures` of each variant; steps not driven are left out."""
    intervals: dict[str, Interval] = {}
    for variant, own in figures.items():
        suffix = "" if variant == LATENT else f"_{variant}"
        for step in (1, 16):
            if f"psnr_whole_{step}" not in own:
                continue
            intervals[f"psnr_{step}{suffix}"] = bootstrap_mean(own[f"psnr_whole_{step}"])
            intervals[f"seen_psnr_{step}{suffix}"] = bootstrap_mean(own[f"psnr_seen_{step}"])
            if variant != LATENT and LATENT in figures:
                difference = figures[LATENT][f"psnr_whole_{step}"] - own[f"psnr_whole_{step}"]
                intervals[f"gain_{step}{suffix}"] = bootstrap_mean(difference)
        for step in (1, 4, 16):
            if variant != FIRST_FRAME and f"energy_{step}" in own:
                ratio = bootstrap_ratio(own[f"energy_{step}"], own[f"true_energy_{step}"])
                intervals[f"sharpness_{step}{suffix}"] = ratio
        for step in (1, 16):
            if variant == LATENT and f"abs_rel_{step}" in own:
                intervals[f"abs_rel_{step}"] = bootstrap_mean(own[f"abs_rel_{step}"])
    return intervals


def _finite(value: float) -> float | None:
    """A number that JSON can say: None where there is no figure."""
    return round(float(value), 4) if np.isfinite(value) else None


def _mean(values: Array) -> float | None:
    """Mean over the walks that have a figure."""
    return _finite(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else None


def _table(own: Figures) -> dict[str, Any]:
    """Means of one variant per step: regions with psnr and ssim, sharpness, depth error, parts seen and remembered."""
    table: dict[str, Any] = {}
    for step in (step for step in STEPS if f"energy_{step}" in own):
        row: dict[str, Any] = {
            region: {metric: _mean(own[f"{metric}_{region}_{step}"]) for metric in ("psnr", "ssim")}
            | {"walks": int((~np.isnan(own[f"psnr_{region}_{step}"])).sum())}
            for region in REGIONS
        }
        row["sharpness"] = _finite(own[f"energy_{step}"].sum() / own[f"true_energy_{step}"].sum())
        for name in ("abs_rel", "seen_part", "remembered"):
            row[name] = _mean(own[f"{name}_{step}"])
        table[str(step)] = row
    return table


def _chosen(figures: Mapping[str, Figures], clips: Sequence[Clip], environments: Sequence[str]) -> dict[str, Figures]:
    """The figures of the clips from these environments."""
    keep = np.array([clip.source["environment"] in environments for clip in clips])
    return {variant: {name: values[keep] for name, values in own.items()} for variant, own in figures.items()}


def _marks(walks: Mapping[str, Figures], circuits: Mapping[str, Figures]) -> dict[str, float | None]:
    marks: dict[str, float | None] = {"walks": len(next(iter(walks[FIRST_FRAME].values())))}
    if circuits:
        marks["circuits"] = len(next(iter(circuits.values()))["revisit_a"])
    for name, interval in (walk_intervals(walks) | revisit_intervals(circuits)).items():
        marks |= {key: _finite(value) for key, value in interval.marks(name).items()}
    return marks


def summarise(runs: Runs) -> dict[str, Any]:
    """All figures of a run: marks (with ``_lo`` and ``_hi``), tables, environments, and each walk's own figures."""
    walks = {name: walk_figures(runs.walks, rollouts) for name, rollouts in runs.on_walks.items()}
    circuits = {name: revisit_figures(runs.circuits, rollouts) for name, rollouts in runs.on_circuits.items()}
    environments = sorted({clip.source["environment"] for clip in [*runs.walks, *runs.circuits]})
    result: dict[str, Any] = {
        "protocol": PROTOCOL,
        "marks": _marks(walks, circuits),
        "tables": {name: _table(own) for name, own in walks.items()},
        "environments": {},
        "memory_nbytes": {
            name: float(np.mean([rollout.nbytes for rollout in rollouts]))
            for name, rollouts in runs.on_walks.items()
            if name != FIRST_FRAME
        },
        "per_walk": _per_clip(runs.walks, walks),
        "per_circuit": _per_clip(runs.circuits, circuits),
    }
    held_out = [name for name in environments if name in HELD_OUT_ENVIRONMENTS]
    for name, group in [*((name, [name]) for name in environments), ("held_out", held_out)]:
        chosen = _chosen(walks, runs.walks, group), _chosen(circuits, runs.circuits, group)
        if not all(len(values) for figures in chosen for own in figures.values() for values in own.values()):
            continue
        marks = _marks(*chosen)
        if name == "held_out":
            result["held_out"] = {"environments": held_out, "marks": marks}
        else:
            result["environments"][name] = {key: v for key, v in marks.items() if not key.endswith(("_lo", "_hi"))}
    return result


def _per_clip(clips: Sequence[Clip], figures: Mapping[str, Figures]) -> list[dict[str, Any]]:
    return [
        {
            "environment": clip.source["environment"],
            "seed": int(clip.source["seed"]),
            **{variant: {name: _finite(values[i]) for name, values in own.items()} for variant, own in figures.items()},
        }
        for i, clip in enumerate(clips)
    ]


def evaluate(cfg: Mapping[str, Any], model: WorldModel | None = None) -> dict[str, Any]:
    """Run protocol 1.

    Args:
        cfg: ``world`` (a name, or a composed node with ``_target_``; default ``"mini"``), ``walks`` (``"quick"`` or
            ``"full"``), ``variants`` (some of ``VARIANTS``), ``output`` (folder for ``fidelity.json``, ``sheet.png``,
            ``revisit.png`` and ``walks.mp4``; None writes nothing), ``cache`` (folder for true clips; None: the user's
            cache), ``batch`` (clips that go through the networks together).
        model: evaluate this one instead of ``world``.

    Returns:
        ``marks`` (flat, the means with ``_lo`` and ``_hi``), ``held_out``, ``environments``, ``tables`` and more, all
        fit for JSON; see ``docs/protocol.md``. The figures of each walk are only in ``fidelity.json``.

    Raises:
        ValueError: for unknown keys and values, or when rendered truth differs from the manifest.
        ImportError: where truth must be rendered and MiniWorld or EGL is missing.
    """
    known = {"world", "walks", "variants", "output", "cache", "batch", "memory", "latent"}
    if unknown := sorted(set(cfg) - known):
        raise ValueError(f"cfg: expected keys among {sorted(known)}, got {unknown}")
    batch = cfg.get("batch", 8)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch: expected a positive integer, got {batch!r}")
    manifest = load_manifest().subset(cfg.get("walks", "quick"))
    if model is None:
        world = cfg.get("world", "mini")
        model = build_world_model(world) if isinstance(world, str) else instantiate(world)
    models = variants_of(model, cfg.get("variants") or VARIANTS)
    started = time.perf_counter()
    cache = Path(cfg["cache"]) if cfg.get("cache") else None
    walks = load_truth(manifest.walks, manifest.rendered_by, cache)
    circuits = load_truth(manifest.circuits, manifest.rendered_by, cache)
    runs = run_variants(models, walks, circuits, STEPS[-1], batch)
    result = {"subset": cfg.get("walks", "quick")} | summarise(runs)
    result["seconds"] = round(time.perf_counter() - started, 1)
    if cfg.get("output"):
        write_report(Path(cfg["output"]), result, runs.walks, runs.circuits, runs.on_walks, runs.on_circuits)
    return {key: value for key, value in result.items() if not key.startswith("per_")}
