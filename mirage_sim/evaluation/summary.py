"""Results of an evaluation: metrics with intervals, tables, the JSON file, and the comparison of two results."""

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
    paired_difference,
    step_series,
    walk_series,
)
from mirage_sim.io import save_json


def finite(value: float) -> float | None:
    """Round a number to four decimals for JSON; None if it is not finite."""
    return round(float(value), 4) if np.isfinite(value) else None


def _mean(values: Array) -> float | None:
    """Mean over the walks that have a value."""
    return finite(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else None


def _environments(clips: Sequence[Clip]) -> list[str]:
    return [clip.source["environment"] for clip in clips]


def _table(scores: Scores) -> dict[str, Any]:
    """Means of one variant by step: psnr and ssim of each region, sharpness, depth error, parts seen and remembered."""
    table: dict[str, Any] = {}
    for step in (step for step in STEPS if f"energy_{step}" in scores):
        row: dict[str, Any] = {
            region: {metric: _mean(scores[f"{metric}_{region}_{step}"]) for metric in ("psnr", "ssim")}
            | {"walks": int((~np.isnan(scores[f"psnr_{region}_{step}"])).sum())}
            for region in REGIONS
        }
        row["sharpness"] = finite(step_series(scores)[f"sharpness_{step}"].interval().mean)
        for name in ("abs_rel", "seen_part", "remembered"):
            row[name] = _mean(scores[f"{name}_{step}"])
        table[str(step)] = row
    return table


def _select(run: Run | None, environments: Sequence[str]) -> Run | None:
    """The part of a run in these environments; None if it is empty."""
    keep = np.isin(_environments(run.clips), environments) if run else np.zeros(0, bool)
    if run is None or not keep.any():
        return None
    scores = {variant: {name: values[keep] for name, values in own.items()} for variant, own in run.scores.items()}
    return Run([clip for clip, kept in zip(run.clips, keep, strict=True) if kept], scores, {})


def metrics_of(walks: Run | None, circuits: Run | None, pairs: Run | None = None) -> dict[str, float | None]:
    """Flat metrics: the number of clips of each kind, and each mean with its ``_lo`` and ``_hi``."""
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
    """Summarise a run: metrics, tables, environments, and the scores of each clip.

    Args:
        protocol: number of the protocol.
        walks: None if only circuits were driven.
        circuits: None if only walks were driven.
        pairs: walks in homes with seen furniture, paired with some of ``walks``; None if the protocol has none.
    """
    driven = [run for run in (walks, circuits) if run]
    environments = sorted({name for run in driven for name in _environments(run.clips)})
    result: dict[str, Any] = {
        "protocol": protocol,
        "marks": metrics_of(walks, circuits, pairs),
        "tables": {variant: _table(own) for variant, own in walks.scores.items()} if walks else {},
        "environments": {},
        "memory_nbytes": {
            variant: float(own["nbytes"].mean()) for variant, own in driven[0].scores.items() if variant != FIRST_FRAME
        },
    }
    for name in environments:
        metrics = metrics_of(_select(walks, [name]), _select(circuits, [name]))
        result["environments"][name] = {key: v for key, v in metrics.items() if not key.endswith(("_lo", "_hi"))}
    if held_out := [name for name in environments if name in HELD_OUT]:
        metrics = metrics_of(_select(walks, held_out), _select(circuits, held_out))
        result["held_out"] = {"environments": held_out, "marks": metrics}
    per_clip = {"walk": walks, "circuit": circuits} | ({"pair": pairs} if pairs else {})
    return result | {f"per_{kind}": _per_clip(run) for kind, run in per_clip.items()}


def scores_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Scores]:
    """Scores of each variant, ``[clips]``, from ``per_walk`` or ``per_circuit``; NaN where a value is missing."""
    variants = [name for name, own in rows[0].items() if isinstance(own, Mapping)] if rows else []
    return {
        variant: {
            name: np.array([np.nan if row[variant][name] is None else row[variant][name] for row in rows], np.float64)
            for name in rows[0][variant]
        }
        for variant in variants
    }


