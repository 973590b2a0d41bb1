"""Wall time of work on a device. GPU calls return early, so every timed call waits for the device."""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.runner import timed


def synchronize(device: str) -> None:
    """Wait until the device has finished all work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], Any], device: str, most: float, repeats: int = 9) -> float:
    """Median wall time of a call, including the device's work, after one call to warm up.

    Args:
        call: without arguments.
        device: on which the call works.
        most: seconds after which no further repeat begins; there is at least one.
        repeats: largest number of repeats.
    """

    def whole() -> None:
        call()
        synchronize(device)

    timed(whole)
    times = [timed(whole)]
    while len(times) < repeats and sum(times) < most:
        times.append(timed(whole))
    return median(times)


def reset_peak(device: str) -> None:
    """Reset the peak of memory in use."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: str) -> float | None:
    """Peak memory of tensors on the device since :func:`reset_peak`, in GiB; None on the CPU."""
    if torch.device(device).type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
