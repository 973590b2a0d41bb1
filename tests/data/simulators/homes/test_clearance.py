"""Clearance against distances known from simple geometry."""

import numpy as np
import pytest

from mirage_sim.data.simulators.homes.collision import PIXEL, Clearance
from mirage_sim.data.simulators.homes.floor_plan import FloorPlan, Opening, _walls
from mirage_sim.data.simulators.homes.scene import Mesh

EXACT = 1.5 * PIXEL


def two_rooms() -> FloorPlan:
    """Two rooms of 3 x 4 m side by side along x, from (0.5, 0.5), with a passage of 0.9 m in the wall at x = 3.5."""
    label = np.full((70, 50), -1)
    label[5:35, 5:45], label[35:65, 5:45] = 0, 1
    passage = Opening("passage", 0, 3.5, 2.0, 2.9, 0.0, 2.05, (0, 1))
    return FloorPlan(label, ("living", "bedroom"), tuple(_walls(label)), (passage,), 2.5)


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Mesh:
    corners = np.array(
        [[(low, high)[i][0], (low, high)[j][1], (low, high)[k][2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    )
    faces = [
        [0, 1, 3],
        [0, 3, 2],
        [4, 5, 7],
        [4, 7, 6],
        [0, 1, 5],
        [0, 5, 4],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 3, 7],
        [1, 7, 5],
    ]
    flat = np.zeros((8, 3), np.float32)
    return Mesh(
        corners.astype(np.float32),
        flat,
        flat[:, :2],
        np.zeros(8, np.int32),
        flat.astype(np.uint8),
        np.array(faces, np.int32),
    )


def test_distance_to_walls_is_metric():
    clearance = Clearance(two_rooms(), [], 1.6)
    assert clearance(1.5, 2.45) == pytest.approx(1.5 - 0.55, abs=EXACT)
    assert clearance(2.0, 1.0) == pytest.approx(1.0 - 0.55, abs=EXACT)
    assert clearance(0.2, 1.0) == 0.0 and clearance(-3.0, 99.0) == 0.0
    assert clearance(3.5, 2.45) == pytest.approx(0.45, abs=EXACT)  # in the doorway


def test_body_passes_doorway_but_not_wall():
    clearance = Clearance(two_rooms(), [], 1.6)
    assert clearance.can_move(np.array([2.0, 2.45]), np.array([5.0, 2.45]), 0.25)
    assert not clearance.can_move(np.array([2.0, 1.0]), np.array([5.0, 1.0]), 0.25)
    assert not clearance.can_move(np.array([2.0, 2.2]), np.array([5.0, 2.2]), 0.25)  # too close to the jamb


@pytest.mark.parametrize(
    ("low", "high", "blocked"),
    [(0.0, 0.7, True), (0.0, 0.1, False), (1.65, 2.0, False), (1.2, 1.3, True), (0.3, 2.4, True)],
)
def test_furniture_blocks_at_the_height_of_the_body(low: float, high: float, blocked: bool):
    clearance = Clearance(two_rooms(), [box((1.5, low, 1.5), (2.0, high, 2.0))], 1.6)
    assert (clearance(1.75, 1.75) == 0.0) == blocked
    assert clearance(1.0, 1.75) == pytest.approx(0.45, abs=EXACT)
    if blocked:
        assert clearance(2.4, 1.75) == pytest.approx(0.4, abs=EXACT)


def test_vertical_panel_blocks():
    panel = box((1.5, 0.0, 1.0), (1.5, 1.0, 3.0))
    clearance = Clearance(two_rooms(), [panel], 1.6)
    assert not clearance.can_move(np.array([1.0, 2.0]), np.array([2.0, 2.0]), 0.05)
    assert clearance.can_move(np.array([1.0, 3.5]), np.array([2.0, 3.5]), 0.05)


def test_places_are_free_for_the_disc():
    clearance = Clearance(two_rooms(), [box((1.5, 0.0, 1.5), (2.0, 0.7, 2.0))], 1.6)
    places = clearance.places(0.3)
    assert len(places) > 1000
    assert min(clearance(*place) for place in places) > 0.3
