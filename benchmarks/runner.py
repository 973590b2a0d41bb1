"""Runs benchmarks: timing in turns, counting work, and the table of targets and measurements (``mirage bench all``)."""

import gc
import importlib
import json
import logging
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mirage_sim.memory.kernels import WORK
from mirage_sim.settings import Settings
from mirage_sim.settings.benchmarks import AllBenchSettings

# benchmarks whose function is not in the module of their name; modules are imported when they are run
MODULES = {"all": "benchmarks.runner", "bytes": "benchmarks.memory_bytes"}

# the metrics of each benchmark that appear in the table, with their targets; "" has no target
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

_INDEXED = {  # operations that visit only the entries of their first argument that the other arguments name
    torch.ops.aten.index,
    torch.ops.aten.index_put,
    torch.ops.aten.index_put_,
    torch.ops.aten.index_select,
    torch.ops.aten.gather,
    torch.ops.aten.scatter_reduce_,
}

_log = logging.getLogger(__name__)


def run(name: str, settings: Settings) -> dict[str, Any]:
    """Run one benchmark in this process: ``bench_NAME`` of its module.

    Args:
        name: of the benchmark.
        settings: of the benchmark.
    """
    module = importlib.import_module(MODULES.get(name, f"benchmarks.{name}"))
    result: dict[str, Any] = getattr(module, f"bench_{name}")(settings)
    return result


def run_in_process(name: str, *settings: str) -> dict[str, Any]:
    """Run one benchmark in a new process and return its metrics.

    Args:
        name: of the benchmark.
        settings: such as ``"steps=7"``.

    Raises:
        RuntimeError: with the last line of its stderr, if it fails.
    """
    command = [sys.executable, "-m", "mirage_sim.cli", "bench", name, "--json", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        raise RuntimeError(lines[-1].removeprefix("mirage: error: "))
    metrics: dict[str, Any] = json.loads(done.stdout)["marks"]
    return metrics


def bench_all(settings: AllBenchSettings) -> dict[str, Any]:
    """Run benchmarks with their default settings, each in a new process, so that none affects another.

    Args:
        settings: of the benchmark.

    Returns:
        ``marks``, named ``BENCHMARK.METRIC``; ``missing``, the reason for each benchmark that failed; and ``table``, in
        Markdown.

    Raises:
        ValueError: for an unknown benchmark.
    """
    names = list(WANTED) if settings.benchmarks is None else list(settings.benchmarks)
    if unknown := [name for name in names if name not in WANTED]:
        raise ValueError(f"benchmarks: expected some of {list(WANTED)}, got {unknown}")
    metrics: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in names:
        _log.info("%s", name)
        try:
            metrics |= {f"{name}.{metric}": value for metric, value in run_in_process(name).items()}
        except RuntimeError as error:
            missing[name] = str(error)
    return {"marks": metrics, "missing": missing, "table": table(names, metrics, missing)}


def table(names: list[str], metrics: Mapping[str, Any], missing: Mapping[str, str]) -> str:
    """The metrics of :data:`WANTED` as a Markdown table; a missing benchmark shows its reason."""
    rows = [("benchmark", "metric", "wanted", "measured", "met"), ("---",) * 5]
    for name in names:
        for metric, wanted in WANTED[name].items():
            if name in missing:
                rows.append((name, metric, wanted, f"skipped: {missing[name]}", ""))
                continue
            value = metrics[f"{name}.{metric}"]
            text = str(value).lower() if isinstance(value, bool) else f"{value:.3g}"
            rows.append((name, metric, wanted, text, {True: "yes", False: "no", None: ""}[meets(value, wanted)]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def meets(value: Any, wanted: str) -> bool | None:
    """Whether a value meets ``"true"``, ``"at least 20"`` or ``"at most 0.2"``; None where there is no target."""
    if not wanted:
        return None
    if wanted == "true":
        return value is True
    bound, number = wanted.rsplit(" ", 1)
    return bool(value >= float(number)) if bound == "at least" else bool(value <= float(number))


def timed(call: Callable[[], Any]) -> float:
    """Wall time of one call, in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def side_by_side(repeats: int, *calls: Callable[[], Any], again: int = 0) -> list[float]:
    """Median wall time of each call in seconds, measured in turns, so that ratios are fair where the speed varies.

    Python's garbage collector is off meanwhile, as in ``timeit``.

    Args:
        repeats: turns that count, after one to warm up.
        calls: without arguments.
        again: how often each is called in its turn before it is timed. With 0 it finds the caches as the others left
            them, with 1 and more as it left them itself.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    collects = gc.isenabled()
    gc.disable()
    try:
        for turn in range(repeats + 1):
            for call, times in zip(calls, seconds, strict=True):
                for _ in range(again):
                    call()
                seconds_taken = timed(call)
                if turn:  # the first is to warm up
                    times.append(seconds_taken)
    finally:
        if collects:
            gc.enable()
    return [median(times) for times in seconds]


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            visited = [args, result]
            if func.overloadpacket in _INDEXED:
                visited = [args[1:], None if result is args[0] else result]
            self.elements += max((x.numel() for x in tree_leaves(visited) if isinstance(x, Tensor)), default=0)
        return result


def work_of(call: Callable[[], Any]) -> int:
    """Count the elements that a call visits: for each tensor operation, those of its largest tensor.

    Indexing counts the indexed entries, not the whole table. Views cost nothing. The memory's compiled loops count
    blocks and points. Other work outside torch is not counted.
    """
    before = WORK.walked
    with _Counter() as counter:
        call()
    return counter.elements + WORK.walked - before


def held_bytes(call: Callable[[], Any]) -> int:
    """Bytes that the result of a call holds: Python objects, NumPy arrays and torch tensors.

    Objects that existed before, such as shared weights, do not count.
    """
    gc.collect()
    before = _tensor_bytes()
    tracemalloc.start()
    try:
        result = call()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] + _tensor_bytes() - before
    finally:
        tracemalloc.stop()
    del result
    return held


def _tensor_bytes() -> int:
    """Bytes of all live tensors, except those in oneDNN's own layout; shared storage counts once."""
    tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor) and each.layout is torch.strided]
    storages = [each.untyped_storage() for each in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
