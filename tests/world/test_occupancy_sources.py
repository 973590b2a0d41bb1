"""Maps in plan of known points."""

import numpy as np
import pytest
import torch

from mirage_sim.memory import LatentMap
from mirage_sim.memory.blocks import GENERATED, Points
from mirage_sim.world.occupancy import FREE, OCCUPIED, UNKNOWN, _count, occupancy_map


def remembered(*points: tuple[list[list[float]], bool]) -> LatentMap:
    """A memory of points, each group observed or generated, with footprints of 4 cm."""
    map = LatentMap.empty(8)
    for xyz, observed in points:
        n = len(xyz)
        first = map.next_observed if observed else map.next_id
        new = Points(torch.tensor(xyz), torch.zeros(n, 8), first + torch.arange(n), torch.full((n,), 0.04))
        map = map.add(new, np.zeros(0, np.int64), n, observed)
    return map


# y points down; the camera is at 0 and the floor at 1.5
FLOOR = [[0.0, 1.5, 0.02 + 0.1 * i] for i in range(30)]
WALL = [[1.0, 0.3 + 0.01 * i, 2.02] for i in range(6)]  # ahead and to the right


def at(grid, x, y):
    column, row = (int((value - start) / grid.resolution) for value, start in zip((x, y), grid.origin, strict=True))
    return grid.cells[row, column]


def test_ground_is_free_and_obstacles_are_occupied():
    grid = occupancy_map(remembered((FLOOR, True), (WALL, True)), camera=0.0, resolution=0.1)
    assert at(grid, 0.52, 0.0) == FREE
    assert at(grid, 2.02, -1.0) == OCCUPIED  # y points to the left
    assert at(grid, 0.52, -0.5) == UNKNOWN
    assert grid.floor == pytest.approx(1.5)


def test_generated_parts_are_unknown_on_request():
    map = remembered((FLOOR, True), (WALL, False))
    assert (map.ids() >= GENERATED).sum() == len(WALL)
    assert at(occupancy_map(map, 0.0, 0.1), 2.02, -1.0) == OCCUPIED
    observed = occupancy_map(map, 0.0, 0.1, generated=False)
    assert (observed.cells == OCCUPIED).sum() == 0
    assert (observed.cells == FREE).sum() > 0
    with pytest.raises(ValueError, match="map: expected"):
        occupancy_map(remembered((FLOOR, False)), 0.0, generated=False)


def test_cells_count_points_whose_footprint_covers_them():
    rng = np.random.default_rng(0)
    x, y, reach = rng.uniform(0, 2, 200), rng.uniform(0, 3, 200), rng.uniform(0, 0.15, 200)
    counts, expected = np.zeros((30, 20), np.int32), np.zeros((30, 20), np.int32)
    _count(counts, (x, y, reach), (0.0, 0.0), 0.1)
    for column, row, half in zip(x, y, reach, strict=True):
        left, right, bottom, top = (
            min(max(int(np.floor((value + sign * half) / 0.1)), 0), side - 1)
            for value, side in ((column, 20), (row, 30))
            for sign in (-1, 1)
        )
        expected[bottom : top + 1, left : right + 1] += 1
    np.testing.assert_array_equal(counts, expected)
