"""What benchmarks measure by: wall time, and work that is counted, which no neighbour on the machine can disturb."""

import gc
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

_INDEXED = {  # touch as much of their first argument as their others say
    torch.ops.aten.index,
    torch.ops.aten.index_put,
    torch.ops.aten.index_put_,
    torch.ops.aten.index_select,
    torch.ops.aten.gather,
    torch.ops.aten.scatter_reduce_,
}


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a call, after one to warm up."""
    (seconds,) = side_by_side(repeats, call)
    return seconds


def timed(call: Callable[[], Any]) -> float:
    """Wall time of one call, in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def side_by_side(repeats: int, *calls: Callable[[], Any], again: int = 0) -> list[float]:
    """Median wall time of each call, taken in turns, so that their ratios are fair on a machine whose speed swings.

    Python's garbage collector rests meanwhile, as in ``timeit``.

    Args:
        repeats: turns that count, after one to warm up.
        calls: without arguments.
        again: how often each is called in its turn before it is timed. 0 finds the caches as the others left them, 1
            and more as the call itself did.
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
            walked = [args, result]
            if func.overloadpacket in _INDEXED:
                walked = [args[1:], None if result is args[0] else result]
            self.elements += max((x.numel() for x in tree_leaves(walked) if isinstance(x, Tensor)), default=0)
        return result


def work_of(call: Callable[[], Any]) -> int:
    """How many elements a call walks over: of each tensor operation, as many as its largest tensor has.

    Looking entries up counts the entries, not the table. Views cost nothing. The memory's compiled loops count blocks
    and points; what else is done outside torch is not seen.
    """
    before = WORK.walked
    with _Counter() as counter:
        call()
    return counter.elements + WORK.walked - before


def held_bytes(call: Callable[[], Any]) -> int:
    """Bytes that the result of a call holds: Python's objects, NumPy's arrays and torch's tensors.

    What existed before, such as weights that it shares, does not count.
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
    """Of all tensors there are, but for those in a layout of oneDNN's own; what they share counts once."""
    tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor) and each.layout is torch.strided]
    storages = [each.untyped_storage() for each in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def positive_integers(cfg: Mapping[str, Any], *names: str) -> None:
    """Refuse settings that count something and do not.

    Raises:
        ValueError: if one of the named settings is no positive integer.
    """
    for name in names:
        if isinstance(cfg[name], bool) or not isinstance(cfg[name], int) or cfg[name] < 1:
            raise ValueError(f"{name}: expected a positive integer, got {cfg[name]!r}")
