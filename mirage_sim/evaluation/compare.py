"""``mirage eval compare``: two runs on the same walks, by paired differences."""

from pathlib import Path
from typing import Any

from mirage_sim.evaluation.scores import (
    Scores,
    Series,
    circuit_series,
    pair_series,
    paired_difference,
    step_series,
    walk_series,
)
from mirage_sim.evaluation.summary import finite, load_result, scores_of


def _clips(result: dict[str, Any]) -> dict[str, list[tuple[str, int]]]:
    return {
        kind: [(row["environment"], row["seed"]) for row in result.get(f"per_{kind}", [])]
        for kind in ("walk", "circuit", "pair")
    }


def _summary(result: dict[str, Any]) -> str:
    clips = _clips(result)
    return (
        f"{result.get('subset', 'unknown')}: {len(clips['walk'])} walks, {len(clips['circuit'])} circuits, "
        f"protocol {result['protocol']}, manifest {str(result.get('manifest', 'not named'))[:12]}"
    )


def _check_alike(a: Path, first: dict[str, Any], b: Path, second: dict[str, Any]) -> None:
    manifests = {result["manifest"] for result in (first, second) if "manifest" in result}
    if len(manifests) > 1 or first["protocol"] != second["protocol"] or _clips(first) != _clips(second):
        raise ValueError(
            f"only runs on the same walks can be compared: {a} is of {_summary(first)}; {b} is of {_summary(second)}"
        )


def _common(first: dict[str, Scores], second: dict[str, Scores]) -> tuple[dict[str, Scores], dict[str, Scores]]:
    """The variants and figures that both have."""
    names = {variant: sorted(set(own) & set(second[variant])) for variant, own in first.items() if variant in second}
    return (
        {variant: {name: first[variant][name] for name in own} for variant, own in names.items()},
        {variant: {name: second[variant][name] for name in own} for variant, own in names.items()},
    )


def _every(
    walks: dict[str, Scores],
    circuits: dict[str, Scores],
    pairs: dict[str, Scores],
    clips: dict[str, list[tuple[str, int]]],
) -> dict[str, Series]:
    """All series by name; marks have plain names, others are ``VARIANT/figure_step``."""
    series = walk_series(walks, [name for name, _ in clips["walk"]]) | circuit_series(circuits)
    series |= pair_series(walks, clips["walk"], pairs, [seed for _, seed in clips["pair"]])
    for variant, own in walks.items():
        series |= {f"{variant}/{name}": each for name, each in step_series(own).items()}
    return series


def compare(a: Path, b: Path) -> dict[str, Any]:
    """Paired differences ``b - a`` of every figure, with 95 % bootstrap intervals over walks or circuits.

    Args:
        a: JSON of a run, the one before.
        b: JSON of a run on the same walks, the one after.

    Returns:
        ``a`` and ``b`` (what each file is), ``metrics`` (difference of each mark, with ``_lo`` and ``_hi``), and
        ``scores``: per variant and figure its value in both runs, the difference and its interval.

    Raises:
        ValueError: if a file is not a run's, or the two were not driven on the same walks.
    """
    results = [load_result(path) for path in (a, b)]
    _check_alike(a, results[0], b, results[1])
    walks, circuits, pairs = (
        _common(*(scores_of(result.get(f"per_{kind}", [])) for result in results))
        for kind in ("walk", "circuit", "pair")
    )
    if not walks[0] and not circuits[0]:
        raise ValueError(f"{a}, {b}: expected a variant that both have driven, got none")
    clips = _clips(results[0])
    first, second = (_every(walks[i], circuits[i], pairs[i], clips) for i in (0, 1))
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
