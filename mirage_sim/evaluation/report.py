"""``mirage eval report``: one HTML page about an evaluation, without network access or scripts.

Needs matplotlib and jinja2, the ``report`` extra. The template is ``report.html`` beside this module.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mirage_sim.evaluation.manifest import HELD_OUT
from mirage_sim.evaluation.metrics import Interval
from mirage_sim.evaluation.rollout import FIRST_FRAME, LATENT, NO_MEMORY, RGB_MEMORY, TITLES, TRUE_DEPTH
from mirage_sim.evaluation.runner import COMMANDS
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
from mirage_sim.evaluation.summary import load_result, scores_of
from mirage_sim.io import atomic_write
from mirage_sim.models.pretrained import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC_TITLES = {
    "psnr_1": "PSNR after 1 step, dB",
    "psnr_16": "PSNR after 16 steps, dB",
    "seen_psnr_1": "PSNR of what was in the first frame, 1 step, dB",
    "seen_psnr_16": "PSNR of what was in the first frame, 16 steps, dB",
    "sharpness_1": "sharpness after 1 step",
    "sharpness_4": "sharpness after 4 steps",
    "sharpness_16": "sharpness after 16 steps",
    "absrel_1": "relative depth error after 1 step",
    "absrel_16": "relative depth error after 16 steps",
    "revisit_a": "second visit of A, compared with the truth (revisit_a), dB",
    "revisit_ab": "second visit of B, compared with the first (revisit_ab), dB",
    "sharpness_b": "sharpness of the images at B",
    "kd_lite0": "kernel distance to the true images (kd_lite0)",
}
GAIN_TITLES = {
    "gain_1": "PSNR after 1 step, dB",
    "gain_16": "PSNR after 16 steps, dB",
    "gain_revisit_a": "second visit of A, compared with the truth, dB",
    "gain_revisit_ab": "second visit of B, compared with the first, dB",
}
CLIPS = (  # kind, title, caption, CSS class of its contact sheets
    ("walk", "Walks", "The truth, and images generated from the first frame alone.", "wide"),
    ("circuit", "Circuits", "From A to B, back to A, and to B again: each place should look the same twice.", "grid"),
)
# colours that colour-blind people can distinguish, and a marker each for print
STYLES = {
    LATENT: ("#0072B2", "o"),
    RGB_MEMORY: ("#009E73", "s"),
    NO_MEMORY: ("#D55E00", "^"),
    TRUE_DEPTH: ("#CC79A7", "D"),
    FIRST_FRAME: ("#777777", "x"),
}
_QUALITY = 92  # of JPEG: sharpness should be visible


@dataclass(frozen=True)
class Column:
    """A variant's column of a table: its title, and the suffix of its metrics."""

    title: str
    suffix: str

    def used(self, metrics: Mapping[str, Any], stems: Iterable[str]) -> bool:
        """Whether the variant has one of these metrics."""
        return any(stem + self.suffix in metrics for stem in stems)


def report(folder: Path) -> dict[str, Any]:
    """Write ``report.html`` into the output folder of an evaluation.

    Args:
        folder: with ``fidelity.json``, ``revisit.json`` or both, and their images and videos.

    Returns:
        ``page`` (path) and ``bytes``.

    Raises:
        ValueError: if the folder holds no result, or an unreadable one.
        ImportError: without matplotlib or jinja2.
    """
    found = {name: folder / f"{name}.json" for name in COMMANDS if (folder / f"{name}.json").exists()}
    if not found:
        raise ValueError(f"{folder}: expected a folder with fidelity.json or revisit.json, as mirage eval writes them")
    results = {name: load_result(path) for name, path in found.items()}
    for library in ("matplotlib", "jinja2"):
        require(library, "'mirage_sim[report]'")
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    columns = [Column(title, suffix_of(variant)) for variant, title in TITLES.items()]
    page = environment.get_template("report.html").render(
        band=SHARP,
        metric_titles=METRIC_TITLES,
        gain_titles=GAIN_TITLES,
        columns=columns,
        gain_columns=[Column(f"over {column.title}", column.suffix) for column in columns if column.suffix],
        has_row=lambda metrics, stem, columns: any(column.used(metrics, [stem]) for column in columns),
        sections=[
            {
                "name": name,
                "result": result,
                "facts": _facts(result),
                "plots": list(_plots(result)),
                "clips": [_clips(folder / name, *kind) for kind in CLIPS],
            }
            for name, result in results.items()
        ],
    )
    path = folder / "report.html"
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return {"page": str(path), "bytes": len(page.encode())}


