"""Clips: short walks with everything known about them, one safetensors file each.

A clip holds ``frames`` uint8 ``[F, H, W, 3]``, ``depth`` float16 or float32 ``[F, H, W]`` (z-depth, metres, 0 unknown),
``c2w`` float32 ``[F, 4, 4]``, ``K`` float32 ``[3, 3]``, ``commands`` float32 ``[F - 1, 2]`` (see
:class:`mirage_sim.geometry.VelocityLimits`) and ``blocked`` bool ``[F - 1]``; both of length 0 where a film was not
made by an
agent. The file's metadata says where it came from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.io import atomic_write, open_tensors


@dataclass(frozen=True)
class Clip:
    """One walk; shapes as the module says. ``source`` is free text-to-text metadata (environment, seed)."""

    frames: Tensor
    depth: Tensor
    c2w: Tensor
    K: Tensor
    commands: Tensor
    blocked: Tensor
    source: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def cameras(self) -> Camera:
        """The trajectory of ``F`` cameras."""
        size = (self.frames.shape[1], self.frames.shape[2])
        return Camera(self.c2w, self.K.expand(len(self), 3, 3), size)


_FIELDS = ("frames", "depth", "c2w", "K", "commands", "blocked")


def save_clip(clip: Clip, path: Path) -> None:
    """Write a clip; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        save_file({name: getattr(clip, name).contiguous() for name in _FIELDS}, partial, metadata=clip.source)


def load_clip(path: Path) -> Clip:
    """Read a clip.

    Raises:
        ValueError: if the file is not a whole clip.
    """
    with _opened(path) as file:
        return Clip(**{name: file.get_tensor(name) for name in _FIELDS}, source=dict(file.metadata() or {}))


def load_source(path: Path) -> dict[str, str]:
    """Where a clip came from: its metadata alone, without reading the rest.

    Raises:
        ValueError: if the file is not a whole clip.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


def load_size(path: Path) -> tuple[int, int, int]:
    """Number of frames, height and width of a clip, without reading the rest.

    Raises:
        ValueError: if the file is not a whole clip.
    """
    with _opened(path) as file:
        count, height, width, _ = file.get_slice("frames").get_shape()
        return count, height, width


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with open_tensors(path, "a readable clip in safetensors format") as file:
        missing = set(_FIELDS) - set(file.keys())
        if missing:
            raise ValueError(f"{path}: expected a clip with tensors {list(_FIELDS)}, missing {sorted(missing)}")
        yield file
