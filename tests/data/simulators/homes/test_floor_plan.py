"""Geometry of floor plans."""

import cv2
import numpy as np
import pytest

from mirage_sim.data.simulators.homes.floor_plan import CELL, OUTSIDE, WALL, FloorPlan, draw_floor_plan

SEEDS = range(40)


def plan_of(seed: int, rooms: int | None = None) -> FloorPlan:
    return draw_floor_plan(np.random.default_rng(seed), rooms)


def test_same_seed_gives_same_plan():
    a, b, c = plan_of(3), plan_of(3), plan_of(4)
    assert np.array_equal(a.label, b.label) and a.walls == b.walls and a.openings == b.openings
    assert a.walls != c.walls


@pytest.mark.parametrize("rooms", [1, 2, 3, 4, 5])
def test_rooms_are_connected_by_passages(rooms: int):
    for seed in SEEDS:
        plan = plan_of(seed, rooms)
        reached, frontier = {0}, [0]
        while frontier:
            room = frontier.pop()
            for opening in plan.openings:
                if opening.kind == "passage" and room in opening.rooms:
                    other = opening.rooms[0] if opening.rooms[1] == room else opening.rooms[1]
                    if other not in reached:
                        reached.add(other)
                        frontier.append(other)
        assert reached == set(range(len(plan.kinds)))
        assert len(plan.kinds) - ("corridor" in plan.kinds) == rooms


def test_rooms_are_connected_and_wide_enough():
    for seed in SEEDS:
        plan = plan_of(seed)
        assert (plan.label[:5] == OUTSIDE).all() and (plan.label[:, -5:] == OUTSIDE).all()
        for room in range(len(plan.kinds)):
            cells = (plan.label == room).astype(np.uint8)
            assert cv2.connectedComponents(cells, connectivity=4)[0] == 2
            assert cells.sum() * CELL**2 > 3.0
            core = cv2.erode(cells, np.ones((11, 11), np.uint8))  # no part is narrower than 1.1 m
            assert (cv2.dilate(core, np.ones((11, 11), np.uint8)) == cells).all()


def test_faces_enclose_the_inset_room():
    """Compare the area enclosed by the faces, by Green's theorem, with the area of the room without its walls."""
    for seed in SEEDS:
        plan = plan_of(seed)
        for room in range(len(plan.kinds)):
            cells = np.kron(plan.label == room, np.ones((4, 4))).astype(np.uint8)
            half = round(WALL / 2 / (CELL / 4))
            inside = cv2.erode(cells, np.ones((2 * half + 1, 2 * half + 1), np.uint8)).sum() * (CELL / 4) ** 2
            area = sum(
                -wall.sign * wall.at * (wall.end - wall.start)
                for wall in plan.walls
                if wall.room == room and wall.axis == 0
            )
            assert area == pytest.approx(inside, abs=1e-6)


def test_faces_of_a_wall_are_its_thickness_apart():
    plan = plan_of(0)
    pairs = 0
    for wall in plan.walls:
        for other in plan.walls:
            if wall.sign < 0 < other.sign and wall.axis == other.axis and wall.room == other.beyond:
                overlap = min(wall.end, other.end) - max(wall.start, other.start)
                if overlap > 0.5 and 0 < other.at - wall.at < 0.5:
                    assert other.at - wall.at == pytest.approx(WALL)
                    pairs += 1
    assert pairs >= 3


def test_openings_lie_within_walls_and_apart():
    kinds = set()
    for seed in SEEDS:
        plan = plan_of(seed)
        for opening in plan.openings:
            kinds.add(opening.kind)
            assert 0.79 < opening.end - opening.start < 1.85 and 0.0 <= opening.bottom < opening.top < plan.height
            for room in set(opening.rooms) - {OUTSIDE}:
                faces = [
                    wall
                    for wall in plan.walls
                    if wall.room == room
                    and wall.axis == opening.axis
                    and abs(abs(wall.at - opening.at) - WALL / 2) < 1e-9
                    and wall.start < opening.start
                    and opening.end < wall.end
                ]
                assert len(faces) == 1
            same_line = [o for o in plan.openings if o is not opening and o.axis == opening.axis and o.at == opening.at]
            assert all(o.end < opening.start or opening.end < o.start for o in same_line)
        assert any(opening.kind == "window" for opening in plan.openings)
    assert kinds == {"passage", "door", "window"}


def test_some_rooms_are_l_shaped():
    def is_rectangle(cells: np.ndarray) -> bool:
        return cells.sum() == cells.any(1).sum() * cells.any(0).sum()

    shapes = [
        is_rectangle(plan.label == room)
        for seed in SEEDS
        for plan in [plan_of(seed)]
        for room in range(len(plan.kinds))
    ]
    assert 0.05 < 1 - np.mean(shapes) < 0.5
