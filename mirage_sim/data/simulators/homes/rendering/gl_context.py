"""A headless OpenGL context that does not disturb other users of OpenGL in the process."""

import ctypes
import ctypes.util
import importlib
from typing import Any

_EGL_DRAW, _EGL_READ = 0x3059, 0x305A  # as in EGL/egl.h


class HeadlessContext:
    """A moderngl context that is current inside a ``with`` block; the previous context is restored afterwards.

    After moderngl's own ``with`` block no context is current, which MiniWorld's pyglet does not notice.

    Attributes:
        context: the moderngl context.

    Raises:
        ImportError: if moderngl or EGL is missing.
    """

    def __init__(self) -> None:
        try:
            moderngl: Any = importlib.import_module("moderngl")  # its type hints lack the argument backend
            self._egl = ctypes.CDLL(ctypes.util.find_library("EGL") or "libEGL.so.1")
            for name in ("eglGetCurrentDisplay", "eglGetCurrentContext", "eglGetCurrentSurface"):
                getattr(self._egl, name).restype = ctypes.c_void_p
            before = self._current()
            self.context = moderngl.create_context(require=430, standalone=True, backend="egl")
        except Exception as error:  # moderngl raises plain Exceptions if EGL is missing or too old
            raise ImportError(
                "the homes simulator needs moderngl and EGL with OpenGL 4.3: pip install mirage_sim[homes]; "
                f"Debian: apt install libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri ({error})"
            ) from error
        self._restore(before)
        self._before = before

    def _current(self) -> tuple[int | None, ...]:
        egl = self._egl
        surfaces = (egl.eglGetCurrentSurface(_EGL_DRAW), egl.eglGetCurrentSurface(_EGL_READ))
        return (egl.eglGetCurrentDisplay(), *surfaces, egl.eglGetCurrentContext())

    def _restore(self, current: tuple[int | None, ...]) -> None:
        self.context.__exit__(None, None, None)
        if current[-1]:
            self._egl.eglMakeCurrent(*map(ctypes.c_void_p, current))

    def __enter__(self) -> Any:
        self._before = self._current()
        self.context.__enter__()
        return self.context

    def __exit__(self, *error: object) -> None:
        self._restore(self._before)

    def release(self) -> None:
        """Free the context and all objects in it."""
        before = self._current()
        self.context.__enter__()
        self.context.release()
        if before[-1]:
            self._egl.eglMakeCurrent(*map(ctypes.c_void_p, before))
