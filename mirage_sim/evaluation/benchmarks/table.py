"""All benchmarks of speed and scale in one table: what is wanted, and what was measured."""

import json
import logging
import subprocess
import sys
from typing import Any

# of each benchmark the marks that count; "" is reported only
WANTED: dict[str, dict[str, str]] = {
    "readout": {
        "exact": "true",
        "speedup_vs_sort_300k": "at least 20",
        "speedup_vs_sort_300k_cold": "",
        "speedup_vs_sort_3m": "at least 50",
        "speedup_vs_sort_3m_cold": "",
        "over_floor_3m": "",
        "cull_ratio_5pct": "at most 0.2",
    },
    "growth": {"growth_after_first_round": "at most 0.05", "step_time_ratio": "at most 1.2", "step_work_ratio": ""},
    "bytes": {"ratio_compact": "at least 55", "ratio_fp64": "at least 100", "revisit_loss_db": "at most 0.1"},
    "fork": {"s_per_1000_forks_3m": "at most 5", "extra_bytes_ratio": "at most 1.1"},
    "retrieval": {"same": "true", "speedup_vs_sets": "at least 50"},
    "conditioning": {"ratio": "at least 500"},
    "step": {"steps_per_s": "at least 30", "end_to_end_ratio_rgb": ""},
    "vector": {"throughput_ratio_8": "at least 1.5", "identical": "true", "mib_per_extra_world": "at most 2"},
    "rollout": {"lost": "at most 0", "doubled": "at most 0", "identical": "true", "speedup_ray": ""},
    "simulators": {"homes_fps": "at least 60", "homes_build_s": "", "miniworld_fps": ""},
    "ros": {
        "images_per_s": "at least 10",
        "overhead": "at most 0.15",
        "latency_ms_p50": "",
        "latency_ms_p95": "",
        "publish_ms_640x480": "at most 3",
        "delivered_best_effort": "at least 0.95",
        "delivered_reliable": "at least 0.95",
        "lockstep_identical": "true",
        "rss_growth": "at most 0.05",
    },
}

log = logging.getLogger(__name__)


def bench_all(cfg: dict[str, Any]) -> dict[str, Any]:
    """Run the benchmarks as they stand, each in a process of its own, so that none is slowed or filled by another.

    Args:
        cfg: ``benchmarks``, some of :data:`WANTED`, or None for all.

    Returns:
        ``metrics``, named ``BENCHMARK.MARK``; ``missing``, the reason for each benchmark that could not run here; and
        ``table``, in Markdown.

    Raises:
        ValueError: for an unknown benchmark.
    """
    names = list(WANTED) if cfg["benchmarks"] is None else list(cfg["benchmarks"])
    if unknown := [name for name in names if name not in WANTED]:
        raise ValueError(f"benchmarks: expected some of {list(WANTED)}, got {unknown}")
    metrics: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in names:
        log.info("%s", name)
        try:
            metrics |= {f"{name}.{mark}": value for mark, value in run(name).items()}
        except RuntimeError as error:
            missing[name] = str(error)
    return {"marks": metrics, "missing": missing, "table": table(names, metrics, missing)}


def run(name: str, *settings: str) -> dict[str, Any]:
    """Marks of one benchmark, run in a process of its own.

    Args:
        name: of the benchmark.
        settings: such as ``"steps=7"``.

    Raises:
        RuntimeError: with the last that it said, if it fails.
    """
    command = [sys.executable, "-m", "mirage_sim.cli", "bench", name, "--json", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        raise RuntimeError(said[-1].removeprefix("mirage: error: "))
    metrics: dict[str, Any] = json.loads(done.stdout)["marks"]
    return metrics


def table(names: list[str], metrics: dict[str, Any], missing: dict[str, str]) -> str:
    """Rows of the marks that count, in Markdown; of a benchmark that is missing the reason."""
    rows = [("benchmark", "mark", "wanted", "measured", "met"), ("---",) * 5]
    for name in names:
        for mark, wanted in WANTED[name].items():
            if name in missing:
                rows.append((name, mark, wanted, f"skipped: {missing[name]}", ""))
                continue
            value = metrics[f"{name}.{mark}"]
            shown = str(value).lower() if isinstance(value, bool) else f"{value:.3g}"
            rows.append((name, mark, wanted, shown, {True: "yes", False: "no", None: ""}[meets(value, wanted)]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def meets(value: Any, wanted: str) -> bool | None:
    """Whether a mark is ``"true"``, ``"at least 20"`` or ``"at most 0.2"``, as wanted; None if nothing is wanted."""
    if not wanted:
        return None
    if wanted == "true":
        return value is True
    bound, number = wanted.rsplit(" ", 1)
    return bool(value >= float(number)) if bound == "at least" else bool(value <= float(number))
