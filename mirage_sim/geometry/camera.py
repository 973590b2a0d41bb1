"""The pinhole camera model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.geometry.se3 import invert, is_rigid


@dataclass(frozen=True)
class Camera:
    """One pinhole camera, or a batch or trajectory of cameras.

    Axes are OpenCV's: +x right, +y down, +z forward. Pixel ``(i, j)`` covers ``[i, i+1) x [j, j+1)`` and has its centre
    at +1/2. Resizing the image therefore only scales the intrinsics.

    Attributes:
        c2w: camera-to-world transform ``[..., 4, 4]``, float32, metres.
        K: intrinsics ``[..., 3, 3]``, float32, in pixels of ``size``; pixel corners are at integers.
        size: ``(height, width)`` in pixels, shared by the batch.
    """

    c2w: Tensor
    K: Tensor
    size: tuple[int, int]

    @classmethod
    def from_fov(cls, c2w: Tensor, fov_deg: float, size: tuple[int, int]) -> "Camera":
        """Return a camera with a *vertical* field of view, square pixels and a centred principal point.

        Args:
            c2w: ``[..., 4, 4]``.
            fov_deg: vertical field of view in degrees, in (0, 180).
            size: ``(height, width)``.

        Raises:
            ValueError: if ``fov_deg`` is outside (0, 180).
        """
        if not 0.0 < fov_deg < 180.0:
            raise ValueError(f"fov_deg: expected a vertical field of view in (0, 180) degrees, got {fov_deg}")
        height, width = size
        focal = height / 2 / math.tan(math.radians(fov_deg) / 2)
        c2w = c2w.float()
        K = c2w.new_tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        return cls(c2w, K.expand(*c2w.shape[:-2], 3, 3), size)

    @classmethod
    def stack(cls, cameras: "Sequence[Camera]") -> "Camera":
        """Stack cameras of equal batch shape and size along a new first dimension."""
        sizes = {camera.size for camera in cameras}
        if len(sizes) != 1:
            raise ValueError(f"cameras: expected one or more of the same size, got sizes {sorted(sizes)}")
        return cls(
            torch.stack([camera.c2w for camera in cameras]), torch.stack([camera.K for camera in cameras]), sizes.pop()
        )

    @property
    def batch_shape(self) -> torch.Size:
        """Leading shape: ``()`` for one camera, ``(T,)`` for a trajectory."""
        return self.c2w.shape[:-2]

    @property
    def w2c(self) -> Tensor:
        """World-to-camera transform ``[..., 4, 4]``: the extrinsics E of the paper."""
        return invert(self.c2w)

    def resize(self, size: tuple[int, int]) -> "Camera":
        """Return the camera for another pixel grid ``(height, width)``."""
        if size == self.size:
            return self
        # Factors are numbers, not a tensor: copying a tensor to an accelerator would synchronise with it.
        x, y = size[1] / self.size[1], size[0] / self.size[0]
        K = torch.stack([self.K[..., 0, :] * x, self.K[..., 1, :] * y, self.K[..., 2, :]], dim=-2)
        return Camera(self.c2w, K, size)

    def to(self, device: torch.device | str) -> "Camera":
        """Return the camera on another device."""
        return Camera(self.c2w.to(device), self.K.to(device), self.size)

    def validate(self) -> "Camera":
        """Check the camera and return it.

        Raises:
            ValueError: if a shape or type is wrong, a pose is not rigid, or the intrinsics are not finite and positive.
        """
        if self.c2w.shape[-2:] != (4, 4) or self.c2w.dtype != torch.float32:
            raise ValueError(f"c2w: expected float32 [..., 4, 4], got {self.c2w.dtype} {list(self.c2w.shape)}")
        if self.K.shape != (*self.batch_shape, 3, 3) or self.K.dtype != torch.float32:
            expected = [*self.batch_shape, 3, 3]
            raise ValueError(f"K: expected float32 {expected}, got {self.K.dtype} {list(self.K.shape)}")
        if not is_rigid(self.c2w):
            raise ValueError("c2w: expected finite rigid transforms (orthonormal, right-handed, last row 0 0 0 1)")
        focal = torch.stack([self.K[..., 0, 0], self.K[..., 1, 1]])
        if not bool(torch.isfinite(self.K).all()) or not bool((focal > 0).all()):
            raise ValueError("K: expected finite intrinsics with positive focal lengths")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size: expected a positive (height, width), got {self.size}")
        return self

    def __getitem__(self, index: int | slice | Tensor | tuple[int | slice, ...]) -> "Camera":
        return Camera(self.c2w[index], self.K[index], self.size)

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("a single camera has no length")
        return self.batch_shape[0]

    def __iter__(self) -> "Iterator[Camera]":
        return (self[i] for i in range(len(self)))
