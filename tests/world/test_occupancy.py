"""Maps in plan of points whose places are known."""

import numpy as np
import pytest
import torch

from mirage_sim.geometry import Camera
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.world.occupancy import FREE, OCCUPIED, UNKNOWN, find_floor, occupancy_map

EYE, AHEAD, LEFT = 1.5, 4.0, 1.5  # metres: camera over the floor, to the wall ahead, to the wall on the left


def corner() -> LatentMap:
    """The memory of one image: a floor, a wall ahead, and a wall on the left."""
    camera = Camera.from_fov(torch.eye(4)[None], 75.0, (96, 128))
    K = camera.K[0]
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    right, down = (x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]
    floor = torch.where(down > 0, EYE / down, torch.inf)
    left = torch.where(right < 0, -LEFT / right, torch.inf)
    depth = torch.minimum(torch.minimum(floor, left), torch.tensor(AHEAD))
    memory = PointMemory(1, (1, 4, 4))
    return memory.observe(
        memory.empty(),
        latents=torch.zeros(1, 1, 24, 32),
        frames=torch.zeros(3, 1, 96, 128),
        depth=depth[None],
        static=torch.ones(1, 96, 128, dtype=torch.bool),
        camera=camera,
    )


def cell(grid, x: float, y: float) -> int:
    """Value at a place in ROS's axes."""
    column, row = ((at - start) / grid.resolution for at, start in zip((x, y), grid.origin, strict=True))
    return int(grid.cells[int(row), int(column)])


def test_floor_is_the_lowest_full_level():
    rng = np.random.default_rng(0)
    floor, table, ceiling = rng.normal(1.5, 0.005, 500), rng.normal(0.7, 0.005, 800), np.full(900, -1.0)
    stray = np.array([2.4, 2.6, 3.0])
    heights = np.concatenate([floor, table, ceiling, stray]).astype(np.float32)
    assert find_floor(heights, 0.0) == pytest.approx(1.5, abs=0.03)
    assert find_floor(np.float32([-1.0, -0.2]), 0.0) is None
    assert find_floor(np.float32([0.2, 0.2, 1.5, 1.5]), 1.0) == pytest.approx(1.5)  # above the camera is no floor


def test_cells_are_free_occupied_and_unknown_where_true():
    grid = occupancy_map(corner(), 0.0)
    assert grid.floor == pytest.approx(EYE, abs=0.03) and grid.resolution == 0.05
    floor = [cell(grid, x, y) for x in np.arange(2.1, 3.6, 0.05) for y in np.arange(-1.2, 1.2, 0.05)]
    assert OCCUPIED not in floor and floor.count(FREE) > 0.3 * len(floor)  # points of one image leave gaps
    wall = [cell(grid, AHEAD + off, y) for off in (-0.05, 0.0, 0.05) for y in (-1.0, 0.0, 1.0)]
    assert wall.count(OCCUPIED) >= 3
    left, right = ([cell(grid, x, side) for x in np.arange(2.2, 3.6, 0.05)] for side in (LEFT, -LEFT))
    assert left.count(OCCUPIED) > 5 and OCCUPIED not in right, "left is +y"
    assert cell(grid, 0.2, 0.0) == UNKNOWN  # the camera does not see its feet
    assert set(np.unique(grid.cells)) == {UNKNOWN, FREE, OCCUPIED} and grid.cells.dtype == np.int8
    x, y = grid.origin
    assert y < -1.5 and LEFT < y + 0.05 * grid.cells.shape[0] < LEFT + 0.5
    assert AHEAD < x + 0.05 * grid.cells.shape[1] < AHEAD + 0.5


def test_resolution_scales_the_cells():
    fine, coarse = occupancy_map(corner(), 0.0), occupancy_map(corner(), 0.0, 0.2)
    assert fine.cells.shape[0] == pytest.approx(4 * coarse.cells.shape[0], abs=8)
    assert cell(coarse, 2.5, 0.0) == FREE


def test_an_empty_memory_has_no_map():
    with pytest.raises(ValueError, match="map: expected remembered points, got none"):
        occupancy_map(LatentMap.empty(1), 0.0)
