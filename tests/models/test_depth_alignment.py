import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.geometry import Camera
from mirage_sim.models.depth_alignment import Aligned, align

CELLS, STRIDE = (8, 10), 4
scales = st.floats(0.2, 5.0)
seeds = st.integers(0, 2**20)


def scene(seed: int, frames: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """True depth, and remembered depth of the same scene; every cell has constant depth."""
    generator = torch.Generator().manual_seed(seed)
    known = 1.0 + 7.0 * torch.rand(1, frames, *CELLS, generator=generator)
    return known.repeat_interleave(STRIDE, -2).repeat_interleave(STRIDE, -1), known


def with_outliers(known: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """Make some cells nearer by up to six times, as if occluded."""
    generator = torch.Generator().manual_seed(seed + 1)
    wrong = torch.rand(known.shape, generator=generator).argsort(-1).argsort(-1) < share * known.shape[-1]
    return torch.where(wrong, known / (2 + 4 * torch.rand(known.shape, generator=generator)), known)


def affine(depth: torch.Tensor, scale: float, shift: float) -> torch.Tensor:
    return 1 / (scale / depth + shift)


@settings(deadline=None)
@given(scales, seeds, st.sampled_from([0.0, 0.2, 0.4]))
def test_scale_is_recovered_despite_outliers(scale: float, seed: int, share: float) -> None:
    true, known = scene(seed)
    found = align(true * scale, with_outliers(known, share, seed))
    torch.testing.assert_close(found, true, rtol=1e-4, atol=0)


@settings(deadline=None)
@given(scales, st.floats(-0.02, 0.3), seeds, st.sampled_from([0.0, 0.1, 0.2]))
def test_scale_and_shift_are_recovered_despite_outliers(scale: float, shift: float, seed: int, share: float) -> None:
    true, known = scene(seed)
    # the estimator's error is the inverse of the fit
    estimated = affine(true, 1 / scale, shift)
    found = align(estimated, with_outliers(known, share, seed), shift=True)
    torch.testing.assert_close(found, true, rtol=1e-3, atol=0)
    if abs(shift) > 0.1:
        assert not torch.allclose(align(estimated, known), true, rtol=0.01)


@settings(deadline=None)
@given(seeds, st.booleans())
def test_noise_is_averaged_and_equal_depth_unchanged(seed: int, shift: bool) -> None:
    true, known = scene(seed)
    torch.testing.assert_close(align(true, known, shift=shift), true, rtol=1e-4, atol=0)
    noise = torch.randn(known.shape, generator=torch.Generator().manual_seed(seed)).mul(0.02).exp()
    found = align(2.0 * true, known * noise)
    assert (found / true - 1).abs().max() < 0.02


def test_frames_with_few_cells_take_the_nearest_fit() -> None:
    true, known = scene(3, frames=5)
    drift = torch.tensor([2.0, 2.0, 0.5, 0.5, 0.5])[:, None, None]
    seen = known.clone()
    seen[:, [0, 3]] = 0.0
    seen[:, 0, 0, :7] = known[:, 0, 0, :7] * 3  # seven cells with wrong depth
    found = align(true * drift, seen, fewest=8)
    torch.testing.assert_close(found, true, rtol=1e-4, atol=0)
    # exactly enough
    few = torch.zeros_like(known)
    few[..., 0, :8] = known[..., 0, :8]
    torch.testing.assert_close(align(true * 3, few, fewest=8), true, rtol=1e-4, atol=0)


@pytest.mark.parametrize("shift", [False, True])
def test_depth_without_known_cells_is_unchanged(shift: bool) -> None:
    true, known = scene(4, frames=2)
    for nothing in (torch.zeros_like(known), torch.where(torch.arange(10) < 3, known, 0.0) * (known > 7.9)):
        assert torch.equal(align(true, nothing, shift=shift), align(true, torch.zeros_like(known)))
        torch.testing.assert_close(align(true, nothing, shift=shift), true)


def test_worlds_are_aligned_independently() -> None:
    (true, known), (other, other_known) = scene(5), scene(6)
    together = align(torch.cat([true * 2, other * 3]), torch.cat([known, torch.zeros_like(other_known)]))
    torch.testing.assert_close(together, torch.cat([true, other * 3]), rtol=1e-4, atol=0)


def test_unknown_depth_stays_unknown() -> None:
    true, known = scene(7)
    estimated = true * 2
    estimated[..., :20, :] = 0.0  # five rows of cells; three are left
    found = align(estimated, known, fewest=30)
    assert not found[..., :20, :].any()
    torch.testing.assert_close(found[..., 20:, :], true[..., 20:, :], rtol=1e-4, atol=0)
    torch.testing.assert_close(align(estimated, known, fewest=31), estimated)


def test_flat_wall_fits_only_the_scale() -> None:
    known = 2.0 + 0.02 * torch.rand(1, 1, *CELLS, generator=torch.Generator().manual_seed(0))
    wall = 4.0 + 0.02 * torch.rand(1, 1, 32, 40, generator=torch.Generator().manual_seed(1))
    wall[..., :2] = 40.0  # a far object that the memory does not see, at no cell's centre
    found = align(wall, known, shift=True)
    torch.testing.assert_close(found, wall / 2, rtol=0.02, atol=0)


def test_far_depth_stays_in_range() -> None:
    """A negative shift would move far points behind the camera."""
    true, known = scene(8)
    estimated = affine(true, 1.0, 0.1)
    estimated[..., 0, 0] = 1000.0
    found = align(estimated, known, shift=True)
    assert found[..., 0, 0] == pytest.approx(100.0, rel=1e-3)
    assert bool((found > 0).all())


def test_wrapper_passes_inputs_and_aligns() -> None:
    true, known = scene(9)
    frames, camera = torch.zeros(1, 3, 1, 32, 40), Camera.from_fov(torch.eye(4).expand(1, 1, 4, 4), 60, (32, 40))
    calls = []

    def twice_as_far(*args: object) -> torch.Tensor:
        calls.append(args)
        return true * 2

    torch.testing.assert_close(Aligned(twice_as_far)(frames, camera, known), true, rtol=1e-4, atol=0)
    assert calls == [(frames, camera, known)]
    with pytest.raises(ValueError, match="fewest: expected at least 4 cells, got 3"):
        Aligned(twice_as_far, fewest=3)
