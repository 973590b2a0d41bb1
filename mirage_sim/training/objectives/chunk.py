"""The loss of the real backbone's stages: flow matching on chunks of latents."""

from typing import Any

import torch
from torch import Tensor

from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.training.chunk_samples import ChunkSamples


class ChunkStage:
    """The mean squared error of the velocity, ``noise - clean``, over the frames of a chunk that are not known.

    One chunk per call; what is known (first frame, preceding frames, references) is clean, the rest has one noise
    level, ``shift u / (1 + (shift - 1) u)`` of a uniform ``u`` (Esser et al. 2024, "Scaling Rectified Flow
    Transformers").

    Args:
        denoiser: what is trained, or parts of it.
        samples: to learn from.
        shift: above 1 draws more of the high noise levels; 5 is the backbone's.

    Raises:
        ValueError: for a shift that is not positive.
    """

    def __init__(self, denoiser: WanDenoiser, samples: ChunkSamples, *, shift: float = 5.0):
        if shift <= 0:
            raise ValueError(f"shift: expected a positive number, got {shift}")
        self.denoiser, self.samples, self.shift = denoiser, samples, shift

    def __call__(self, generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        """One chunk."""
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
        """Clean latents, noise of their shape, a noise level ``[]`` and the conditioning; always in float32."""
        device = next(self.denoiser.parameters()).device
        with torch.autocast(device.type, enabled=False):
            clean, conditioning = self.samples.draw(generator)
        uniform = torch.rand((), generator=generator)
        sigma = self.shift * uniform / (1 + (self.shift - 1) * uniform)
        noise = torch.randn(clean.shape, generator=generator)
        return clean, noise.to(device), sigma.to(device), conditioning
