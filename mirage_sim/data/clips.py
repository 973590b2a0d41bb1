"""Clips: short sequences of images with depth, cameras and commands, one safetensors file each."""

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
    """A sequence of ``F`` frames.

    Attributes:
        frames: uint8 ``[F, H, W, 3]``.
        depth: z-depth float16 or float32 ``[F, H, W]``, metres, 0 where unknown.
        c2w: float32 ``[F, 4, 4]``.
        K: float32 ``[3, 3]``, of all frames.
        commands: float32 ``[F - 1, 2]``, see :class:`mirage_sim.geometry.VelocityLimits`; ``[0, 2]`` if no agent made
            the clip.
        blocked: bool ``[F - 1]``, whether a step was blocked; ``[0]`` if no agent made the clip.
        source: metadata, such as environment and seed.
    """

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
        """The cameras of the frames, batch shape ``[F]``."""
        size = (self.frames.shape[1], self.frames.shape[2])
        return Camera(self.c2w, self.K.expand(len(self), 3, 3), size)


_FIELDS = ("frames", "depth", "c2w", "K", "commands", "blocked")


def save_clip(clip: Clip, path: Path) -> None:
    """Write a clip to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        save_file({name: getattr(clip, name).contiguous() for name in _FIELDS}, partial, metadata=clip.source)


def load_clip(path: Path) -> Clip:
    """Read a clip.

    Raises:
        ValueError: if the file is missing, damaged or no clip.
    """
    with _opened(path) as file:
        return Clip(**{name: file.get_tensor(name) for name in _FIELDS}, source=dict(file.metadata() or {}))


def load_source(path: Path) -> dict[str, str]:
    """Read only the metadata of a clip.

    Raises:
        ValueError: as :func:`load_clip`.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


def load_size(path: Path) -> tuple[int, int, int]:
    """Read only the number of frames, the height and the width of a clip.

    Raises:
        ValueError: as :func:`load_clip`.
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
