"""Image and depth metrics, and bootstrap intervals of their means; ``docs/protocol.md`` has the definitions."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

PSNR_CAP = 50.0  # dB per image, so that an exact copy does not dominate a mean
MIN_PIXELS = 64  # smaller regions score NaN
FAR = 50.0  # metres; true depth beyond this is sky or too inaccurate to score
RESAMPLES = 10_000
_WINDOW, _SIGMA = 11, 1.5


def check_frames(name: str, frames: np.ndarray) -> None:
    """Raise ValueError unless ``frames`` is uint8 ``[..., H, W, 3]``."""
    if frames.dtype != np.uint8 or frames.ndim < 3 or frames.shape[-1] != 3:
        raise ValueError(f"{name}: expected uint8 [..., H, W, 3], got {frames.dtype} {list(frames.shape)}")


def _check_pair(generated: np.ndarray, true: np.ndarray, mask: np.ndarray | None) -> None:
    check_frames("generated", generated)
    check_frames("true", true)
    if generated.shape != true.shape:
        raise ValueError(f"generated: expected {list(true.shape)} like true, got {list(generated.shape)}")
    if mask is not None and (mask.shape != true.shape[:-1] or mask.dtype != np.bool_):
        raise ValueError(f"mask: expected bool {list(true.shape[:-1])}, got {mask.dtype} {list(mask.shape)}")


def _masked_mean(values: Array, mask: np.ndarray | None) -> Array:
    """Mean over the last two axes, restricted to an optional mask; NaN where the mask is too small."""
    if mask is None:
        return values.mean((-2, -1))
    count = mask.sum((-2, -1))
    total = np.where(mask, values, 0.0).sum((-2, -1))
    return np.where(count >= MIN_PIXELS, total / np.maximum(count, 1), np.nan)


def luminance(frames: np.ndarray) -> Array:
    """BT.601 luminance in [0, 255] of uint8 frames ``[..., H, W, 3]``: float64 ``[..., H, W]``."""
    return frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def psnr(generated: np.ndarray, true: np.ndarray, mask: np.ndarray | None = None) -> Array:
    """Peak signal-to-noise ratio in dB, range 255, over pixels and colours, capped at 50.

    Args:
        generated: uint8 ``[..., H, W, 3]``.
        true: the same shape.
        mask: bool ``[..., H, W]``: only these pixels count.

    Returns:
        ``[...]``; NaN where the mask holds fewer than 64 pixels.
    """
    _check_pair(generated, true, mask)
    squared = ((generated.astype(np.float64) - true.astype(np.float64)) ** 2).mean(-1)
    floor = 255.0**2 / 10 ** (PSNR_CAP / 10)
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(_masked_mean(squared, mask), floor)))


def _blur(images: torch.Tensor) -> torch.Tensor:
    """Apply SSIM's Gaussian window to ``[N, H, W]``, without padding: ``[N, H - 10, W - 10]``."""
    x = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    kernel = torch.exp(-(x**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    rows = torch.nn.functional.conv2d(images[:, None], kernel.view(1, 1, -1, 1))
    return torch.nn.functional.conv2d(rows, kernel.view(1, 1, 1, -1))[:, 0]


def ssim(generated: np.ndarray, true: np.ndarray, mask: np.ndarray | None = None) -> Array:
    """Structural similarity of luminance (Wang et al. 2004: Gaussian 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03).

    Args:
        generated: uint8 ``[..., H, W, 3]``, at least 11 x 11 pixels.
        true: the same shape.
        mask: bool ``[..., H, W]``: only windows centred on these pixels count.

    Returns:
        ``[...]`` in [-1, 1]; NaN where the mask holds fewer than 64 window centres.
    """
    _check_pair(generated, true, mask)
    shape = true.shape[:-1]
    if min(shape[-2:]) < _WINDOW:
        raise ValueError(f"true: expected at least {_WINDOW} x {_WINDOW} pixels, got {list(shape[-2:])}")
    a, b = (torch.from_numpy(luminance(frames)).reshape(-1, *shape[-2:]) for frames in (generated, true))
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    border = _WINDOW // 2
    inner = None if mask is None else mask[..., border:-border, border:-border]
    return np.asarray(_masked_mean(similarity.reshape(*shape[:-2], *similarity.shape[-2:]).numpy(), inner))


def gradient_energy(frames: np.ndarray) -> Array:
    """Mean squared gradient of luminance, by central differences over interior pixels: ``[...]`` of ``[..., H, W, 3]``.

    Sharpness is the ratio of the sums of generated and true energy, see :func:`bootstrap_ratio`.
    """
    check_frames("frames", frames)
    y = luminance(frames)
    horizontal = (y[..., 1:-1, 2:] - y[..., 1:-1, :-2]) / 2
    vertical = (y[..., 2:, 1:-1] - y[..., :-2, 1:-1]) / 2
    return np.asarray((horizontal**2 + vertical**2).mean((-2, -1)))


def abs_rel(estimated: np.ndarray, true: np.ndarray) -> Array:
    """Mean of ``|estimated - true| / true`` where the true depth is in (0, 50] m; an unknown estimate (0) costs 1.

    Args:
        estimated: z-depth ``[..., H, W]`` in metres.
        true: the same shape.

    Returns:
        ``[...]``; NaN where fewer than 64 pixels have a true depth in that range.
    """
    if estimated.shape != true.shape:
        raise ValueError(f"estimated: expected {list(true.shape)} like true, got {list(estimated.shape)}")
    valid = (true > 0) & (true <= FAR)
    safe = np.where(valid, true, 1.0).astype(np.float64)
    return _masked_mean(np.abs(estimated - safe) / safe, valid)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval, and the number of walks."""

    mean: float
    low: float
    high: float
    count: int

    def metrics(self, name: str) -> dict[str, float]:
        """``{name, name_lo, name_hi}``."""
        return {name: self.mean, f"{name}_lo": self.low, f"{name}_hi": self.high}


@functools.lru_cache(maxsize=8)  # 15 MB each for 192 walks
def resampling_weights(count: int, seed: int) -> Array:
    """How often each walk is drawn in each of 10,000 resamples with replacement: ``[10000, count]``."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)


def bootstrap_mean(values: Array, seed: int = 0) -> Interval:
    """Mean of one value per walk ``[N]``, without walks whose value is NaN. Deterministic for a seed.

    For a paired difference of two variants, pass the differences on the same walks.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    means = resampling_weights(len(values), seed) @ values / len(values)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def bootstrap_difference(first: Array, second: Array, seed: int = 0) -> Interval:
    """Mean of one group of walks ``[N]`` minus the mean of another ``[M]``, resampled independently.

    Walks whose value is NaN are left out; the result is NaN if a group is empty.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (first, second))
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    if not len(first) or not len(second):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    # another seed for the second group, so that draws of equally large groups are independent
    means = resampling_weights(len(first), seed) @ first / len(first)
    means = means - resampling_weights(len(second), seed + 1) @ second / len(second)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(first.mean() - second.mean()), float(low), float(high), len(first) + len(second))


