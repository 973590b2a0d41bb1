"""``mirage eval calibration``: does the remembered mask say which pixels are right?

The frames are those of ``mirage eval counterfactual``. A pixel is wrong if the mean absolute difference of its RGB
values from the true frame exceeds 0.1, in [0, 1]. The mask predicts that generated pixels are wrong.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirage_sim.ambient import own_torch
from mirage_sim.evaluation.counterfactual import ForkRun, runs_of
from mirage_sim.evaluation.metrics import Interval, bootstrap_ratio, resampling_weights
from mirage_sim.evaluation.summary import finite, write_json
from mirage_sim.settings import CalibrationSettings
from mirage_sim.world import WorldModel

WRONG = 0.1  # mean absolute RGB error in [0, 1]
COVERAGES = tuple(np.linspace(0.1, 1.0, 10).round(1).tolist())  # points of the risk-coverage curve

Array = NDArray[np.float64]


def counts_of(run: ForkRun) -> dict[str, float]:
    """Count the pixels of all frames after the start.

    Returns:
        Pixels that are wrong and right, of generated and of remembered ones, and the sum of errors of each.
    """
    true, generated = (frames[:, 1:].astype(np.float32) / 255 for frames in (run.true, run.generated))
    error = np.abs(generated - true).mean(-1)
    remembered, wrong = run.remembered[:, 1:], error > WRONG
    counts: dict[str, float] = {}
    for name, part in (("generated", ~remembered), ("remembered", remembered)):
        counts[f"wrong_{name}"] = float((part & wrong).sum())
        counts[f"right_{name}"] = float((part & ~wrong).sum())
        counts[f"error_{name}"] = float(error[part].sum(dtype=np.float64))
    return counts


def auroc_of(wrong_generated: Array, wrong: Array, right_generated: Array, right: Array) -> Array:
    """Return the AUROC of a binary prediction from numbers of pixels; NaN where a class is empty.

    This is (1 + true positive rate - false positive rate) / 2, with ties counted as one half.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((1 + wrong_generated / wrong - right_generated / right) / 2)


def bootstrap_auroc(column: dict[str, Array], seed: int = 0) -> Interval:
    """Return the AUROC over the pixels of all scenes, with scenes resampled."""
    columns = [
        column["wrong_generated"],
        column["wrong_generated"] + column["wrong_remembered"],
        column["right_generated"],
        column["right_generated"] + column["right_remembered"],
    ]
    weights = resampling_weights(len(columns[0]), seed)
    draws = auroc_of(*(weights @ values for values in columns))
    mean = float(auroc_of(*(np.array(values.sum()) for values in columns)))
    low, high = np.nanpercentile(draws, [2.5, 97.5]) if np.isfinite(draws).any() else (np.nan, np.nan)
    return Interval(mean, float(low), float(high), len(columns[0]))


def risk_at(coverage: float, share: float, remembered: float, generated: float) -> float:
    """Return the mean error of the most trusted share of pixels, remembered ones first, in random order within both.

    Args:
        coverage: share of pixels that are kept, in (0, 1].
        share: of pixels that are remembered.
        remembered: mean error of remembered pixels.
        generated: mean error of generated pixels.
    """
    kept = min(coverage, share)
    return (kept * remembered + (coverage - kept) * generated) / coverage


def metrics_of(rows: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """Return the metrics over scenes with 95 % intervals (``_lo``, ``_hi``); None where nothing was measured."""
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    pixels = {part: column[f"wrong_{part}"] + column[f"right_{part}"] for part in ("generated", "remembered")}
    everything = pixels["generated"] + pixels["remembered"]
    intervals = {"auroc": bootstrap_auroc(column), "remembered": bootstrap_ratio(pixels["remembered"], everything)}
    intervals["risk"] = bootstrap_ratio(column["error_generated"] + column["error_remembered"], everything)
    metrics: dict[str, float | None] = {"scenes": float(len(rows))}
    for part in ("generated", "remembered"):
        if pixels[part].sum():
            intervals[f"risk_{part}"] = bootstrap_ratio(column[f"error_{part}"], pixels[part])
            intervals[f"wrong_{part}"] = bootstrap_ratio(column[f"wrong_{part}"], pixels[part])
        else:
            metrics |= {f"risk_{part}": None, f"wrong_{part}": None}
    for name, interval in intervals.items():
        metrics |= {key: finite(value) for key, value in interval.metrics(name).items()}
    return metrics


@own_torch()
def evaluate(settings: CalibrationSettings, model: WorldModel | None = None) -> dict[str, Any]:
    """Measure how well the remembered mask predicts errors.

    Args:
        settings: of the command.
        model: evaluate this one instead of ``settings.world``.

    Returns:
        ``marks`` with intervals, ``risk_coverage``: pairs of coverage and mean error, and ``per_scene``.

    Raises:
        ImportError: if the simulator's packages or EGL are missing.
        ValueError: if furniture has not been prepared.
    """
    started = time.perf_counter()
    counted = [(scene, counts_of(run)) for scene, run in runs_of(settings, model)]
    marks = metrics_of([counts for _, counts in counted])
    share, kept, left = (marks[name] for name in ("remembered", "risk_remembered", "risk_generated"))
    result: dict[str, Any] = {
        "protocol": settings.protocol,
        "marks": marks,
        "risk_coverage": [
            [each, round(risk_at(each, share or 0.0, kept or 0.0, left or 0.0), 5)] for each in COVERAGES
        ],
        "per_scene": [scene._asdict() | counts for scene, counts in counted],
        "seconds": round(time.perf_counter() - started, 1),
    }
    if settings.output:
        write_json(result, Path(settings.output) / "calibration.json")
    return result