def _facts(result: Mapping[str, Any]) -> dict[str, str]:
    """What was measured, with what, where and when."""
    metrics = result["marks"]
    counts = " and ".join(f"{metrics[kind]} {kind}" for kind in ("walks", "circuits") if kind in metrics)
    return {
        "Measured": f"mirage eval {result.get('command', 'fidelity')}, protocol {result['protocol']}, {counts}",
        "Commit": result.get("commit", "unknown"),
        "Model": f"fingerprint {result['model']}" if "model" in result else "unknown",
        "Machine": f"{result.get('cpu', 'unknown')}; torch {result.get('torch', 'unknown')}",
        "When": f"{result.get('date', 'unknown')}, {result.get('seconds', 0) / 60:.1f} minutes"
        + (f" for {result['driven']} drives" if "driven" in result else ""),
    }


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _clips(folder: Path, kind: str, title: str, caption: str, style: str) -> dict[str, Any]:
    """Video and contact sheets of the walks or circuits, where the run wrote them."""
    video = folder / f"{kind}s.mp4"
    sheets = [
        {"caption": path.stem.split("-", 1)[1].replace("-", ", scene "), "uri": _uri("image/jpeg", _jpeg(path))}
        for path in sorted(folder.glob(f"{kind}-*.png"))
    ]
    uri = _uri("video/mp4", video.read_bytes()) if video.exists() else None
    return {"title": title, "caption": caption, "style": style, "video": uri, "sheets": sheets}


def _jpeg(path: Path) -> bytes:
    """A contact sheet as JPEG without colour subsampling: a quarter of the bytes, without blurred edges."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _plots(result: Mapping[str, Any]) -> Iterable[dict[str, str]]:
    """All plots that the result has data for, as data URIs with captions."""
    band = "Bands and bars are 95 % bootstrap intervals."
    plots = []
    if walks := result["per_walk"]:
        scores = scores_of(walks)
        plots = [
            (plot_psnr(scores), f"PSNR against steps: the whole frame, the part seen from the start, the rest. {band}"),
            (plot_sharpness(scores), "Sharpness with its target band, and depth error, against steps."),
            (plot_environments(walks), f"Gains at 16 steps in each environment. {band}"),
        ]
    if circuits := result["per_circuit"]:
        plots.append((plot_revisits(circuits), f"Revisits on the circuits A, B, A, B. {band}"))
    for content, caption in plots:
        yield {"caption": caption, "uri": _uri("image/png", content)}


def plot_psnr(scores: Mapping[str, Scores]) -> bytes:
    """Plot PSNR against steps, per variant: whole frame, seen and new parts. Returns a PNG."""
    series = {variant: step_series(scores[variant]) for variant in STYLES if variant in scores}
    figure, axes = _figure(1, 3, 3.7)
    for axis, region in zip(axes, REGIONS, strict=True):
        _against_steps(axis, series, f"psnr_{region}")
        axis.set_title({"whole": "whole frame", "seen": "seen from the start", "new": "new"}[region], fontsize=11)
    axes[0].set_ylabel("PSNR, dB (higher is better)")
    axes[0].legend(fontsize=8)
    return _png(figure)


def plot_sharpness(scores: Mapping[str, Scores]) -> bytes:
    """Plot sharpness with its target band, and the relative depth error, against steps. Returns a PNG."""
    generated = [variant for variant in STYLES if variant in scores and variant != FIRST_FRAME]
    series = {variant: step_series(scores[variant]) for variant in generated}
    figure, axes = _figure(1, 2, 3.7)
    axes[0].axhspan(*SHARP, color="#E69F00", alpha=0.2, linewidth=0, label=f"target, {SHARP[0]} to {SHARP[1]}")
    _against_steps(axes[0], series, "sharpness")
    axes[0].set_ylim(0, max(1.4, axes[0].get_ylim()[1]))
    axes[0].set_ylabel("sharpness (generated / true)")
    axes[0].legend(fontsize=8)
    _against_steps(axes[1], series, "abs_rel")
    axes[1].set_ylim(0, min(1.0, axes[1].get_ylim()[1]))  # beyond 1 an estimate is worse than none
    axes[1].set_ylabel("relative depth error (lower is better)")
    return _png(figure)


def plot_environments(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot the gains at 16 steps in each environment, from ``per_walk``. Returns a PNG."""
    figure, axes = _figure(1, 1, 4.6)
    gains = {
        f"gain_16{suffix_of(variant)}": (f"over {TITLES[variant]}", STYLES[variant][0])
        for variant in (FIRST_FRAME, NO_MEMORY, RGB_MEMORY)
    }
    _per_environment(axes[0], rows, gains)
    axes[0].set_xlabel("paired gain in PSNR at 16 steps, dB")
    return _png(figure)


