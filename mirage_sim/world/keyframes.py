"""The picture that an episode was given: shown itself, wherever a frame sees the same surfaces again.

A codec loses something of every picture, and what is denoised again at every step loses more. The given picture is
still there, and so is the depth of what it shows: reprojected, its own pixels are nearer to the truth than any that
went through latents. It is one picture per episode, whatever the length.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mirage_sim.geometry import NEAR, Camera, project, unproject

_BLUR = 1.0  # pixels, standard deviation: what such a blur takes away is detail
_AMPLIFIED = 0.5  # how much of the detail is added where the picture is magnified
_MAGNIFIED = 4 / 3  # all of that from this magnification on, nothing where there is none


@dataclass(frozen=True)
class Keyframe:
    """A picture that came from outside, and what is known about it.

    Attributes:
        frame: ``[3, H, W]`` in [-1, 1].
        depth: estimated z-depth ``[H, W]`` in metres, 0 where unknown.
        camera: that took it, batch shape ``()``, size ``(H, W)``.
    """

    frame: Tensor
    depth: Tensor
    camera: Camera

    @cached_property
    def _frame_and_detail(self) -> Tensor:
        """``[6, H, W]``: the picture, and what a Gaussian blur takes away from it."""
        reach = round(3 * _BLUR)
        window = torch.exp(-((torch.arange(-reach, reach + 1, device=self.frame.device) / _BLUR) ** 2) / 2)
        window = (window / window.sum()).expand(3, 1, 1, -1)
        blurred = torch.nn.functional.pad(self.frame[None], (reach,) * 4, mode="replicate")
        for along in (window, window.transpose(-1, -2)):
            blurred = torch.nn.functional.conv2d(blurred, along, groups=3)
        return torch.cat([self.frame, self.frame - blurred[0]])

    def reproject(self, frames: Tensor, depth: Tensor, camera: Camera, tolerance: float) -> Tensor:
        """The same frames with this picture's pixels wherever they see the surfaces that it shows.

        Every pixel is lifted by its depth and looked up in the picture, bicubically. It sees the same surface if the
        way back agrees: what the picture shows there, at the picture's own depth, is seen from here within
        ``tolerance`` of the pixel. So depth must be exact where it matters, near by and after a long way, and may err
        where it does not. Interpolation blurs what is seen nearer than the picture showed it: there its detail is
        amplified, which keeps the gradient energy.

        Args:
            frames: ``[3, T, H, W]`` in [-1, 1].
            depth: z-depth of them ``[T, H, W]`` in metres, 0 where unknown.
            camera: they are seen from, batch shape ``[T]``, size ``(H, W)``.
            tolerance: pixels.

        Returns:
            ``[3, T, H, W]``.
        """
        height, width = camera.size
        points = unproject(depth, camera)
        u, v, z = _seen(points, self.camera)
        place = torch.stack([u * (2 / width) - 1, v * (2 / height) - 1], dim=-1)
        there = _sample(self.depth[None], place, "nearest")[:, 0]
        known = (depth > 0) & (there > 0) & (z > NEAR) & (u >= 0) & (u < width) & (v >= 0) & (v < height)

        centre, share = self.camera.c2w[:3, 3], torch.where(known, there / z, 1.0)
        back_u, back_v, _ = _seen(centre + (points - centre) * share[..., None], camera)
        off_u, off_v = back_u - _centres(width, depth), back_v - _centres(height, depth)[:, None]
        same = known & (off_u**2 + off_v**2 <= tolerance**2)

        pixels, detail = _sample(self._frame_and_detail, place, "bicubic").split(3, dim=1)
        focal = camera.K[:, None, None, 0, 0] / self.camera.K[0, 0]
        magnification = focal * z / depth.clamp(min=NEAR)
        amplified = _AMPLIFIED * ((magnification - 1) / (_MAGNIFIED - 1)).clamp(0, 1)
        shown = (pixels + amplified[:, None] * detail).clamp(-1, 1)
        return torch.where(same, shown.transpose(0, 1), frames)


def _seen(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`project`, of ``points [T, H, W, 3]``: u, v and z ``[T, H, W]``."""
    u, v, z = (part.unflatten(1, points.shape[1:3]) for part in project(points.flatten(1, 2), camera))
    return u, v, z


def _centres(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device) + 0.5


def _sample(picture: Tensor, place: Tensor, mode: str) -> Tensor:
    """``[T, C, H, W]`` of ``[C, H, W]`` at ``place [T, H, W, 2]``, from -1 at the left and upper border to 1."""
    many = picture.expand(len(place), *picture.shape)
    return torch.nn.functional.grid_sample(many, place, mode=mode, padding_mode="border", align_corners=False)
