"""The mini denoiser: a flow-matching network that redraws what the memory shows and invents what it does not."""

import math
from typing import NamedTuple

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from mirage_sim.geometry import cells_of
from mirage_sim.models.layers import LocalBlock, channels_last, zero_conv
from mirage_sim.models.unet import UNet
from mirage_sim.protocols import Conditioning, MemoryView

MIN_SIGMA = 1e-3
MOVED = 0.01  # cells, or octaves of scale, from which on a sample is corrected in full


class ReadoutAligner(nn.Module):
    """Moves remembered latents from where their points fell to the centres of the cells.

    A read shows latents where their points fell: anywhere within a cell, from another distance. Warping by whole cells
    is what turns fine texture into coloured noise; the read knows the sub-cell offset and the change of scale for
    free, so a small local network can undo most of it. It also closes the one-cell gaps that open between points when
    the camera comes nearer.

    Args:
        channels: latent channels.
        width: feature channels.
        samples_per_cell: samples per cell and axis that are looked at. Two or more points in one cell are common once
            the camera
            has moved, and what a second one knows is not in the first.
    """

    def __init__(self, channels: int, width: int, samples_per_cell: int):
        super().__init__()
        self.samples_per_cell = samples_per_cell
        samples = samples_per_cell * samples_per_cell
        self.encode = nn.Sequential(nn.Conv2d(samples * (channels + 5), width, 3, padding=1), LocalBlock(width))
        self.correct = zero_conv(width, channels)

    def forward(self, view: MemoryView, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Align a view with ``N = B * T`` grids to the latent grid ``size``.

        Returns:
            Latents ``[N, C, h, w]``, those of the sample nearest to the centre of each cell plus a correction, zero
            plus a correction in holes; features ``[N, width, h, w]``; and how much of a correction each cell may get,
            ``[N, 1, h, w]`` in [0, 1]: what is shown just as it was written needs none, and gets none.
        """
        view = view.resize((self.samples_per_cell * size[0], self.samples_per_cell * size[1]))
        latents = view.latents.transpose(-4, -3).flatten(0, 1)
        visible = view.visible.flatten(0, 1)[:, None]
        depth = torch.log(view.depth.flatten(0, 1)[:, None].clamp(min=0.1)) * visible
        log_scale = view.log_scale.flatten(0, 1)[:, None].clamp(-4, 4)
        offset = view.offset.transpose(-4, -3).flatten(0, 1)
        stacked = torch.cat([latents, visible.to(latents.dtype), depth, log_scale, offset], dim=1)
        folded = nn.functional.pixel_unshuffle(stacked, self.samples_per_cell)
        features = self.encode(folded.contiguous(memory_format=torch.channels_last))
        central, moved = self._most_central(latents, visible, offset, log_scale, size)
        freedom = (moved / MOVED).clamp(max=1.0)
        return central + freedom * self.correct(features), features, freedom

    def _most_central(
        self, latents: Tensor, visible: Tensor, offset: Tensor, log_scale: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Choose, for each cell, the sample nearest to its centre, of ``s = samples_per_cell`` samples per axis.

        Args:
            latents: ``[N, C, s * h, s * w]``.
            visible: of the same samples.
            offset: of the same samples.
            log_scale: of the same samples.
            size: ``(h, w)``.

        Returns:
            Its latents, and ``[N, 1, h, w]`` by how much it is not what was written: cells between the centres, and
            octaves of scale; infinite in holes.
        """
        place = torch.arange(self.samples_per_cell, device=offset.device) - (self.samples_per_cell - 1) / 2
        across = (offset[:, 0] + place.repeat(size[1])).square()
        along = (offset[:, 1] + place.repeat(size[0])[:, None]).square()
        distance = cells_of((across + along).sqrt().masked_fill(~visible[:, 0], torch.inf), size)
        chosen = distance.argmin(-1, keepdim=True)
        octaves = cells_of(log_scale[:, 0], size).gather(-1, chosen) + math.log2(self.samples_per_cell)
        moved = (distance.gather(-1, chosen) / self.samples_per_cell + octaves.abs()).squeeze(-1)[:, None]
        chosen = chosen[:, None].expand(-1, latents.shape[1], -1, -1, -1)
        return cells_of(latents, size).gather(-1, chosen).squeeze(-1), moved


class PreparedCondition(NamedTuple):
    """A conditioning as the network sees it: aligned latents, trunk features, global embedding, freedom to correct."""

    aligned: Tensor
    features: Tensor
    embedding: Tensor
    freedom: Tensor


class MiniDenoiser(nn.Module):
    """Fulfils :class:`mirage_sim.protocols.Denoiser` for chunks of one latent frame.

    The network predicts the clean latents as a correction to the aligned read-out; the velocity follows from it. What
    is well remembered is therefore copied by default, not redrawn; and what is shown just as it was written is copied
    exactly, so that a camera that stands still, or comes back to where it stood, sees what it saw.

    Args:
        channels: latent channels.
        widths: of the U-Net, from the finest level.
        aligner_width: of the read-out aligner.
        samples_per_cell: samples per latent cell and axis that the aligner looks at; a memory should read as many.
        embedding: channels of the embedding of noise level and camera motion.
    """

    def __init__(
        self,
        channels: int = 16,
        widths: tuple[int, ...] = (64, 128, 160),
        aligner_width: int = 64,
        samples_per_cell: int = 2,
        embedding: int = 128,
    ):
        super().__init__()
        self.config = {
            "channels": channels,
            "widths": list(widths),
            "aligner_width": aligner_width,
            "samples_per_cell": samples_per_cell,
            "embedding": embedding,
        }
        self.aligner = ReadoutAligner(channels, aligner_width, samples_per_cell)
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
        preceding = conditioning.preceding[:, :, -1]
        height, width = preceding.shape[-2:]
        aligned, features, freedom = self.aligner(conditioning.view, (height, width))
        visible = nn.functional.adaptive_max_pool2d(conditioning.view.visible.float(), (height, width))
        stacked = torch.cat([features, aligned, preceding, visible], dim=1)
        motion = conditioning.motion.flatten(0, 1) * 10.0  # steps are about a tenth of a metre and of a radian
        return PreparedCondition(aligned, self.condition_in(stacked), self.motion_embedding(motion), freedom)

    def predict_clean(self, x: Tensor, sigma: Tensor, condition: PreparedCondition) -> Tensor:
        """Estimate of the clean latents ``[N, C, h, w]`` from ``x`` of that shape at ``sigma [N]``."""
        embedding = self.sigma_embedding(self.sigma_features(1000.0 * sigma)) + condition.embedding
        features = self.noisy_in(x.contiguous(memory_format=torch.channels_last)) + condition.features
        return condition.aligned + condition.freedom * self.trunk(features, embedding)

    def velocity(self, x: Tensor, sigma: Tensor, condition: PreparedCondition) -> Tensor:
        """See :meth:`mirage_sim.protocols.Denoiser.velocity`."""
        flat = x.transpose(1, 2).flatten(0, 1)
        level = sigma.flatten()
        clean = self.predict_clean(flat, level, condition)
        velocity = (flat - clean) / level.clamp(min=MIN_SIGMA)[:, None, None, None]
        return velocity.unflatten(0, sigma.shape).transpose(1, 2)
