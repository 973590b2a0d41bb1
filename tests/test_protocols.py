from dataclasses import replace

import pytest
import torch

from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.memory import PointMemory
from mirage_sim.protocols import MemoryView

FIELDS = tuple(MemoryView.__dataclass_fields__)


def scattered(batch: int, frames: int, height: int, width: int, seed: int = 0) -> MemoryView:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, frames, height, width)
    visible = torch.rand(shape, generator=generator) < 0.6
    return MemoryView(
        latents=torch.randn(batch, 5, *shape[1:], generator=generator) * visible[:, None],
        visible=visible,
        depth=(1 + torch.rand(shape, generator=generator)) * visible,
        source=torch.randperm(visible.numel(), generator=generator).view(shape).where(visible, -1),
        offset=(torch.rand(batch, 2, *shape[1:], generator=generator) - 0.5) * visible[:, None],
        log_scale=torch.randn(shape, generator=generator) * visible,
    )


def test_resize_to_finer_grid_and_back_is_identity() -> None:
    view = scattered(2, 3, 4, 6)
    fine = view.resize((8, 18))
    assert fine.visible.shape == (2, 3, 8, 18) and fine.latents.shape == (2, 5, 3, 8, 18)
    assert int(fine.visible.sum()) == int(view.visible.sum())
    assert fine.offset.abs().max() <= 0.5 and bool((fine.source[~fine.visible] == -1).all())
    back = fine.resize((4, 6))
    for name in ("latents", "visible", "depth", "source"):
        assert torch.equal(getattr(back, name), getattr(view, name)), name
    for name in ("offset", "log_scale"):
        torch.testing.assert_close(getattr(back, name), getattr(view, name), atol=1e-6, rtol=0)
    assert view.resize((4, 6)) is view


def test_largest_offset_stays_in_its_cell() -> None:
    view = scattered(1, 1, 2, 2)
    edge = torch.full_like(view.offset, 0.49999997)
    fine = MemoryView(view.latents, torch.ones_like(view.visible), view.depth, view.source, edge, view.log_scale)
    assert int(fine.resize((4, 4)).visible[..., 1::2, 1::2].sum()) == 4


def test_coarser_grid_shows_the_nearest_sample() -> None:
    fine = scattered(1, 1, 4, 4, seed=3)
    coarse = fine.resize((2, 2))
    for row in range(2):
        for column in range(2):
            part = (0, 0, slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
            seen = fine.visible[part]
            assert bool(coarse.visible[0, 0, row, column]) == bool(seen.any())
            if seen.any():
                nearest = fine.depth[part].masked_fill(~seen, torch.inf).min()
                assert coarse.depth[0, 0, row, column] == nearest
                assert coarse.source[0, 0, row, column] == fine.source[part][fine.depth[part] == nearest]


def test_surface_is_harmonic_mean_near_the_nearest_sample() -> None:
    depth = torch.tensor([[2.0, 2.4, 3.0, 0.0], [9.0, 0.0, 0.0, 0.0]])[None, None]
    view = replace(scattered(1, 1, 2, 4), depth=depth, visible=depth > 0)
    torch.testing.assert_close(view.surface((1, 2)), torch.tensor([[[[24 / 11, 3.0]]]]))  # harmonic; 9 m lies behind
    assert torch.equal(view.surface((2, 4)), depth), "holes are 0"


def test_surface_is_unbiased_on_a_floor() -> None:
    """The rows of a level floor under a camera that looks straight ahead, 1.5 m above it."""
    fine, coarse = (1.5 * rows / (torch.arange(rows // 2) + 0.5) for rows in (48, 24))  # from the horizon on
    depth = fine[None, None, :, None]
    zeros = torch.zeros_like(depth)
    view = MemoryView(zeros[:, None], depth > 0, depth, zeros.long(), zeros[:, None].expand(-1, 2, -1, -1, -1), zeros)
    near = slice(4, None)  # a cell of the rows before spans more than one surface
    torch.testing.assert_close(view.surface((12, 1))[0, 0, near, 0], coarse[near])
    assert bool((view.resize((12, 1)).depth[0, 0, near, 0] < 0.99 * coarse[near]).all())


def test_fine_read_equals_read_on_finer_grid() -> None:
    camera = Camera.from_fov(torch.eye(4)[None], 60.0, (24, 32))
    moved = Camera.from_fov(se3_exp(torch.tensor([[0.02, 0.01, 0.0, 0.0, 0.0, 0.0]])), 60.0, (24, 32))
    plain, keen = PointMemory(3, (1, 4, 4)), PointMemory(3, (1, 4, 4), samples_per_cell=2)
    everything = {
        "latents": torch.randn(3, 1, 6, 8, generator=torch.Generator().manual_seed(0)),
        "frames": torch.zeros(3, 1, 24, 32),
        "depth": torch.full((1, 24, 32), 3.0),
        "static": torch.ones(1, 24, 32, dtype=torch.bool),
        "camera": camera,
    }
    map = plain.write(plain.empty(), **everything)
    expected, view = plain.read(map, moved), keen.read(map, moved)
    assert int(expected.visible.sum()) > 30
    for name in FIELDS:
        torch.testing.assert_close(getattr(view.resize((6, 8)), name), getattr(expected, name), atol=1e-6, rtol=0)
        torch.testing.assert_close(getattr(view, name), getattr(expected.resize((12, 16)), name), atol=1e-6, rtol=0)


def test_grids_that_do_not_divide_are_rejected() -> None:
    with pytest.raises(ValueError, match="^size: expected a multiple or a divisor of 4 x 6, got 6 x 6"):
        scattered(1, 1, 4, 6).resize((6, 6))
