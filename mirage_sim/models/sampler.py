"""The sampler: a few Euler steps along the flow from noise to clean latents."""

from typing import Any

import torch
from torch import Tensor

from mirage_sim.protocols import Denoiser


class FlowSampler:
    """Euler steps with a shifted, uniform schedule of noise levels; state in float32.

    ``sigma -> shift * sigma / (1 + (shift - 1) * sigma)`` (Esser et al. 2024, "Scaling Rectified Flow Transformers").

    Args:
        steps: network evaluations per chunk, at least 1.
        shift: above 1 spends more steps at high noise.
    """

    def __init__(self, steps: int = 2, shift: float = 1.0):
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, got {steps}")
        if shift <= 0:
            raise ValueError(f"shift: expected a positive number, got {shift}")
        uniform = torch.linspace(1.0, 0.0, steps + 1)
        self.sigmas = (shift * uniform / (1 + (shift - 1) * uniform)).tolist()

    def sample(self, denoiser: Denoiser, condition: Any, noise: Tensor) -> Tensor:
        """Clean latents ``[B, C, T, h, w]`` from noise of that shape."""
        x = noise.float()
        for sigma, following in zip(self.sigmas[:-1], self.sigmas[1:], strict=True):
            level = x.new_full((x.shape[0], x.shape[2]), sigma)
            x = x + (following - sigma) * denoiser.velocity(x, level, condition).float()
        return x