def load_result(path: Path) -> dict[str, Any]:
    """Read the JSON file of ``mirage eval fidelity`` or ``revisit``.

    Raises:
        ValueError: if the file is not such a result.
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
        raise ValueError(f"{path}: expected every walk with environment, seed and scores, got {error!r}") from error
    return content


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file atomically; make its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_json(path, content)


def _clips(result: dict[str, Any]) -> dict[str, list[tuple[str, int]]]:
    return {
        kind: [(row["environment"], row["seed"]) for row in result.get(f"per_{kind}", [])]
        for kind in ("walk", "circuit", "pair")
    }


def _describe(result: dict[str, Any]) -> str:
    clips = _clips(result)
    return (
        f"{result.get('subset', 'unknown')}: {len(clips['walk'])} walks, {len(clips['circuit'])} circuits, "
        f"protocol {result['protocol']}, manifest {str(result.get('manifest', 'not named'))[:12]}"
    )


def _check_same_walks(a: Path, first: dict[str, Any], b: Path, second: dict[str, Any]) -> None:
    manifests = {result["manifest"] for result in (first, second) if "manifest" in result}
    if len(manifests) > 1 or first["protocol"] != second["protocol"] or _clips(first) != _clips(second):
        raise ValueError(
            f"only runs on the same walks can be compared: {a} is of {_describe(first)}; {b} is of {_describe(second)}"
        )


def _common(first: dict[str, Scores], second: dict[str, Scores]) -> tuple[dict[str, Scores], dict[str, Scores]]:
    """The scores that both results have."""
    names = {variant: sorted(set(own) & set(second[variant])) for variant, own in first.items() if variant in second}
    return (
        {variant: {name: first[variant][name] for name in own} for variant, own in names.items()},
        {variant: {name: second[variant][name] for name in own} for variant, own in names.items()},
    )


def _all_series(
    walks: dict[str, Scores],
    circuits: dict[str, Scores],
    pairs: dict[str, Scores],
    clips: dict[str, list[tuple[str, int]]],
) -> dict[str, Series]:
    """All series by name: metrics have plain names, scores ``VARIANT/NAME_STEP``."""
    series = walk_series(walks, [name for name, _ in clips["walk"]]) | circuit_series(circuits)
    series |= pair_series(walks, clips["walk"], pairs, [seed for _, seed in clips["pair"]])
    for variant, own in walks.items():
        series |= {f"{variant}/{name}": each for name, each in step_series(own).items()}
    return series


def compare(a: Path, b: Path) -> dict[str, Any]:
    """Compare two results on the same walks by paired differences ``b - a`` (``mirage eval compare``).

    Args:
        a: JSON file of the first result.
        b: JSON file of the second result.

    Returns:
        ``a`` and ``b`` (where each result comes from), ``marks`` (difference of each metric, with 95 % bootstrap
        intervals over walks or circuits), and ``figures``: for each variant and score, both values, the difference and
        its interval.

    Raises:
        ValueError: if a file is not a result, or the two results are on different walks.
    """
    results = [load_result(path) for path in (a, b)]
    _check_same_walks(a, results[0], b, results[1])
    walks, circuits, pairs = (
        _common(*(scores_of(result.get(f"per_{kind}", [])) for result in results))
        for kind in ("walk", "circuit", "pair")
    )
    if not walks[0] and not circuits[0]:
        raise ValueError(f"{a}, {b}: expected a variant that both have driven, got none")
    clips = _clips(results[0])
    first, second = (_all_series(walks[i], circuits[i], pairs[i], clips) for i in (0, 1))
    metrics: dict[str, float | None] = {"walks": len(clips["walk"]), "circuits": len(clips["circuit"])}
    scores: dict[str, dict[str, Any]] = {}
    for name in first:
        difference = paired_difference(second[name], first[name])
        both = {"a": finite(first[name].interval().mean), "b": finite(second[name].interval().mean)}
        rounded = {key: finite(value) for key, value in difference.metrics("difference").items()}
        scores[name] = both | rounded | {"count": difference.count}
        if "/" not in name:
            metrics |= {key: finite(value) for key, value in difference.metrics(name).items()}
    described = ("command", "subset", "commit", "model", "cpu", "date")
    return {
        **{
            key: {"path": str(path)} | {name: result[name] for name in described if name in result}
            for key, path, result in (("a", a, results[0]), ("b", b, results[1]))
        },
        "marks": metrics,
        "figures": scores,
    }
