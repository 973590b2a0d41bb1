"""Noise as a function of seed and step, so that forks, batches and replays agree."""

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """Finaliser of SplitMix64 (Steele, Lea and Flood 2014): decorrelates neighbouring integers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def noise(seed: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise that depends only on ``seed`` and ``step``.

    It is sampled on the CPU, so that all devices get the same noise, without a global generator.

    Args:
        seed: of the episode, in [0, 2^63).
        step: number of the chunk in the episode.
        shape: of the result, float32.
    """
    generator = torch.Generator().manual_seed(_mix(_mix(seed) ^ step) & ((1 << 63) - 1))
    return torch.randn(shape, generator=generator)
