"""The keyframe of an episode: its start image, whose pixels are shown again wherever a frame sees the same surfaces.

Encoding, denoising and decoding lose detail. The start image has it all, and its depth is known, so reprojected pixels
of the start image are more accurate than decoded ones. Each episode has one keyframe, whatever its length.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mirage_sim.geometry import NEAR, Camera, project, unproject

_BLUR = 1.0  # pixels, standard deviation; detail is what such a blur removes
_AMPLIFIED = 0.5  # fraction of the detail added where the keyframe is magnified
_MAGNIFIED = 4 / 3  # magnification from which on that fraction is added; it decreases to 0 at 1


@dataclass(frozen=True)
class Keyframe:
    """An observed image with depth and camera.

    Attributes:
        frame: ``[3, H, W]`` in [-1, 1].
        depth: estimated z-depth ``[H, W]`` in metres, 0 where unknown.
        camera: of the image, batch shape ``()``, size ``(H, W)``.
    """

    frame: Tensor
    depth: Tensor
    camera: Camera

    @cached_property
    def _frame_and_detail(self) -> Tensor:
        """``[6, H, W]``: the image, and the detail that a Gaussian blur removes from it."""
        reach = round(3 * _BLUR)
        window = torch.exp(-((torch.arange(-reach, reach + 1, device=self.frame.device) / _BLUR) ** 2) / 2)
        window = (window / window.sum()).expand(3, 1, 1, -1)
        blurred = torch.nn.functional.pad(self.frame[None], (reach,) * 4, mode="replicate")
        for along in (window, window.transpose(-1, -2)):
            blurred = torch.nn.functional.conv2d(blurred, along, groups=3)
        return torch.cat([self.frame, self.frame - blurred[0]])

    def reproject(self, frames: Tensor, depth: Tensor, camera: Camera, tolerance: float) -> Tensor:
        """Replace the pixels of frames that see the keyframe's surfaces by the keyframe's pixels.

        Each pixel is unprojected with its depth and sampled from the keyframe with bicubic interpolation. It sees the
        same surface if the round trip agrees: the keyframe's point at the sampled position, at the keyframe's depth,
        must project back to within ``tolerance`` of the pixel. Where a surface is seen from nearer than in the
        keyframe, interpolation blurs; there detail is amplified to preserve the gradient energy.

        Args:
            frames: ``[3, T, H, W]`` in [-1, 1].
            depth: z-depth of the frames ``[T, H, W]`` in metres, 0 where unknown.
            camera: of the frames, batch shape ``[T]``, size ``(H, W)``.
            tolerance: in pixels.

        Returns:
            The composed frames, ``[3, T, H, W]``.
        """
        height, width = camera.size
        points = unproject(depth, camera)
        u, v, z = _project(points, self.camera)
        position = torch.stack([u * (2 / width) - 1, v * (2 / height) - 1], dim=-1)
        own_depth = _sample(self.depth[None], position, "nearest")[:, 0]
        known = (depth > 0) & (own_depth > 0) & (z > NEAR) & (u >= 0) & (u < width) & (v >= 0) & (v < height)

        centre, share = self.camera.c2w[:3, 3], torch.where(known, own_depth / z, 1.0)
        back_u, back_v, _ = _project(centre + (points - centre) * share[..., None], camera)
        off_u, off_v = back_u - _centres(width, depth), back_v - _centres(height, depth)[:, None]
        same = known & (off_u**2 + off_v**2 <= tolerance**2)

        pixels, detail = _sample(self._frame_and_detail, position, "bicubic").split(3, dim=1)
        focal = camera.K[:, None, None, 0, 0] / self.camera.K[0, 0]
        magnification = focal * z / depth.clamp(min=NEAR)
        amplified = _AMPLIFIED * ((magnification - 1) / (_MAGNIFIED - 1)).clamp(0, 1)
        shown = (pixels + amplified[:, None] * detail).clamp(-1, 1)
        return torch.where(same, shown.transpose(0, 1), frames)


def _project(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Project ``points [T, H, W, 3]`` to u, v and z, ``[T, H, W]`` each."""
    u, v, z = (part.unflatten(1, points.shape[1:3]) for part in project(points.flatten(1, 2), camera))
    return u, v, z


def _centres(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device) + 0.5


def _sample(image: Tensor, position: Tensor, mode: str) -> Tensor:
    """Sample ``image [C, H, W]`` at ``position [T, H, W, 2]``, (x, y) in [-1, 1] from border to border."""
    images = image.expand(len(position), *image.shape)
    return torch.nn.functional.grid_sample(images, position, mode=mode, padding_mode="border", align_corners=False)
