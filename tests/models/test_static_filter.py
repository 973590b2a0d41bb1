import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.geometry import Camera
from mirage_sim.models.static_filter import AllOf, GeometricFilter, KeepAll, SkyFilter
from mirage_sim.protocols import MemoryView

SIZE, CELLS, CELL = (24, 32), (6, 8), 4


def camera(frames: int) -> Camera:
    return Camera.from_fov(torch.eye(4).expand(1, frames, 4, 4), 60, SIZE)


def view_of(depth: torch.Tensor) -> MemoryView:
    """A memory that shows this depth ``[B, T, h, w]``, 0 for holes."""
    zeros = torch.zeros_like(depth)
    return MemoryView(
        latents=zeros[:, None].expand(-1, 2, -1, -1, -1),
        visible=depth > 0,
        depth=depth,
        source=zeros.long(),
        offset=zeros[:, None].expand(-1, 2, -1, -1, -1),
        log_scale=zeros,
    )


def pixels(cells: torch.Tensor) -> torch.Tensor:
    return cells.repeat_interleave(CELL, -2).repeat_interleave(CELL, -1)


def apply(static_filter: object, depth: torch.Tensor, remembered: torch.Tensor) -> torch.Tensor:
    frames = torch.zeros(1, 3, depth.shape[1], *SIZE)
    return static_filter(frames, depth, view_of(remembered), camera(depth.shape[1]))  # type: ignore[operator]


def test_new_object_is_excluded_with_a_margin() -> None:
    remembered = torch.full((1, 1, *CELLS), 4.0)
    depth = pixels(remembered)
    depth[..., 8:12, 12:16] = 1.5  # one cell, at (2, 3)
    expected = torch.ones(1, 1, *CELLS, dtype=torch.bool)
    expected[..., 1:4, 2:5] = False
    assert torch.equal(apply(GeometricFilter(), depth, remembered), pixels(expected))
    expected = torch.ones_like(expected)
    expected[..., 2, 3] = False
    assert torch.equal(apply(GeometricFilter(margin=0), depth, remembered), pixels(expected))


def test_removed_object_is_excluded() -> None:
    remembered = torch.full((1, 1, *CELLS), 4.0)
    remembered[..., 0, 0] = 1.5
    found = apply(GeometricFilter(margin=0), torch.full((1, 1, *SIZE), 4.0), remembered)
    assert not found[..., :4, :4].any() and int((~found).sum()) == CELL * CELL


@settings(deadline=None, max_examples=50)
@given(st.floats(0.5, 20.0), st.floats(0.3, 3.0), st.floats(0.05, 0.9))
def test_tolerance_is_relative_to_the_larger_depth(depth: float, ratio: float, tolerance: float) -> None:
    remembered = torch.full((1, 1, *CELLS), depth)
    smaller = min(ratio, 1 / ratio)
    if abs(smaller - (1 - tolerance)) > 1e-3:
        found = apply(GeometricFilter(tolerance), pixels(remembered) * ratio, remembered)
        assert bool(found.all()) == (smaller > 1 - tolerance) and bool(found.any()) == bool(found.all())


def test_unknown_depth_is_not_excluded() -> None:
    nothing = torch.zeros(1, 1, *CELLS)
    assert apply(GeometricFilter(), torch.full((1, 1, *SIZE), 2.0), nothing).all()
    assert apply(GeometricFilter(), torch.zeros(1, 1, *SIZE), nothing + 2.0).all()


def test_only_frames_of_the_view_are_checked() -> None:
    remembered = torch.full((1, 2, *CELLS), 4.0)
    depth = torch.ones(1, 5, *SIZE)
    found = apply(GeometricFilter(), depth, remembered)
    assert not found[:, ::4].any() and found[:, 1:4].all()


def test_sky_filter_excludes_far_depth() -> None:
    depth = torch.full((1, 1, *SIZE), 3.0)
    depth[..., :5, :] = 100.0
    found = apply(SkyFilter(), depth, torch.zeros(1, 1, *CELLS))
    assert not found[..., :5, :].any() and found[..., 5:, :].all()
    assert not apply(SkyFilter(far=3.0), depth, torch.zeros(1, 1, *CELLS)).any()


def test_all_of_keeps_what_all_filters_keep() -> None:
    remembered = torch.full((1, 1, *CELLS), 4.0)
    depth = pixels(remembered)
    depth[..., :5, :] = 100.0
    depth[..., 20:, :] = 1.0
    remembered[..., :2, :] = 0.0  # the memory does not know about the sky
    parts = (KeepAll(), SkyFilter(), GeometricFilter())
    together = apply(AllOf(parts), depth, remembered)
    alone = [apply(part, depth, remembered) for part in parts]
    assert torch.equal(together, alone[0] & alone[1] & alone[2])
    assert together.any() and not torch.equal(together, alone[1]) and not torch.equal(together, alone[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AllOf(()), "filters: expected one or more"),
        (lambda: SkyFilter(0.0), "far: expected positive metres, got 0"),
        (lambda: SkyFilter(float("nan")), "far: expected positive metres, got nan"),
        (lambda: GeometricFilter(tolerance=1.0), "tolerance: expected a fraction"),
        (lambda: GeometricFilter(margin=-1), "margin: expected a number of cells"),
    ],
)
def test_bad_arguments_are_rejected(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
