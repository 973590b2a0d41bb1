"""The mini depth head: metric z-depth of a frame, consistent with remembered depth."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mirage_sim.geometry import Camera
from mirage_sim.models.codec import PATCH
from mirage_sim.models.layers import channels_last, zero_conv

NEAREST, FARTHEST = 0.05, 100.0  # range of depth in metres; the sky is at the far end


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))``, without normalisation, which costs as much as a convolution on a CPU.

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, width, h, w]`` to the same shape."""
        return features + self.second(nn.functional.relu(self.first(nn.functional.relu(features))))


class Pyramid(nn.Module):
    """A multi-scale residual network; input and output are features ``[B, widths[0], h, w]``.

    Args:
        widths: channels per level, from the finest. h and w must be divisible by ``2^(levels - 1)``.
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        fine, *coarser = widths
        self.before = ResidualBlock(fine)
        self.below = None
        if coarser:
            self.below = nn.Sequential(
                nn.Conv2d(fine, coarser[0], 3, stride=2, padding=1),
                Pyramid(coarser),
                nn.Conv2d(coarser[0], fine, 3, padding=1),
                nn.Upsample(scale_factor=2),
            )
        self.after = ResidualBlock(fine)

    def forward(self, features: Tensor) -> Tensor:
        """Run the network."""
        features = self.before(features)
        if self.below is not None:
            features = features + self.below(features)
        return self.after(features)


class MiniDepth(nn.Module):
    """The depth estimator of the mini world. Implements :class:`mirage_sim.protocols.DepthEstimator`.

    Its inputs are the frame, the camera's rays (at a typical height above the floor, rays indicate distance) and the
    remembered depth, which it completes.

    Args:
        widths: channels of the pyramid per level, from the finest, which has a quarter of the resolution.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 80, 112)):
        super().__init__()
        self.config = {"widths": list(widths)}
        self.conv_in = nn.Conv2d(3 * PATCH * PATCH + 4, widths[0], 3, padding=1)
        self.trunk = Pyramid(widths)
        self.conv_out = zero_conv(widths[0], PATCH * PATCH)
        channels_last(self)

    def log_depth(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """Estimate the natural logarithm of z-depth, ``[N, H, W]``.

        Args:
            frames: frames ``[N, 3, H, W]`` in [-1, 1].
            camera: cameras of batch shape ``[N]``.
            known: remembered depth ``[N, H/4, W/4]`` in metres, 0 where unknown.
        """
        grid = camera.resize((known.shape[-2], known.shape[-1]))
        v = torch.arange(known.shape[-2], device=known.device) + 0.5
        u = torch.arange(known.shape[-1], device=known.device) + 0.5
        K = grid.K[:, None, None]
        ray_x = ((u - K[..., 0, 2]) / K[..., 0, 0]).expand(known.shape)
        ray_y = ((v[:, None] - K[..., 1, 2]) / K[..., 1, 1]).expand(known.shape)
        is_known = (known > 0).float()
        log_known = torch.log(known.clamp(NEAREST, FARTHEST)) * is_known
        patches = nn.functional.pixel_unshuffle(frames, PATCH)
        stacked = torch.cat([patches, torch.stack([ray_x, ray_y, log_known, is_known], dim=1)], dim=1)
        features = self.trunk(self.conv_in(stacked.contiguous(memory_format=torch.channels_last)))
        correction = self.conv_out(features)
        # 1.5 nats is about 4.5 m, a typical depth indoors; known depth replaces it
        start = torch.where(is_known > 0, log_known, torch.full_like(log_known, 1.5))
        return nn.functional.pixel_shuffle(correction + start[:, None], PATCH)[:, 0]

    def forward(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.DepthEstimator.__call__`."""
        shape = camera.batch_shape
        flat = Camera(camera.c2w.flatten(0, 1), camera.K.flatten(0, 1), camera.size)
        log_depth = self.log_depth(frames.transpose(1, 2).flatten(0, 1), flat, known.flatten(0, 1))
        return torch.exp(log_depth).clamp(NEAREST, FARTHEST).unflatten(0, shape)
