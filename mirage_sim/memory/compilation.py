"""Compilation with numba, and the two low-level operations that numba lacks."""

from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function at its first call and cache the result on disk if a folder is writable."""
    try:
        fast: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package nor the user's cache is writable
        fast = njit(nogil=True, error_model="numpy")(function)
    return fast


def _typed_pointer(typing_context: Any, address: Any) -> Any:
    """Cast an integer to a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


def _typed_prefetch(typing_context: Any, address: Any) -> Any:
    """Prefetch the memory at an address; harmless for invalid addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], _PREFETCH)
        to_read, closest, data = (ir.Constant(cgutils.int32_t, value) for value in (0, 3, 1))
        builder.call(prefetch, [place, to_read, closest, data])

    return types.void(types.int64), generate


_PREFETCH = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[cgutils.int32_t] * 3])
pointer: Any = intrinsic(_typed_pointer)
prefetch: Any = intrinsic(_typed_prefetch)
