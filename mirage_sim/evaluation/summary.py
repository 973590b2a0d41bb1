"""From the figures of each clip to marks with intervals, tables, and the JSON that holds it all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirage_sim.data.clips import Clip
from mirage_sim.evaluation.manifest import HELD_OUT
from mirage_sim.evaluation.metrics import Array
from mirage_sim.evaluation.rollout import FIRST_FRAME
from mirage_sim.evaluation.scores import (
    REGIONS,
    STEPS,
    Run,
    Scores,
    Series,
    circuit_series,
    pair_series,
    step_series,
    walk_series,
)
from mirage_sim.io import save_json


def finite(value: float) -> float | None:
    """A number that JSON can say: four decimals, None where there is no figure."""
    return round(float(value), 4) if np.isfinite(value) else None


def _mean(values: Array) -> float | None:
    """Mean over the walks that have a figure."""
    return finite(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else None


def _environments(clips: Sequence[Clip]) -> list[str]:
    return [clip.source["environment"] for clip in clips]


def _table(own: Scores) -> dict[str, Any]:
    """Means of one variant per step: regions with psnr and ssim, sharpness, depth error, parts seen and remembered."""
    table: dict[str, Any] = {}
    for step in (step for step in STEPS if f"energy_{step}" in own):
        row: dict[str, Any] = {
            region: {metric: _mean(own[f"{metric}_{region}_{step}"]) for metric in ("psnr", "ssim")}
            | {"walks": int((~np.isnan(own[f"psnr_{region}_{step}"])).sum())}
            for region in REGIONS
        }
        row["sharpness"] = finite(step_series(own)[f"sharpness_{step}"].interval().mean)
        for name in ("abs_rel", "seen_part", "remembered"):
            row[name] = _mean(own[f"{name}_{step}"])
        table[str(step)] = row
    return table


def _part(run: Run | None, environments: Sequence[str]) -> Run | None:
    """The clips of these environments; None where there are none."""
    keep = np.isin(_environments(run.clips), environments) if run else np.zeros(0, bool)
    if run is None or not keep.any():
        return None
    scores = {variant: {name: v[keep] for name, v in own.items()} for variant, own in run.scores.items()}
    return Run([clip for clip, kept in zip(run.clips, keep, strict=True) if kept], scores, {})


def marks_of(walks: Run | None, circuits: Run | None, pairs: Run | None = None) -> dict[str, float | None]:
    """The marks, flat: how many clips of each kind, and each mean with its ``_lo`` and ``_hi``."""
    metrics: dict[str, float | None] = {}
    series: dict[str, Series] = {}
    if walks:
        metrics["walks"] = len(walks.clips)
        series |= walk_series(walks.scores, _environments(walks.clips))
    if circuits:
        metrics["circuits"] = len(circuits.clips)
        series |= circuit_series(circuits.scores)
    if walks and pairs:
        metrics["pairs"] = len(pairs.clips)
        series |= pair_series(
            walks.scores,
            [(clip.source["environment"], int(clip.source["seed"])) for clip in walks.clips],
            pairs.scores,
            [int(clip.source["seed"]) for clip in pairs.clips],
        )
    for name, each in series.items():
        metrics |= {key: finite(value) for key, value in each.interval().metrics(name).items()}
    return metrics


def _per_clip(run: Run | None) -> list[dict[str, Any]]:
    if run is None:
        return []
    return [
        {"environment": clip.source["environment"], "seed": int(clip.source["seed"])}
        | {variant: {name: finite(values[i]) for name, values in own.items()} for variant, own in run.scores.items()}
        for i, clip in enumerate(run.clips)
    ]


def summarise(protocol: int, walks: Run | None, circuits: Run | None, pairs: Run | None = None) -> dict[str, Any]:
    """All figures of a run: marks, tables, environments, and each clip's own figures.

    Args:
        protocol: its number.
        walks: None where only circuits were driven.
        circuits: None where only walks were driven.
        pairs: walks in homes with seen furniture, which belong to some of ``walks``; None where the protocol has none.
    """
    driven = [run for run in (walks, circuits) if run]
    environments = sorted({name for run in driven for name in _environments(run.clips)})
    result: dict[str, Any] = {
        "protocol": protocol,
        "marks": marks_of(walks, circuits, pairs),
        "tables": {variant: _table(own) for variant, own in walks.scores.items()} if walks else {},
        "environments": {},
        "memory_nbytes": {
            variant: float(own["nbytes"].mean()) for variant, own in driven[0].scores.items() if variant != FIRST_FRAME
        },
    }
    for name in environments:
        metrics = marks_of(_part(walks, [name]), _part(circuits, [name]))
        result["environments"][name] = {key: v for key, v in metrics.items() if not key.endswith(("_lo", "_hi"))}
    if held_out := [name for name in environments if name in HELD_OUT]:
        metrics = marks_of(_part(walks, held_out), _part(circuits, held_out))
        result["held_out"] = {"environments": held_out, "marks": metrics}
    per_clip = {"walk": walks, "circuit": circuits} | ({"pair": pairs} if pairs else {})
    return result | {f"per_{kind}": _per_clip(run) for kind, run in per_clip.items()}


def scores_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Scores]:
    """The way back from ``per_walk`` or ``per_circuit``: per variant ``[clips]`` each, NaN where there is no figure."""
    variants = [name for name, own in rows[0].items() if isinstance(own, Mapping)] if rows else []
    return {
        variant: {
            name: np.array([np.nan if row[variant][name] is None else row[variant][name] for row in rows], np.float64)
            for name in rows[0][variant]
        }
        for variant in variants
    }


def load_result(path: Path) -> dict[str, Any]:
    """Read what ``mirage eval fidelity`` or ``revisit`` wrote.

    Raises:
        ValueError: naming the file, if it is not such a result.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the JSON that mirage eval fidelity or revisit wrote: {error}") from error
    if not isinstance(content, dict) or not {"protocol", "marks", "per_walk", "per_circuit"} <= set(content):
        raise ValueError(f"{path}: expected the JSON that mirage eval fidelity or revisit wrote, with per_walk")
    try:
        for rows in (content["per_walk"], content["per_circuit"], content.get("per_pair", [])):
            [(row["environment"], row["seed"]) for row in rows]
            scores_of(rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected every walk with environment, seed and figures, got {error!r}") from error
    return content


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write JSON; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_json(path, content)
