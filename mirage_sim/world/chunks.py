"""How many pixel frames a number of latent frames stands for: the ``stride * n + 1`` arithmetic, only here.

A causal video codec makes its first latent frame from one picture and every further one from ``stride`` pictures.
Latent frame ``t`` ends at pixel frame ``t * stride``, and that is the picture whose camera and depth it is lifted with.
"""

from torch import Tensor


def frames_of(latents: int, stride: int) -> int:
    """Pixel frames of a chunk of ``latents`` latent frames, for a temporal ``stride``.

    Raises:
        ValueError: if either is below 1.
    """
    if latents < 1 or stride < 1:
        raise ValueError(f"latents, stride: expected at least 1, got {latents}, {stride}")
    return stride * (latents - 1) + 1


def latents_of(frames: int, stride: int) -> int:
    """Latent frames of a chunk of ``frames`` pixel frames, for a temporal ``stride``.

    Raises:
        ValueError: if ``frames`` is not ``stride * n + 1``.
    """
    if frames < 1 or stride < 1 or (frames - 1) % stride:
        raise ValueError(f"frames: expected {stride} * n + 1 for temporal stride {stride}, got {frames}")
    return (frames - 1) // stride + 1


def spread(per_latent: Tensor, stride: int) -> Tensor:
    """Values ``[B, T, ...]`` of latent frames placed at their pixel frames, ``[B, F, ...]``; zero in between."""
    if stride == 1:
        return per_latent
    batch, latents, *rest = per_latent.shape
    out = per_latent.new_zeros(batch, frames_of(latents, stride), *rest)
    out[:, ::stride] = per_latent
    return out
