"""Plots of an evaluation, drawn without a display. Needs matplotlib, the ``report`` extra."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mirage_sim.evaluation.manifest import HELD_OUT
from mirage_sim.evaluation.metrics import Interval
from mirage_sim.evaluation.rollout import FIRST_FRAME, LATENT, NO_MEMORY, RGB_MEMORY, TRUE_DEPTH
from mirage_sim.evaluation.scores import (
    REGIONS,
    SHARP,
    STEPS,
    Scores,
    Series,
    circuit_series,
    step_series,
    suffix_of,
    walk_series,
)
from mirage_sim.evaluation.summary import scores_of

# colours that the colour-blind can tell apart, and a marker each for print
STYLES = {
    LATENT: ("latent memory", "#0072B2", "o"),
    RGB_MEMORY: ("RGB memory", "#009E73", "s"),
    NO_MEMORY: ("no memory", "#D55E00", "^"),
    TRUE_DEPTH: ("true depth", "#CC79A7", "D"),
    FIRST_FRAME: ("first frame repeated", "#777777", "x"),
}


def _figure(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10.5, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel())
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _against_steps(axis: Axes, series: Mapping[str, Mapping[str, Series]], figure: str) -> None:
    """One line with a band per variant."""
    for variant, own in series.items():
        steps = [step for step in STEPS if f"{figure}_{step}" in own]
        intervals = [own[f"{figure}_{step}"].interval() for step in steps]
        name, colour, marker = STYLES[variant]
        axis.plot(steps, [each.mean for each in intervals], color=colour, marker=marker, label=name)
        low, high = [each.low for each in intervals], [each.high for each in intervals]
        axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xlabel("steps")
    axis.set_xticks([step for step in STEPS if step != 2])


def plot_psnr(scores: Mapping[str, Scores]) -> bytes:
    """PSNR against steps, per variant: whole frame, seen and new parts. PNG."""
    series = {variant: step_series(scores[variant]) for variant in STYLES if variant in scores}
    figure, axes = _figure(1, 3, 3.7)
    for axis, region in zip(axes, REGIONS, strict=True):
        _against_steps(axis, series, f"psnr_{region}")
        axis.set_title({"whole": "whole frame", "seen": "seen from the start", "new": "new"}[region], fontsize=11)
    axes[0].set_ylabel("PSNR, dB (higher is better)")
    axes[0].legend(fontsize=8)
    return _png(figure)


def plot_sharpness(scores: Mapping[str, Scores]) -> bytes:
    """Sharpness against steps with the band that is wanted, and the depth's relative error. PNG."""
    generated = [variant for variant in STYLES if variant in scores and variant != FIRST_FRAME]
    series = {variant: step_series(scores[variant]) for variant in generated}
    figure, axes = _figure(1, 2, 3.7)
    axes[0].axhspan(*SHARP, color="#E69F00", alpha=0.2, linewidth=0, label=f"wanted, {SHARP[0]} to {SHARP[1]}")
    _against_steps(axes[0], series, "sharpness")
    axes[0].set_ylim(0, max(1.4, axes[0].get_ylim()[1]))
    axes[0].set_ylabel("sharpness (generated / true)")
    axes[0].legend(fontsize=8)
    _against_steps(axes[1], series, "abs_rel")
    axes[1].set_ylim(0, min(1.0, axes[1].get_ylim()[1]))  # beyond 1 an estimate is worse than none
    axes[1].set_ylabel("relative depth error (lower is better)")
    return _png(figure)


def _per_environment(axis: Axes, rows: Sequence[Mapping[str, Any]], gains: Mapping[str, tuple[str, str]]) -> None:
    """Paired gains of each environment with their intervals, one line per environment."""
    names = sorted({row["environment"] for row in rows}, key=lambda name: (name in HELD_OUT, name))
    for line, name in enumerate(names):
        own = [row for row in rows if row["environment"] == name]
        scores = scores_of(own)
        walked = not any("revisit_a" in variant for variant in scores.values())
        series = walk_series(scores, [name] * len(own)) if walked else circuit_series(scores)
        for offset, (gain, (label, colour)) in zip(np.linspace(-0.15, 0.15, len(gains)), gains.items(), strict=True):
            if gain in series:
                interval = series[gain].interval()
                _dot(axis, interval, line + offset, colour, label if line == 0 else None)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), [f"{name}, held out" if name in HELD_OUT else name for name in names])
    axis.invert_yaxis()
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(gains), frameon=False)


def _dot(axis: Axes, interval: Interval, line: float, colour: str, label: str | None, marker: str = "o") -> None:
    error = [[interval.mean - interval.low], [interval.high - interval.mean]]
    axis.errorbar([interval.mean], [line], xerr=error, fmt=marker, color=colour, capsize=3, label=label)


def plot_environments(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Gains at 16 steps in each environment, from ``per_walk``. PNG."""
    figure, axes = _figure(1, 1, 4.6)
    gains = {
        f"gain_16{suffix_of(variant)}": (f"over {STYLES[variant][0]}", STYLES[variant][1])
        for variant in (FIRST_FRAME, NO_MEMORY, RGB_MEMORY)
    }
    _per_environment(axes[0], rows, gains)
    axes[0].set_xlabel("paired gain in PSNR at 16 steps, dB")
    return _png(figure)


def plot_revisits(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Agreement on coming back, per variant, and the gains in each environment, from ``per_circuit``. PNG."""
    scores = scores_of(rows)
    figure, axes = _figure(1, 2, 4.6)
    series = circuit_series(scores)
    variants = [variant for variant in STYLES if variant in scores]
    lines: list[str] = []
    for name, title in (("revisit_a", "A again, against truth"), ("revisit_ab", "B again, against B")):
        for variant in variants:
            label, colour, marker = STYLES[variant]
            interval = series[name + suffix_of(variant)].interval()
            _dot(axes[0], interval, len(lines), colour, None, marker)
            lines.append(f"{title}\n{label}")
    axes[0].set_yticks(range(len(lines)), lines, fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("PSNR, dB")
    gains = {
        f"gain_revisit_a{suffix_of(variant)}": (f"A again, over {STYLES[variant][0]}", STYLES[variant][1])
        for variant in (NO_MEMORY, RGB_MEMORY)
    }
    _per_environment(axes[1], rows, gains)
    axes[1].set_xlabel("paired gain in PSNR, dB")
    return _png(figure)
