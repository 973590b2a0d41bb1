"""The sampler of the mini world: a few Euler steps along the flow from noise to clean latents."""

from typing import Any

import torch
from torch import Tensor

from mirage_sim.protocols import Denoiser


def shift_noise_level(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels in [0, 1] towards 1 (``shift`` above 1) or towards 0 (below 1).

    ``shift * sigma / (1 + (shift - 1) * sigma)`` (Esser et al. 2024, "Scaling Rectified Flow Transformers").
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


class FlowSampler:
    """Makes Euler steps over a shifted, uniform schedule of noise levels. The state is float32.

    Args:
        steps: network evaluations per chunk, at least 1.
        shift: above 1 spends more steps at high noise, see :func:`shift_noise_level`.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, steps: int = 2, shift: float = 1.0):
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, got {steps}")
        if shift <= 0:
            raise ValueError(f"shift: expected a positive number, got {shift}")
        self.sigmas = shift_noise_level(torch.linspace(1.0, 0.0, steps + 1), shift).tolist()

    def sample(self, denoiser: Denoiser, condition: Any, noise: Tensor) -> Tensor:
        """Turn noise ``[B, C, T, h, w]`` into clean latents of that shape."""
        x = noise.float()
        for sigma, following in zip(self.sigmas[:-1], self.sigmas[1:], strict=True):
            level = x.new_full((x.shape[0], x.shape[2]), sigma)
            x = x + (following - sigma) * denoiser.velocity(x, level, condition).float()
        return x
