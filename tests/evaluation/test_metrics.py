import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.evaluation.metrics import (
    MIN_PIXELS,
    abs_rel,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_ratio_difference,
    gradient_energy,
    luminance,
    psnr,
    ssim,
)


def noise(seed: int, shape: tuple[int, ...] = (24, 32, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_psnr_of_a_known_difference():
    true = np.full((2, 24, 32, 3), 100, np.uint8)
    generated = true.copy()
    generated[0] += 10  # mean squared error 100
    expected = [10 * math.log10(255**2 / 100), 50.0]  # 28.13 dB, and the cap for an exact copy
    np.testing.assert_allclose(psnr(generated, true), expected)


def test_psnr_does_not_wrap_around():
    black, white = np.zeros((24, 32, 3), np.uint8), np.full((24, 32, 3), 255, np.uint8)
    assert psnr(black, white) == pytest.approx(0.0)
    assert psnr(white, black) == pytest.approx(0.0)


def test_psnr_is_capped_only_near_equality():
    true = np.full((100, 100, 3), 100, np.uint8)
    generated = true.copy()
    generated[0, 0, 0] = 101  # one step in 30,000 values: 92.9 dB uncapped
    assert psnr(generated, true) == 50.0
    generated[:] = 101  # 48.13 dB: below the cap
    assert psnr(generated, true) == pytest.approx(20 * math.log10(255))


def test_masked_psnr_uses_the_mask_alone():
    true = np.full((24, 32, 3), 100, np.uint8)
    generated = true.copy()
    generated[:, 16:] = 110
    right = np.zeros((24, 32), bool)
    right[:, 16:] = True
    assert psnr(generated, true, right) == pytest.approx(10 * math.log10(255**2 / 100))
    assert psnr(generated, true, ~right) == 50.0


def test_too_small_a_mask_scores_nan():
    frame = noise(0)
    mask = np.zeros((24, 32), bool)
    mask.reshape(-1)[: MIN_PIXELS - 1] = True
    assert np.isnan(psnr(frame, frame, mask))
    mask.reshape(-1)[MIN_PIXELS - 1] = True
    assert psnr(frame, frame, mask) == 50.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), other=st.integers(0, 2**32 - 1), split=st.integers(4, 28))
def test_mse_is_the_weighted_mean_over_parts(seed: int, other: int, split: int):
    a, b = noise(seed), noise(other)
    left = np.zeros((24, 32), bool)
    left[:, :split] = True
    mse = [10 ** (-psnr(a, b, mask) / 10) for mask in (None, left, ~left)]
    if seed != other:
        assert mse[0] == pytest.approx((mse[1] * split + mse[2] * (32 - split)) / 32)
    assert psnr(a, b) == psnr(b, a)


def reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM window by window, as in the paper."""
    x = np.arange(11) - 5
    window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 1.5**2))
    window /= window.sum()
    a, b = luminance(a), luminance(b)
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_ssim_equals_the_reference_implementation():
    a = noise(1, (18, 20, 3))
    b = (a * 0.7 + noise(2, a.shape) * 0.3).astype(np.uint8)
    assert ssim(a, b) == pytest.approx(reference_ssim(a, b), abs=1e-9)
    assert 0.3 < ssim(a, b) < 0.99


def test_ssim_of_constants_has_a_closed_form():
    a, b = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 150, np.uint8)
    c1 = 2.55**2
    assert ssim(a, b) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_ssim_is_one_for_equality_and_falls_with_noise():
    a = noise(3, (4, 24, 32, 3))
    np.testing.assert_allclose(ssim(a, a), 1.0)
    mixed = [(a * (1 - k) + noise(4, a.shape) * k).round().astype(np.uint8) for k in (0.1, 0.3, 0.6)]
    scores = [float(ssim(b, a).mean()) for b in mixed]
    assert 1.0 > scores[0] > scores[1] > scores[2] > 0.0


def test_masked_ssim_counts_windows_centred_on_the_mask():
    a = noise(5, (32, 64, 3))
    b = a.copy()
    b[:, 40:] = 0
    left = np.zeros((32, 64), bool)
    left[:, :34] = True  # centres whose windows end before column 40
    assert ssim(b, a, left) == pytest.approx(1.0)
    assert ssim(b, a, ~left) < 0.5


def test_gradient_energy_of_ramp_and_constant():
    ramp = np.zeros((24, 32, 3), np.uint8)
    ramp[:] = (3 * np.arange(32))[:, None]
    assert gradient_energy(ramp) == pytest.approx(9.0)
    assert gradient_energy(ramp + 2 * np.arange(24, dtype=np.uint8)[:, None, None]) == pytest.approx(9.0 + 4.0)
    assert gradient_energy(np.full((24, 32, 3), 77, np.uint8)) == pytest.approx(0.0, abs=1e-12)


def test_blur_lowers_the_energy_ratio():
    stripes = np.zeros((24, 32, 3), np.uint8)
    stripes[:, (np.arange(32) // 2) % 2 == 0] = 200
    blurred = (stripes.astype(int) + np.roll(stripes, 1, axis=1)) // 2
    ratio = bootstrap_ratio(gradient_energy(blurred.astype(np.uint8))[None], gradient_energy(stripes)[None])
    assert 0.2 < ratio.mean < 0.8


def test_abs_rel_of_a_known_error():
    true = np.full((2, 16, 16), 2.0, np.float32)
    true[1] = 4.0
    estimated = true * 1.1
    estimated[1, :8] = 0.0  # unknown
    np.testing.assert_allclose(abs_rel(estimated, true), [0.1, (0.1 + 1.0) / 2], rtol=1e-5)


def test_abs_rel_ignores_the_sky():
    true = np.full((16, 16), 100.0, np.float32)
    assert np.isnan(abs_rel(true, true))
    true[8:] = 5.0
    assert abs_rel(np.full_like(true, 6.0), true) == pytest.approx(0.2)


def test_bootstrap_is_deterministic_and_covers_the_mean():
    values = np.random.default_rng(0).normal(20.0, 5.0, 24)
    first, second = bootstrap_mean(values), bootstrap_mean(values)
    assert first == second
    assert first != bootstrap_mean(values, seed=1)
    assert first.mean == pytest.approx(values.mean())
    # the width of a normal interval is 2 * 1.96 standard errors; the percentile bootstrap comes close
    expected = 2 * 1.96 * values.std() / math.sqrt(len(values))
    assert first.high - first.low == pytest.approx(expected, rel=0.1)
    assert first.low < first.mean < first.high


def test_bootstrap_ignores_nan():
    values = np.array([1.0, np.nan, 3.0])
    assert bootstrap_mean(values) == bootstrap_mean(np.array([1.0, 3.0]))
    nothing = bootstrap_mean(np.array([np.nan]))
    assert nothing.count == 0 and math.isnan(nothing.mean)


def test_paired_intervals_are_narrower_than_unpaired():
    rng = np.random.default_rng(0)
    hard = rng.normal(20.0, 5.0, 48)  # how hard each walk is, common to both variants
    a, b = hard + 1.0 + rng.normal(0, 0.3, 48), hard
    paired = bootstrap_mean(a - b)
    assert paired.low > 0.5
    assert bootstrap_mean(a).low < bootstrap_mean(b).high


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=12), st.floats(0.1, 10.0))
def test_ratio_of_proportional_values_has_no_width(values: list[float], factor: float):
    true = np.array(values)
    interval = bootstrap_ratio(factor * true, true)
    for bound in (interval.mean, interval.low, interval.high):
        assert bound == pytest.approx(factor)


def test_ratio_is_of_sums():
    interval = bootstrap_ratio(np.array([10.0, 1.0]), np.array([100.0, 1.0]))
    assert interval.mean == pytest.approx(11 / 101)
    assert interval.low == pytest.approx(0.1) and interval.high == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: psnr(noise(0), noise(0)[:-1]), "generated"),
        (lambda: psnr(noise(0).astype(np.float32), noise(0)), "generated"),
        (lambda: psnr(noise(0), noise(0), np.ones((24, 31), bool)), "mask"),
        (lambda: ssim(noise(0, (8, 32, 3)), noise(0, (8, 32, 3))), "true"),
        (lambda: gradient_energy(np.zeros((4, 4), np.uint8)), "frames"),
        (lambda: abs_rel(np.ones((4, 4)), np.ones((4, 5))), "estimated"),
        (lambda: bootstrap_ratio(np.ones(3), np.ones(4)), "numerator"),
        (lambda: bootstrap_ratio(np.ones(3), np.zeros(3)), "denominator"),
    ],
)
def test_wrong_input_is_rejected(call, named: str):
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        call()


def test_unpaired_difference_resamples_both_groups():
    rng = np.random.default_rng(0)
    first, second = rng.normal(3.0, 1.0, 40), rng.normal(1.0, 2.0, 10)
    interval = bootstrap_difference(first, np.append(second, np.nan))
    draws = rng.choice(first, (20_000, 40)).mean(1) - rng.choice(second, (20_000, 10)).mean(1)
    assert interval.mean == pytest.approx(first.mean() - second.mean())
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.06)
    assert interval.count == 50
    equal = bootstrap_difference(first, first)
    assert equal.mean == 0.0 and equal.low < -0.2 < 0.2 < equal.high, "the groups are drawn apart"
    assert math.isnan(bootstrap_difference(first, np.array([np.nan])).mean)


def test_ratio_difference_resamples_the_same_walks():
    rng = np.random.default_rng(1)
    below = rng.uniform(1.0, 100.0, 12)
    above = below * rng.uniform(0.2, 1.0, 12)
    shifted = bootstrap_ratio_difference((above + 0.1 * below, below), (above, below))
    assert (shifted.mean, shifted.low, shifted.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="^second: expected 12 walks"):
        bootstrap_ratio_difference((above, below), (above[:-1], below[:-1]))
