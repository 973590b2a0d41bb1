"""Masking what a camera does not see gives the bits of dropping it."""

import pytest
import torch
from torch import Tensor

from mirage_sim.geometry import Camera, coverage, masked_coverage, masked_splat, se3_exp, splat


def scene(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Camera]:
    """Points of three worlds, of which some tie, lie behind the camera, or are not valid."""
    generator = torch.Generator().manual_seed(seed)
    points = 3 * torch.randn(3, count, 3, generator=generator)
    points[:, : count // 4] = points[:, count // 4 : 2 * (count // 4)]
    points[:, :5] = torch.tensor([[torch.inf] * 3, [torch.nan] * 3, [0.0] * 3, [0, 0, 1e30], [0, 0, -1]])
    footprint = 2 * torch.rand(3, count, generator=generator) + 0.01
    valid = torch.rand(3, count, generator=generator) < 0.8
    twists = 0.4 * torch.randn(3, 6, generator=generator)
    return points, footprint, valid, Camera.from_fov(se3_exp(twists), 70.0, (6, 8))


@pytest.mark.parametrize("samples_per_cell", [1, 2])
@pytest.mark.parametrize("tolerance", [0.0, 0.25])
def test_masked_splat_has_the_bits_of_splat(samples_per_cell: int, tolerance: float):
    points, footprint, valid, camera = scene(2000, 1)
    options = {"tolerance": tolerance, "refine": 2.0, "samples_per_cell": samples_per_cell}
    expected = splat(points, torch.arange(2000).expand(3, -1), footprint, camera, valid=valid, **options)
    found = masked_splat(points, footprint, camera, valid, **options)
    assert 0.2 < (expected.index >= 0).float().mean() and expected.log_scale.min() < 0 < expected.log_scale.max()
    for name in ("index", "depth", "offset", "log_scale"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype


@pytest.mark.parametrize("tolerance", [0.0, 0.25])
def test_masked_coverage_has_the_bits_of_coverage(tolerance: float):
    points, footprint, valid, camera = scene(300, 2)
    expected = coverage(points, footprint, camera, valid=valid, tolerance=tolerance, refine=2.0)
    surface, fine = masked_coverage(points, footprint, camera, valid, tolerance=tolerance, refine=2.0)
    assert torch.equal(surface, expected.surface) and torch.equal(fine, expected.fine)
    assert fine.any() and not fine.all() and (surface == 0).any()


def test_masked_splat_of_invalid_points_is_empty():
    points, footprint, valid, camera = scene(50, 3)
    seen = masked_splat(points, footprint, camera, valid & False, tolerance=0.1, refine=2.0)
    assert (seen.index == -1).all() and not seen.depth.any() and not seen.offset.any() and not seen.log_scale.any()
    surface, fine = masked_coverage(points, footprint, camera, valid & False, tolerance=0.1, refine=2.0)
    assert not surface.any() and not fine.any()