def bootstrap_pairs(values: Array, seed: int = 0) -> Interval:
    """U-statistic: the mean of symmetric values ``[N, N]`` over pairs of *different* walks, with walks resampled.

    A walk that is drawn twice does not pair with itself.

    Raises:
        ValueError: if ``values`` is not square, or has fewer than two walks.
    """
    values = np.array(values, dtype=np.float64)
    count = len(values)
    if values.shape != (count, count) or count < 2:
        raise ValueError(f"values: expected [N, N] with N >= 2, got {list(values.shape)}")
    np.fill_diagonal(values, 0.0)
    weights = resampling_weights(count, seed)
    pairs = count**2 - (weights**2).sum(1)
    sums = ((weights @ values) * weights).sum(1)
    low, high = np.percentile(sums[pairs > 0] / pairs[pairs > 0], [2.5, 97.5])
    return Interval(float(values.sum() / (count * (count - 1))), float(low), float(high), count)


def _ratio_draws(numerator: Array, denominator: Array, seed: int) -> Array:
    """Ratio of sums in each of 10,000 resamples; NaN where all denominators of a resample are 0."""
    if numerator.shape != denominator.shape or numerator.ndim != 1 or not len(numerator):
        raise ValueError(f"numerator: expected [N >= 1] like denominator {denominator.shape}, got {numerator.shape}")
    if not denominator.sum() > 0:
        raise ValueError(f"denominator: expected a positive sum, got {denominator.sum()}")
    weights = resampling_weights(len(numerator), seed)
    below = weights @ denominator
    return np.where(below > 0, weights @ numerator / np.where(below > 0, below, 1.0), np.nan)


def bootstrap_ratio(numerator: Array, denominator: Array, seed: int = 0) -> Interval:
    """Ratio of the sums of two non-negative values per walk ``[N]``, resampled together.

    Raises:
        ValueError: if the shapes differ, or the sum of denominators is not positive.
    """
    numerator, denominator = (np.asarray(values, dtype=np.float64) for values in (numerator, denominator))
    low, high = np.nanpercentile(_ratio_draws(numerator, denominator, seed), [2.5, 97.5])
    return Interval(float(numerator.sum() / denominator.sum()), float(low), float(high), len(numerator))


def bootstrap_ratio_difference(first: tuple[Array, Array], second: tuple[Array, Array], seed: int = 0) -> Interval:
    """Paired difference of two ratios of sums over the same walks, each ``(numerator [N], denominator [N])``.

    Raises:
        ValueError: as :func:`bootstrap_ratio`, or if the two are over different numbers of walks.
    """
    if len(first[0]) != len(second[0]):
        raise ValueError(f"second: expected {len(first[0])} walks like first, got {len(second[0])}")
    low, high = np.nanpercentile(_ratio_draws(*first, seed) - _ratio_draws(*second, seed), [2.5, 97.5])
    mean = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
    return Interval(float(mean), float(low), float(high), len(first[0]))
