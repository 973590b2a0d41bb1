"""Picture and depth metrics, and how sure their means are. All exact definitions are in ``docs/protocol.md``."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

PSNR_CAP = 50.0  # dB, per picture: an exact copy must not decide a mean
MIN_PIXELS = 64  # a part of a picture smaller than this has no figure (NaN)
FAR = 50.0  # metres; true depth beyond this is sky or too coarse to be scored
RESAMPLES = 10_000
_WINDOW, _SIGMA = 11, 1.5


def check_frames(name: str, frames: np.ndarray) -> None:
    """Raise ValueError, naming the argument, unless these are uint8 frames ``[..., H, W, 3]``."""
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
    """Mean over the last two axes, of the masked part where a mask is given; NaN where that part is too small."""
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


def _blur(pictures: torch.Tensor) -> torch.Tensor:
    """Gaussian window of SSIM over ``[N, H, W]``, valid part only: ``[N, H - 10, W - 10]``."""
    x = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    kernel = torch.exp(-(x**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    rows = torch.nn.functional.conv2d(pictures[:, None], kernel.view(1, 1, -1, 1))
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

    Sharpness is the ratio of its sums, generated over true: see :func:`bootstrap_ratio`.
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
        ``[...]``; NaN where fewer than 64 pixels can be scored.
    """
    if estimated.shape != true.shape:
        raise ValueError(f"estimated: expected {list(true.shape)} like true, got {list(estimated.shape)}")
    valid = (true > 0) & (true <= FAR)
    safe = np.where(valid, true, 1.0).astype(np.float64)
    return _masked_mean(np.abs(estimated - safe) / safe, valid)


@dataclass(frozen=True)
class Interval:
    """A mean over walks with its 95 % bootstrap interval, and over how many walks it was taken."""

    mean: float
    low: float
    high: float
    count: int

    def metrics(self, name: str) -> dict[str, float]:
        """``{name, name_lo, name_hi}``."""
        return {name: self.mean, f"{name}_lo": self.low, f"{name}_hi": self.high}


@functools.lru_cache(maxsize=8)  # 15 MB each for 192 walks
def _resampling_weights(count: int, seed: int) -> Array:
    """How often each of ``count`` walks is drawn, in each of 10,000 draws with replacement: ``[10000, count]``."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)


def bootstrap_mean(values: Array, seed: int = 0) -> Interval:
    """Mean of one figure per walk ``[N]``; walks without one (NaN) are left out. The same input, the same interval.

    For a paired difference of two variants, pass the differences on the same walks.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    means = _resampling_weights(len(values), seed) @ values / len(values)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def bootstrap_difference(first: Array, second: Array, seed: int = 0) -> Interval:
    """Mean of one group of walks ``[N]`` minus the mean of another ``[M]``: unpaired, each group resampled by itself.

    Walks without a figure (NaN) are left out; a group without any has no difference.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (first, second))
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    if not len(first) or not len(second):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    # another seed for the second group: draws of equal groups must not go together
    means = _resampling_weights(len(first), seed) @ first / len(first)
    means = means - _resampling_weights(len(second), seed + 1) @ second / len(second)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(first.mean() - second.mean()), float(low), float(high), len(first) + len(second))


def bootstrap_pairs(values: Array, seed: int = 0) -> Interval:
    """Mean of a symmetric figure per pair of *different* walks ``[N, N]``, with walks resampled: a U-statistic's.

    A walk that is drawn twice makes no pair with itself.

    Raises:
        ValueError: if it is not square, or there are fewer than two walks.
    """
    values = np.array(values, dtype=np.float64)
    count = len(values)
    if values.shape != (count, count) or count < 2:
        raise ValueError(f"values: expected [N, N] with N >= 2, got {list(values.shape)}")
    np.fill_diagonal(values, 0.0)
    weights = _resampling_weights(count, seed)
    pairs = count**2 - (weights**2).sum(1)
    sums = ((weights @ values) * weights).sum(1)
    low, high = np.percentile(sums[pairs > 0] / pairs[pairs > 0], [2.5, 97.5])
    return Interval(float(values.sum() / (count * (count - 1))), float(low), float(high), count)


def _ratio_draws(numerator: Array, denominator: Array, seed: int) -> Array:
    """The ratio of sums in each of 10,000 draws; NaN where a draw holds flat pictures only, which says nothing."""
    if numerator.shape != denominator.shape or numerator.ndim != 1 or not len(numerator):
        raise ValueError(f"numerator: expected [N >= 1] like denominator {denominator.shape}, got {numerator.shape}")
    if not denominator.sum() > 0:
        raise ValueError(f"denominator: expected a positive sum, got {denominator.sum()}")
    weights = _resampling_weights(len(numerator), seed)
    below = weights @ denominator
    return np.where(below > 0, weights @ numerator / np.where(below > 0, below, 1.0), np.nan)


def bootstrap_ratio(numerator: Array, denominator: Array, seed: int = 0) -> Interval:
    """Ratio of the sums of two positive figures per walk ``[N]``, both resampled together.

    Raises:
        ValueError: if the shapes differ, or the denominators do not sum to something positive.
    """
    numerator, denominator = (np.asarray(values, dtype=np.float64) for values in (numerator, denominator))
    low, high = np.nanpercentile(_ratio_draws(numerator, denominator, seed), [2.5, 97.5])
    return Interval(float(numerator.sum() / denominator.sum()), float(low), float(high), len(numerator))


def bootstrap_ratio_difference(first: tuple[Array, Array], second: tuple[Array, Array], seed: int = 0) -> Interval:
    """Difference of two ratios of sums over the same walks, each ``(numerator [N], denominator [N])``: paired.

    Raises:
        ValueError: as :func:`bootstrap_ratio`, or if the two are over different numbers of walks.
    """
    if len(first[0]) != len(second[0]):
        raise ValueError(f"second: expected {len(first[0])} walks like first, got {len(second[0])}")
    low, high = np.nanpercentile(_ratio_draws(*first, seed) - _ratio_draws(*second, seed), [2.5, 97.5])
    mean = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
    return Interval(float(mean), float(low), float(high), len(first[0]))
