"""Furnished rooms: nothing overlaps or floats, backs face walls, and paths stay free."""

import itertools

import cv2
import numpy as np
import pytest

from mirage_sim.data.simulators.homes.building import place
from mirage_sim.data.simulators.homes.collision import PIXEL, Clearance
from mirage_sim.data.simulators.homes.floor_plan import CELL, FloorPlan, draw_floor_plan
from mirage_sim.data.simulators.homes.furnishing import furnish, substitute
from mirage_sim.data.simulators.homes.furniture import Placement, procedural_pieces
from mirage_sim.data.simulators.homes.room_planner import WAY

SEEDS = range(12)
ON_TOP = {"small", "tv", "table_lamp", "computer"}
UNDER = {"rug"}
TUCKED = {"chair", "office_chair"}  # partly below their tables


def furnished(seed: int) -> tuple[FloorPlan, list[Placement]]:
    plan = draw_floor_plan(np.random.default_rng([seed, 0]))
    return plan, furnish(np.random.default_rng([seed, 1]), plan, procedural_pieces())


@pytest.fixture(scope="module")
def homes() -> list[tuple[FloorPlan, list[Placement]]]:
    return [furnished(seed) for seed in SEEDS]


def extent(placement: Placement) -> np.ndarray:
    """Return the bounding box ``[low, high]`` x ``[x, y, z]`` of a placed mesh."""
    positions = place(placement).positions
    return np.stack([positions.min(0), positions.max(0)])


def test_same_seed_gives_same_placements():
    def places(seed: int) -> list[tuple]:
        return [(each.piece.name, *each[1:]) for each in furnished(seed)[1]]

    assert places(3) == places(3)
    assert places(3) != places(4)


def test_rooms_have_the_furniture_of_their_kind(homes):
    wanted = {"bedroom": "bed", "kitchen": "kitchen_base", "living": "sofa", "office": "desk"}
    for kind, category in wanted.items():
        rooms = [(home, room) for home in homes for room, name in enumerate(home[0].kinds) if name == kind]
        hits = [any(p.room == room and p.piece.category == category for p in home[1]) for home, room in rooms]
        assert len(hits) > 2 and np.mean(hits) > 0.8, kind


def test_pieces_do_not_overlap(homes):
    for _, placements in homes:
        solid = [p for p in placements if p.room >= 0 and p.piece.category not in ON_TOP | UNDER | TUCKED]
        for a, b in itertools.combinations(solid, 2):
            (low_a, high_a), (low_b, high_b) = extent(a), extent(b)
            overlap = np.minimum(high_a, high_b) - np.maximum(low_a, low_b)
            assert (overlap < 0.02).any(), (a.piece.name, b.piece.name)


def test_nothing_floats_or_leaves_its_room(homes):
    for plan, placements in homes:
        for placement in placements:
            if placement.room < 0:
                continue
            low, high = extent(placement)
            assert low[1] >= -1e-3 and high[1] <= plan.height
            inner = [np.floor(low[[0, 2]] / CELL + 0.3).astype(int), np.ceil(high[[0, 2]] / CELL - 0.3).astype(int)]
            cells = plan.label[inner[0][0] : inner[1][0], inner[0][1] : inner[1][1]]
            assert cells.size == 0 or (cells == placement.room).mean() > 0.97, placement.piece.name
            if placement.piece.category in ON_TOP:
                tops = [extent(p)[1, 1] for p in placements if p is not placement and p.room == placement.room]
                assert low[1] < 0.01 or min(abs(top - low[1]) for top in tops) < 0.02


def test_backs_face_walls(homes):
    checked = 0
    for plan, placements in homes:
        for placement in placements:
            if placement.piece.category in ("sofa", "wardrobe", "bookcase", "bed", "toilet", "picture"):
                back = np.array([placement.x, placement.z])
                back -= (placement.piece.size[2] / 2 + 0.05) * np.array([np.sin(placement.yaw), np.cos(placement.yaw)])
                distances = [
                    abs(back[wall.axis] - wall.at)
                    for wall in plan.walls
                    if wall.room == placement.room and wall.start <= back[1 - wall.axis] <= wall.end
                ]
                assert min(distances) < 0.1, placement.piece.name
                checked += 1
    assert checked > 20


def test_paths_between_doors_stay_free(homes):
    for plan, placements in homes:
        meshes = [place(p) for p in placements]
        clearance = Clearance(plan, meshes, 1.6)
        wide = (
            cv2.distanceTransform(clearance.free.astype(np.uint8), cv2.DIST_L2, 5) * PIXEL >= WAY / 2 - 0.12
        ).astype(np.uint8)
        _, parts = cv2.connectedComponents(wide)
        doors = []
        for opening in plan.openings:
            if opening.kind == "passage":
                middle = (opening.start + opening.end) / 2
                for side in (-1, 1):
                    at = opening.at + side * (WAY / 2 + 0.1)
                    x, z = (at, middle) if opening.axis == 0 else (middle, at)
                    near = parts[int(x / PIXEL) - 8 : int(x / PIXEL) + 9, int(z / PIXEL) - 8 : int(z / PIXEL) + 9]
                    doors.append(
                        (opening.rooms[int(side > 0)], np.bincount(near[near > 0]).argmax() if near.any() else 0)
                    )
        for room in range(len(plan.kinds)):
            own = {part for number, part in doors if number == room}
            assert len(own) <= 1 and 0 not in own, room


def test_open_doors_block_but_leave_a_path(homes):
    doors = 0
    for plan, placements in homes:
        clearance = Clearance(plan, [place(p) for p in placements], 1.6)
        for door in (p for p in placements if p.piece.category == "open_door"):
            doors += 1
            assert clearance(door.x, door.z) < 1.5 * PIXEL
        for opening in (o for o in plan.openings if o.kind == "passage"):
            middle = (opening.start + opening.end) / 2
            ends = [np.array([opening.at + side * 0.7, middle]) for side in (-1, 1)]
            ends = ends if opening.axis == 0 else [end[::-1] for end in ends]
            assert clearance.can_move(ends[0], ends[1], 0.25)
    assert doors > 3


def test_substitute_keeps_places_and_sizes():
    plan, placements = furnished(5)
    swapped = substitute(placements, procedural_pieces())
    assert any(p.piece.held_out for p in placements)
    for before, after in zip(placements, swapped, strict=True):
        assert not after.piece.held_out and after.piece.category == before.piece.category
        assert (before.x, before.z, before.yaw) == (after.x, after.z, after.yaw)
        size = np.array(before.scale) * before.piece.size
        np.testing.assert_allclose(np.array(after.scale) * after.piece.size, size, rtol=1e-6)
