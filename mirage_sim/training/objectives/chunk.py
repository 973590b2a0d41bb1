"""The objective of the Wan2.2 stages: flow matching on chunks of latents."""

from typing import Any

import torch
from torch import Tensor

from mirage_sim.models.sampler import shift_noise_level
from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.training.chunk_samples import ChunkSamples


class ChunkObjective:
    """Mean squared error of the velocity, ``noise - clean``, over the latent frames that the denoiser must generate.

    Each call uses one chunk. The first frame, the preceding frames and the references are clean; all other frames share
    one noise level, a uniform sample mapped by :func:`~mirage_sim.models.sampler.shift_noise_level`.

    Args:
        denoiser: the denoiser; some or all of its parameters are trained.
        samples: source of the chunks.
        shift: above 1 draws more of the high noise levels. The backbone was trained with 5.

    Raises:
        ValueError: if the shift is not positive.
    """

    def __init__(self, denoiser: WanDenoiser, samples: ChunkSamples, *, shift: float = 5.0):
        if shift <= 0:
            raise ValueError(f"shift: expected a positive number, got {shift}")
        self.denoiser, self.samples, self.shift = denoiser, samples, shift

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See :class:`mirage_sim.training.loop.Objective`."""
        clean, noise, sigma, conditioning = self._draw(generator)
        known = self.samples.horizon.overlap
        level = sigma.expand(1, clean.shape[2]).clone()
        level[:, :known] = 0.0
        each = level[:, None, :, None, None]
        x = (1 - each) * clean + each * noise
        velocity = self.denoiser.velocity(x, level, self.denoiser.condition(conditioning)).float()
        error = (velocity - (noise - clean))[:, :, known:]
        return {"loss": error.square().mean(), "remembered": conditioning.view.visible.float().mean()}

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Any]:
        """Draw clean latents, noise of their shape, a noise level ``[]`` and the conditioning; always in float32."""
        device = next(self.denoiser.parameters()).device
        with torch.autocast(device.type, enabled=False):
            clean, conditioning = self.samples.draw(generator)
        uniform = torch.rand((), generator=generator)
        sigma = shift_noise_level(uniform, self.shift)
        noise = torch.randn(clean.shape, generator=generator)
        return clean, noise.to(device), sigma.to(device), conditioning
