from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mirage_sim.memory.retrieval import choose_references, occupancy, overlaps

Voxels = set[tuple[int, int, int]]
NOTHING = torch.zeros(0, 3)
COORDINATES = st.floats(-3, 3, width=32) | st.sampled_from([0.0, -0.0, 0.1, 0.4, -0.4, 1e4, -1e30])
CLOUDS = st.integers(0, 60).flatmap(lambda count: arrays(np.float32, (count, 3), elements=COORDINATES))


def reference_voxels(points: np.ndarray, voxel: float) -> Voxels:
    reach = 1 << 20
    index = np.floor(points / np.float32(voxel)).clip(-reach, reach - 1)
    return {(int(x), int(y), int(z)) for x, y, z in index}


def reference_overlap(a: Voxels, b: Voxels) -> Fraction:
    return Fraction(len(a & b), max(len(a | b), 1))


def reference_choice(place: Voxels, frames: list[Voxels], threshold: float, most: int) -> list[int]:
    shares = {i: reference_overlap(place, frame) for i, frame in enumerate(frames)}
    ranked = sorted(shares, key=lambda i: (-shares[i], i))[:most]
    return [i for i in ranked if float(shares[i]) >= threshold]


@settings(deadline=None)  # the first example compiles
@given(
    clouds=st.lists(CLOUDS, min_size=1, max_size=7),
    voxel=st.sampled_from([0.1, 0.25, 1.7]),
    threshold=st.sampled_from([0.0, 0.04, 0.2, 1.0]),
    most=st.integers(0, 5),
)
def test_overlap_agrees_with_python_sets(clouds: list[np.ndarray], voxel: float, threshold: float, most: int) -> None:
    clouds[1:1] = [clouds[0][::2]]  # something in common
    sets = [reference_voxels(cloud, voxel) for cloud in clouds]
    ours = [occupancy(torch.from_numpy(cloud), voxel) for cloud in clouds]
    for mine, other in zip(ours, sets, strict=True):
        assert int(np.bitwise_count(mine.masks).sum()) == len(other)
        assert bool((np.diff(mine.bricks) > 0).all()) and bool((mine.masks > 0).all())
    assert overlaps(ours[0], ours[1:]).tolist() == [float(reference_overlap(sets[0], other)) for other in sets[1:]]
    chosen = choose_references(ours[0], ours[1:], threshold, most)
    assert chosen == reference_choice(sets[0], sets[1:], threshold, most)


def test_choice_in_a_room_equals_reference(room_views: torch.Tensor) -> None:
    sets = [reference_voxels(points.numpy(), 0.1) for points in room_views]
    ours = [occupancy(points) for points in room_views]
    shares = [float(reference_overlap(sets[0], other)) for other in sets]
    assert overlaps(ours[0], ours).tolist() == shares
    assert 0.04 < sorted(shares)[-5] < 1 and min(shares) < 0.04, "views that are refused, and more than are taken"
    chosen = choose_references(ours[0], ours)
    assert chosen == reference_choice(sets[0], sets, 0.04, 4) and chosen[0] == 0 and len(chosen) == 4


def test_order_and_duplicates_of_points_do_not_matter(room_views: torch.Tensor) -> None:
    points = room_views[0]
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    again = occupancy(torch.cat([points[order], points[:100]]))
    for mine, other in zip(occupancy(points), again, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_ties_go_to_older_frames() -> None:
    near, far = (occupancy(torch.full((1, 3), at)) for at in (0.0, 5.0))
    assert choose_references(near, [far, near, near, near], most=2) == [1, 2]


def test_empty_sets_do_not_overlap() -> None:
    empty, some = occupancy(NOTHING), occupancy(torch.zeros(1, 3))
    assert overlaps(empty, [empty, some]).tolist() == [0, 0]
    assert overlaps(some, []).tolist() == [] and choose_references(some, []) == []


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: occupancy(NOTHING, 0.0), "voxel: expected a positive length in metres, got 0.0"),
        (lambda: occupancy(NOTHING, float("nan")), "voxel: expected"),
        (lambda: occupancy(torch.zeros(4, 2)), r"points: expected \[..., 3\], got \[4, 2\]"),
        (lambda: occupancy(torch.full((1, 3), torch.nan)), "points: expected finite"),
        (lambda: choose_references(occupancy(NOTHING), [], threshold=1.5), "threshold: expected"),
        (lambda: choose_references(occupancy(NOTHING), [], most=-1), "most: expected at least 0, got -1"),
    ],
)
def test_bad_input(call: object, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        call()
