"""Statistics of the features of a LeRobotDataset, by which learners normalise."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_PIXELS = 2**18  # of an episode that count, about; all of them would take longer than the videos

Statistics = dict[str, dict[str, Any]]


def statistics_of(rows: np.ndarray) -> dict[str, Any]:
    """Return minimum, maximum, mean, standard deviation, quantiles and count of a feature's rows.

    Args:
        rows: numbers ``[N]`` or ``[N, D]``, or images: uint8 colours ``[N, H, W, 3]``, masks or depth ``[N, H, W]``.

    Returns:
        Lists of D numbers; for images one number per channel, ``[C][1][1]``. Colours and masks are in ``[0, 1]``; a
        mask has three equal channels. Of many pixels a regular grid counts. ``count`` is ``[N]``.
    """
    shape: tuple[int, ...] = (-1,)
    values = rows
    if rows.ndim >= 3:
        every = math.ceil(math.sqrt(math.prod(rows.shape[:3]) / _PIXELS))  # in rows and columns of pixels
        every = min(every, max(1, min(rows.shape[1:3]) // 8))  # so that long episodes count in the whole image
        values = rows[:, ::every, ::every] / (255.0 if rows.dtype == np.uint8 else 1.0)
        values = values.reshape(-1, rows.shape[3] if rows.ndim == 4 else 1)
        values = np.repeat(values, 3, axis=1) if rows.dtype == np.bool_ else values
        shape = (-1, 1, 1)
    values = values.reshape(len(values), -1).astype(np.float64)
    quantiles = dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))
    found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0), **quantiles}
    return {name: value.reshape(shape).tolist() for name, value in found.items()} | {"count": [len(rows)]}


def combine_statistics(episodes: Sequence[Statistics]) -> Statistics:
    """Combine the statistics of episodes, by feature. Quantiles are averages weighted by length, as LeRobot's."""
    return {key: _combine([episode[key] for episode in episodes]) for key in episodes[0]}


def _combine(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    stacked = {name: np.array([part[name] for part in parts]) for name in parts[0]}
    count = stacked["count"][:, 0]

    def average(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.average(values, axis=0, weights=count))

    mean = average(stacked["mean"])
    found = {"min": stacked["min"].min(0), "max": stacked["max"].max(0), "mean": mean}
    found["std"] = np.sqrt(average(stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2))
    found |= {name: average(stacked[name]) for name in QUANTILES}
    return {name: value.tolist() for name, value in found.items()} | {"count": [int(count.sum())]}