def plot_revisits(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot revisits of each variant, and gains in each environment, from ``per_circuit``. Returns a PNG."""
    scores = scores_of(rows)
    figure, axes = _figure(1, 2, 4.6)
    series = circuit_series(scores)
    lines: list[str] = []
    for name, title in (("revisit_a", "A again, against truth"), ("revisit_ab", "B again, against B")):
        for variant in (variant for variant in STYLES if variant in scores):
            colour, marker = STYLES[variant]
            _dot(axes[0], series[name + suffix_of(variant)].interval(), len(lines), colour, None, marker)
            lines.append(f"{title}\n{TITLES[variant]}")
    axes[0].set_yticks(range(len(lines)), lines, fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("PSNR, dB")
    gains = {
        f"gain_revisit_a{suffix_of(variant)}": (f"A again, over {TITLES[variant]}", STYLES[variant][0])
        for variant in (NO_MEMORY, RGB_MEMORY)
    }
    _per_environment(axes[1], rows, gains)
    axes[1].set_xlabel("paired gain in PSNR, dB")
    return _png(figure)


def _figure(rows: int, columns: int, height: float) -> "tuple[Figure, list[Axes]]":
    """A figure that needs no display, with its axes in reading order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel())
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _against_steps(axis: "Axes", series: Mapping[str, Mapping[str, Series]], metric: str) -> None:
    """Draw one line with its interval per variant."""
    for variant, metrics in series.items():
        steps = [step for step in STEPS if f"{metric}_{step}" in metrics]
        intervals = [metrics[f"{metric}_{step}"].interval() for step in steps]
        colour, marker = STYLES[variant]
        axis.plot(steps, [each.mean for each in intervals], color=colour, marker=marker, label=TITLES[variant])
        low, high = [each.low for each in intervals], [each.high for each in intervals]
        axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xlabel("steps")
    axis.set_xticks([step for step in STEPS if step != 2])


def _per_environment(axis: "Axes", rows: Sequence[Mapping[str, Any]], gains: Mapping[str, tuple[str, str]]) -> None:
    """Draw the paired gains of each environment with their intervals, one line per environment."""
    names = sorted({row["environment"] for row in rows}, key=lambda name: (name in HELD_OUT, name))
    for line, name in enumerate(names):
        clips = [row for row in rows if row["environment"] == name]
        scores = scores_of(clips)
        are_circuits = any("revisit_a" in variant for variant in scores.values())
        series = circuit_series(scores) if are_circuits else walk_series(scores, [name] * len(clips))
        for offset, (gain, (label, colour)) in zip(np.linspace(-0.15, 0.15, len(gains)), gains.items(), strict=True):
            if gain in series:
                _dot(axis, series[gain].interval(), line + offset, colour, label if line == 0 else None)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), [f"{name}, held out" if name in HELD_OUT else name for name in names])
    axis.invert_yaxis()
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(gains), frameon=False)


def _dot(axis: "Axes", interval: Interval, line: float, colour: str, label: str | None, marker: str = "o") -> None:
    error = [[interval.mean - interval.low], [interval.high - interval.mean]]
    axis.errorbar([interval.mean], [line], xerr=error, fmt=marker, color=colour, capsize=3, label=label)
