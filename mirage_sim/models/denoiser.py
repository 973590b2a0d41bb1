"""The mini denoiser: a flow-matching network that refines what the memory shows and generates the rest."""

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
MOVED = 0.01  # displacement, in cells plus octaves of scale, from which on a sample is fully corrected


class ReadoutAligner(nn.Module):
    """Resamples remembered latents from where their points project to the centres of the cells.

    Points project anywhere within a cell, and were written at another scale. Warping by whole cells turns fine texture
    into coloured noise. A read knows the sub-cell offset and the change of scale, from which a small local network
    undoes most of the error. It also closes the one-cell gaps that open between points when the camera approaches.

    Args:
        channels: latent channels.
        width: feature channels.
        samples_per_cell: input samples per cell and axis. Often two or more points project to one cell after the camera
            has moved, and each carries different information.
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
            * Latents ``[N, C, h, w]``: those of the sample nearest to the centre of each cell, or zero in holes, plus a
              correction.
            * Features ``[N, width, h, w]``.
            * The weight of corrections, ``[N, 1, h, w]`` in [0, 1]: zero where the view shows latents exactly as they
              were written.
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
            latents: latents ``[N, C, s * h, s * w]`` of all samples.
            visible: visibility of the same samples.
            offset: sub-cell offsets of the same samples.
            log_scale: changes of scale of the same samples, octaves.
            size: ``(h, w)``.

        Returns:
            Latents of the chosen samples, and their displacement ``[N, 1, h, w]``: distance from the centre in cells
            plus change of scale in octaves; infinite in holes.
        """
        centre = torch.arange(self.samples_per_cell, device=offset.device) - (self.samples_per_cell - 1) / 2
        dx = (offset[:, 0] + centre.repeat(size[1])).square()
        dy = (offset[:, 1] + centre.repeat(size[0])[:, None]).square()
        distance = cells_of((dx + dy).sqrt().masked_fill(~visible[:, 0], torch.inf), size)
        chosen = distance.argmin(-1, keepdim=True)
        octaves = cells_of(log_scale[:, 0], size).gather(-1, chosen) + math.log2(self.samples_per_cell)
        moved = (distance.gather(-1, chosen) / self.samples_per_cell + octaves.abs()).squeeze(-1)[:, None]
        chosen = chosen[:, None].expand(-1, latents.shape[1], -1, -1, -1)
        return cells_of(latents, size).gather(-1, chosen).squeeze(-1), moved


class PreparedCondition(NamedTuple):
    """The conditioning as the network uses it.

    Attributes:
        aligned: aligned read-out ``[N, C, h, w]``.
        features: input features of the trunk ``[N, widths[0], h, w]``.
        embedding: embedding of the camera motion ``[N, embedding]``.
        freedom: weight of corrections ``[N, 1, h, w]`` in [0, 1].
    """

    aligned: Tensor
    features: Tensor
    embedding: Tensor
    freedom: Tensor


class MiniDenoiser(nn.Module):
    """The denoiser of the mini world, for chunks of one latent frame.

    Implements :class:`mirage_sim.protocols.Denoiser`. The network predicts the clean latents as a correction to the
    aligned read-out, and the velocity follows from them. It therefore copies remembered content by default. Content
    that the view shows exactly as it was written is copied bit for bit, so that a camera that stands still or returns
    sees the same image again.

    Args:
        channels: latent channels.
        widths: channels of the U-Net per level, from the finest.
        aligner_width: channels of the read-out aligner.
        samples_per_cell: samples per latent cell and axis that the aligner uses. A memory should read as many.
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
            ValueError: if the chunk has more than one latent frame.
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
        """Estimate the clean latents ``[N, C, h, w]`` from ``x`` of that shape at noise levels ``sigma [N]``."""
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
