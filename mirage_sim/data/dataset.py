"""Recorded walks held in memory, and random draws of frames from them."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mirage_sim.data.clips import load_clip
from mirage_sim.geometry import Camera


class Moments(NamedTuple):
    """Frames drawn from walks: ``B`` walks, ``S`` moments each.

    Attributes:
        frames: ``[B, S, 3, H, W]`` in [-1, 1].
        depth: ``[B, S, H, W]`` metres.
        camera: batch shape ``[B, S]``.
    """

    frames: Tensor
    depth: Tensor
    camera: Camera


class WalkDataset:
    """All clips of a folder, of equal length and size, stacked in memory as they are stored (uint8 and float16).

    Args:
        folder: holds ``*.safetensors`` clips.

    Raises:
        ValueError: if there are none, or they differ in length or size.
    """

    def __init__(self, folder: Path):
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise ValueError(f"{folder}: expected recorded clips (*.safetensors); make some with `mirage record`")
        clips = [load_clip(path) for path in paths]
        shapes = {tuple(clip.frames.shape) for clip in clips}
        if len(shapes) != 1:
            raise ValueError(f"{folder}: expected clips of one length and size, got {sorted(shapes)}")
        self.frames = torch.stack([clip.frames for clip in clips])
        self.depth = torch.stack([clip.depth for clip in clips])
        self.c2w = torch.stack([clip.c2w for clip in clips])
        self.K = clips[0].K
        self.size = (self.frames.shape[2], self.frames.shape[3])

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def length(self) -> int:
        """Frames per walk."""
        return self.frames.shape[1]

    def draw(self, walks: Tensor, times: Tensor) -> Moments:
        """The moments ``times [B, S]`` of ``walks [B]``."""
        at = (walks[:, None], times)
        frames = self.frames[at].permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        return Moments(frames, self.depth[at].float(), self.cameras(walks, times))

    def cameras(self, walks: Tensor, times: Tensor) -> Camera:
        """Only the cameras, batch shape ``[B, S]``, of what :meth:`draw` gives."""
        return Camera(self.c2w[walks[:, None], times], self.K.expand(*times.shape, 3, 3), self.size)
