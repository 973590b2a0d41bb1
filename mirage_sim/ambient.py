"""Independence of the caller's torch: what a program has set for itself changes no bit of a world.

torch keeps defaults and modes for a whole process or thread: the default type and device of new tensors, autocast,
inference mode. A program sets them for its own networks; here every tensor is float32, and whatever runs elsewhere says
so. :func:`own_torch` stands at each entrance of the library: building and loading, a world's session, the environment.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


class _DefaultType:
    """torch's default type, which is one for all threads: the first to enter makes it float32, the last restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._callers = torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._callers = torch.get_default_dtype()
                if self._callers != torch.float32:
                    torch.set_default_dtype(torch.float32)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._callers != torch.float32:
                torch.set_default_dtype(self._callers)


_float32 = _DefaultType()


@contextmanager
def own_torch() -> Iterator[None]:
    """Compute as if the caller had set nothing in torch; a context, or with ``@own_torch()`` a decorator.

    Inside, new tensors are float32 and on the CPU unless they say otherwise, nothing is cast, and tensors are ordinary
    ones even if the caller is in inference mode. Whether gradients are recorded is left to the caller, and so is the
    number of threads: neither changes a bit.
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


# A forked process has none of OpenMP's threads, and would wait for them for ever once they had been started before.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compute_on_one_thread)
