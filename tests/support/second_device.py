"""A second device where there is none: tensors that compute on the CPU and refuse to meet the CPU's own.

As on a GPU, an operation on tensors of both devices fails, and NumPy cannot see a tensor that is not on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
_MOVES = {torch.ops.aten.to, torch.ops.aten._to_copy, torch.ops.aten.copy_}  # the only operations that see both devices


class _Elsewhere(Tensor):
    """A tensor that reports the second device; its values are in ``own``, on the CPU."""

    own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> "_Elsewhere":
        made: Any = Tensor._make_wrapper_subclass(
            cls, own.size(), own.stride(), own.storage_offset(), dtype=own.dtype, layout=own.layout, device=NAME
        )
        made.own = own
        return made  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        return self.own.tolist()  # torch does not offer it to subclasses

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Sees the operations that have no tensor to dispatch on, such as ``torch.zeros(3, device=NAME)``."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    moved = [each for each in tensors if isinstance(each, _Elsewhere)]
    foreign = [each for each in tensors if not isinstance(each, _Elsewhere) and each.dim()]
    devices = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.device)]
    if moved and foreign and func.overloadpacket not in _MOVES:
        raise RuntimeError(f"{func}: expected all tensors on one device, got some on {NAME} and some on the CPU")
    there = devices[0].type == NAME if devices else bool(moved)

    def unwrapped(value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        return value.own if isinstance(value, _Elsewhere) else value

    known = {id(each.own): each for each in moved}  # an operation in place returns the tensor that it was given

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or not there:
            return value
        return known[id(value)] if id(value) in known else _Elsewhere(value)

    with torch.inference_mode(False), torch.no_grad():  # views of tensors made before need results of the same kind
        made = func(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
        return args[0] if func.overloadpacket is torch.ops.aten.copy_ else tree_map(wrapped, made)


@contextmanager
def second_device() -> Iterator[torch.device]:
    """The second device, for as long as it lasts; once made, it stays known to this process."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME)
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=NAME) then asks the mode, too
    try:
        with _Mode():
            yield torch.device(NAME)
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
