"""Isolation from the caller's torch settings.

torch keeps some settings per process or thread: the default dtype and device of new tensors, autocast, inference mode.
An application may change them for its own networks. Results of this package must not depend on them, so every public
entry point (loading models, the world session, the environment) runs inside :func:`own_torch`.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


class _DefaultType:
    """Sets torch's default dtype, which all threads share: the first to enter sets float32, the last restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = 0
        self._callers_dtype = torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if not self._entered:
                self._callers_dtype = torch.get_default_dtype()
                if self._callers_dtype != torch.float32:
                    torch.set_default_dtype(torch.float32)
            self._entered += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered and self._callers_dtype != torch.float32:
                torch.set_default_dtype(self._callers_dtype)


_float32 = _DefaultType()


@contextmanager
def own_torch() -> Iterator[None]:
    """Run with torch's default settings; use as a context manager or as the decorator ``@own_torch()``.

    New tensors are float32 and on the CPU by default, autocast is off, and inference mode is off. The caller's choices
    of gradient recording and number of threads stay, because they do not change results.
    """
    with ExitStack() as stack:
        stack.enter_context(_float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for device in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        yield


def _compute_on_one_thread() -> None:
    torch.set_num_threads(1)


# A forked process inherits none of OpenMP's threads and would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compute_on_one_thread)
