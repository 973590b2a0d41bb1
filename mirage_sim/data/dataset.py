"""A data set of clips in memory, from which training draws random frames."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mirage_sim.data.clips import load_clip, load_size
from mirage_sim.geometry import Camera
from mirage_sim.io import open_tensors


class Moments(NamedTuple):
    """Frames of ``B`` clips, ``S`` of each.

    Attributes:
        frames: ``[B, S, 3, H, W]`` in [-1, 1].
        depth: ``[B, S, H, W]`` metres.
        camera: batch shape ``[B, S]``.
    """

    frames: Tensor
    depth: Tensor
    camera: Camera


class WalkDataset:
    """Clips of equal length and size in the memory of one device, as uint8 and float16.

    Args:
        folders: a folder of ``*.safetensors`` clips; or several folders with their weights for :meth:`choose`.
        device: of the clips.

    Raises:
        ValueError: if a folder holds no clips, clips differ in length or size, or a weight is not positive.
    """

    def __init__(self, folders: Path | Mapping[Path, float], device: torch.device | str = "cpu"):
        weights = folders if isinstance(folders, Mapping) else {folders: 1.0}
        paths = {folder: sorted(folder.glob("*.safetensors")) for folder in weights}
        for folder, found in paths.items():
            if not found:
                raise ValueError(f"{folder}: expected recorded clips (*.safetensors); make some with `mirage record`")
            if not 0 < weights[folder] < float("inf"):
                raise ValueError(f"{folder}: expected a positive weight, got {weights[folder]}")
        every = [path for found in paths.values() for path in found]
        sizes = {load_size(path) for path in every}
        if len(sizes) != 1:
            names = ", ".join(str(folder) for folder in weights)
            raise ValueError(f"{names}: expected clips of one length and size, got {sorted(sizes)}")
        length, height, width = sizes.pop()
        # filled clip by clip, so that no clip is in memory twice
        self.frames = torch.empty(len(every), length, height, width, 3, dtype=torch.uint8)
        self.depth = torch.empty(len(every), length, height, width, dtype=torch.float16)
        self.c2w = torch.empty(len(every), length, 4, 4)
        self.K = torch.empty(len(every), 3, 3)
        for walk, path in enumerate(every):
            clip = load_clip(path)
            self.frames[walk], self.depth[walk] = clip.frames, clip.depth
            self.c2w[walk], self.K[walk] = clip.c2w, clip.K
        self.size = (height, width)
        self.device = torch.device(device)
        self.frames, self.depth, self.c2w, self.K = (
            values.to(self.device) for values in (self.frames, self.depth, self.c2w, self.K)
        )
        ends = torch.tensor([weights[folder] / len(found) for folder, found in paths.items() for _ in found]).cumsum(0)
        self._ends = (ends / ends[-1]).to(self.device) if len(weights) > 1 else None

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def length(self) -> int:
        """Frames per clip."""
        return self.frames.shape[1]

    def check_gap(self, gap: int) -> None:
        """Check that clips are long enough for two frames ``gap`` apart.

        Raises:
            ValueError: if they are not.
        """
        if not 1 <= gap < self.length:
            raise ValueError(f"gap: expected 1 to {self.length - 1} frames on walks of {self.length}, got {gap}")

    def choose(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the indices of ``count`` random clips: int64 ``[count]``."""
        if self._ends is None:
            return torch.randint(len(self), (count,), generator=generator, device=self.device)
        share = torch.rand(count, generator=generator, device=self.device)
        return torch.searchsorted(self._ends, share, right=True).clamp(max=len(self) - 1)

    def draw(self, walks: Tensor, times: Tensor) -> Moments:
        """Return the frames at ``times [B, S]`` of the clips ``walks [B]``."""
        at = (walks[:, None], times)
        frames = self.frames[at].permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        return Moments(frames, self.depth[at].float(), self.cameras(walks, times))

    def cameras(self, walks: Tensor, times: Tensor) -> Camera:
        """Return only the cameras of :meth:`draw`, batch shape ``[B, S]``."""
        K = self.K[walks][:, None].expand(*times.shape, 3, 3)
        return Camera(self.c2w[walks[:, None], times], K, self.size)


def load_photographs(path: Path, size: tuple[int, int]) -> Tensor:
    """Read photographs of one size: uint8 ``[N, H, W, 3]``.

    Args:
        path: safetensors file with a tensor ``images``.
        size: ``(H, W)``.

    Raises:
        ValueError: if the file holds no images of this size.
    """
    wanted = f"images uint8 [N, {size[0]}, {size[1]}, 3]"
    with open_tensors(path, f"photographs, {wanted}, in a safetensors file") as file:
        found = file.get_slice("images") if "images" in file.keys() else None
        shape = found.get_shape() if found else []
        if not found or found.get_dtype() != "U8" or shape[1:] != [*size, 3] or not shape[0]:
            raise ValueError(f"photographs: expected {wanted} in {path}, got {shape or sorted(file.keys())}")
        images: Tensor = file.get_tensor("images")
        return images
