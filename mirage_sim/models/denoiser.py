"""The mini denoiser: a flow-matching network that redraws what the memory shows and invents what it does not."""

from typing import NamedTuple

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from mirage_sim.models.layers import channels_last, residual_stack, zero_conv
from mirage_sim.models.unet import UNet
from mirage_sim.protocols import Conditioning, MemoryView

MIN_SIGMA = 1e-3


class ReadoutAligner(nn.Module):
    """Moves remembered latents from where their points fell to the centres of the cells.

    A read shows each cell the latent of *one* point, which fell anywhere within the cell and was written from another
    distance. Warping by whole cells is what turns fine texture into coloured noise; the read knows the sub-cell offset
    and the change of scale for free, so a small local network can undo most of it. It also closes the one-cell gaps
    that open between points when the camera comes nearer.

    Args:
        channels: latent channels.
        width: feature channels.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(channels + 5, width, 3, padding=1), residual_stack(width, 2))
        self.correct = zero_conv(width, channels)

    def forward(self, view: MemoryView) -> tuple[Tensor, Tensor]:
        """Aligned latents ``[N, C, h, w]`` and features ``[N, width, h, w]`` of a view with ``N = B * T`` grids."""
        latents = view.latents.transpose(-4, -3).flatten(0, 1)
        visible = view.visible.flatten(0, 1)[:, None].float()
        depth = torch.log(view.depth.flatten(0, 1)[:, None].clamp(min=0.1)) * visible
        zoom = view.zoom.flatten(0, 1)[:, None].clamp(-4, 4)
        offset = view.offset.transpose(-4, -3).flatten(0, 1)
        stacked = torch.cat([latents, visible, depth, zoom, offset], dim=1)
        features = self.encode(stacked.contiguous(memory_format=torch.channels_last))
        return latents + self.correct(features), features


class PreparedCondition(NamedTuple):
    """A conditioning as the network sees it: aligned latents, trunk features, global embedding."""

    aligned: Tensor
    features: Tensor
    embedding: Tensor


class MiniDenoiser(nn.Module):
    """Fulfils :class:`mirage_sim.protocols.Denoiser` for chunks of one latent frame.

    The network predicts the clean latents as a correction to the aligned read-out; the velocity follows from it. What
    is well remembered is therefore copied by default, not redrawn.

    Args:
        channels: latent channels.
        widths: of the U-Net, from the finest level.
        aligner_width: of the read-out aligner.
        embedding: channels of the embedding of noise level and camera motion.
    """

    def __init__(
        self,
        channels: int = 16,
        widths: tuple[int, ...] = (64, 128, 160),
        aligner_width: int = 64,
        embedding: int = 128,
    ):
        super().__init__()
        self.config = {
            "channels": channels,
            "widths": list(widths),
            "aligner_width": aligner_width,
            "embedding": embedding,
        }
        self.aligner = ReadoutAligner(channels, aligner_width)
        self.condition_in = nn.Conv2d(aligner_width + 2 * channels + 1, widths[0], 3, padding=1)
        self.noisy_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.sigma_features = Timesteps(embedding, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.sigma_embedding = TimestepEmbedding(embedding, embedding)
        self.motion_embedding = TimestepEmbedding(6, embedding)
        self.trunk = UNet(channels, widths, embedding)
        channels_last(self)

    def condition(self, conditioning: Conditioning) -> PreparedCondition:
        """See :meth:`mirage_sim.protocols.Denoiser.condition`.

        Raises:
            ValueError: for chunks of more than one latent frame.
        """
        if conditioning.view.visible.shape[1] != 1:
            got = list(conditioning.view.visible.shape)
            raise ValueError(f"view: expected chunks of one latent frame, visible [B, 1, h, w], got {got}")
        aligned, features = self.aligner(conditioning.view)
        visible = conditioning.view.visible.flatten(0, 1)[:, None].float()
        preceding = conditioning.preceding[:, :, -1]
        stacked = torch.cat([features, aligned, preceding, visible], dim=1)
        motion = conditioning.motion.flatten(0, 1) * 10.0  # steps are about a tenth of a metre and of a radian
        return PreparedCondition(aligned, self.condition_in(stacked), self.motion_embedding(motion))

    def predict_clean(self, x: Tensor, sigma: Tensor, condition: PreparedCondition) -> Tensor:
        """Estimate of the clean latents ``[N, C, h, w]`` from ``x`` of that shape at ``sigma [N]``."""
        embedding = self.sigma_embedding(self.sigma_features(1000.0 * sigma)) + condition.embedding
        features = self.noisy_in(x.contiguous(memory_format=torch.channels_last)) + condition.features
        return condition.aligned + self.trunk(features, embedding)

    def velocity(self, x: Tensor, sigma: Tensor, condition: PreparedCondition) -> Tensor:
        """See :meth:`mirage_sim.protocols.Denoiser.velocity`."""
        flat = x.transpose(1, 2).flatten(0, 1)
        level = sigma.flatten()
        clean = self.predict_clean(flat, level, condition)
        velocity = (flat - clean) / level.clamp(min=MIN_SIGMA)[:, None, None, None]
        return velocity.unflatten(0, sigma.shape).transpose(1, 2)
