"""Noise as a function of where it is used, so that forks, batches and replays agree by construction."""

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """Finaliser of SplitMix64 (Steele, Lea and Flood 2014): neighbouring integers become unrelated ones."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def noise(seed: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of ``shape`` that depends on ``seed`` and ``step`` only.

    It is drawn on the CPU, so that an episode has the same noise on every device; no global generator is touched.

    Args:
        seed: of the episode, in [0, 2^63).
        step: how many chunks were made before.
        shape: of the result, float32.
    """
    generator = torch.Generator().manual_seed(_mix(_mix(seed) ^ step) & ((1 << 63) - 1))
    return torch.randn(shape, generator=generator)
