"""Furnishing: which furniture each kind of room gets, and which doors and windows fill the openings."""

from collections.abc import Sequence

import numpy as np

from mirage_sim.data.simulators.homes.floor_plan import OUTSIDE, WALL, FloorPlan, Opening, oriented
from mirage_sim.data.simulators.homes.furniture import Piece, Placement
from mirage_sim.data.simulators.homes.furniture.shapes import Shapes
from mirage_sim.data.simulators.homes.room_planner import RoomPlanner

_LEAF = 0.04  # metres: thickness of a door

# A rule of the room planner, the categories it chooses from, its probability, and how often it is applied at most.
Rule = tuple[str, tuple[str, ...], float, int]
_WINDOWS: list[Rule] = [("window", ("radiator",), 0.8, 1), ("window", ("curtain",), 0.25, 1)]
_FINISH: list[Rule] = [
    *_WINDOWS,
    ("corner", ("plant",), 0.7, 2),
    ("corner", ("floor_lamp",), 0.4, 1),
    ("wall", ("other",), 0.6, 2),
    ("hang", ("picture",), 0.9, 4),
    ("hang", ("wall_lamp",), 0.4, 2),
    ("ceiling", ("ceiling_lamp",), 1.0, 1),
]
_LOUNGE: list[Rule] = [
    ("sofa", ("sofa", "sofa", "corner_sofa"), 1.0, 1),
    ("wall", ("tv_unit",), 0.8, 1),
    ("wall", ("bookcase",), 0.8, 3),
]
_SLEEPING: list[Rule] = [("bed", ("bed",), 1.0, 1), ("wall", ("wardrobe",), 0.9, 2)]
_COOKING: list[Rule] = [
    ("kitchen", ("kitchen_base",), 1.0, 1),
    ("wall", ("fridge", "kitchen_tall"), 0.7, 2),
    ("table", ("dining_table",), 0.9, 1),
]
_DESK: list[Rule] = [("desk", ("desk",), 1.0, 1)]
RULES: dict[str, list[Rule]] = {
    "living": [
        *_LOUNGE,
        ("table", ("dining_table",), 0.5, 1),
        ("corner", ("armchair",), 0.8, 2),
        ("wall", ("fireplace", "piano", "chest_of_drawers"), 0.6, 1),
        *_FINISH,
    ],
    "studio": [*_SLEEPING[:1], *_COOKING[:1], *_LOUNGE[:2], *_SLEEPING[1:], *_DESK, *_LOUNGE[2:], *_FINISH],
    "bedroom": [
        *_SLEEPING,
        ("desk", ("desk",), 0.5, 1),
        ("wall", ("chest_of_drawers",), 0.8, 1),
        ("corner", ("armchair",), 0.5, 1),
        ("wall", ("bookcase", "crib"), 0.4, 1),
        *_FINISH,
    ],
    "kitchen": [*_COOKING, ("corner", ("stool",), 0.4, 2), *_FINISH],
    "dining": [
        ("table", ("dining_table",), 1.0, 1),
        ("wall", ("chest_of_drawers", "bookcase", "fireplace"), 0.9, 3),
        *_FINISH,
    ],
    "office": [
        *_DESK,
        ("wall", ("bookcase",), 1.0, 3),
        ("desk", ("desk",), 0.4, 1),
        ("corner", ("armchair",), 0.6, 1),
        ("wall", ("chest_of_drawers", "piano"), 0.5, 1),
        *_FINISH,
    ],
    "bathroom": [
        ("wall", ("bath", "shower"), 1.0, 2),
        ("wall", ("toilet",), 1.0, 1),
        ("wall", ("washbasin",), 1.0, 2),
        ("wall", ("washing_machine",), 0.8, 2),
        ("corner", ("plant",), 0.5, 1),
        ("hang", ("mirror",), 0.9, 2),
        *_WINDOWS[:1],
        ("ceiling", ("ceiling_lamp",), 1.0, 1),
    ],
    "corridor": [
        ("wall", ("chest_of_drawers", "bookcase", "other"), 0.6, 2),
        ("corner", ("plant",), 0.6, 2),
        ("hang", ("picture", "mirror", "wall_lamp"), 0.9, 5),
        ("ceiling", ("ceiling_lamp",), 1.0, 2),
    ],
}


def furnish(rng: np.random.Generator, plan: FloorPlan, pieces: Sequence[Piece]) -> list[Placement]:
    """Choose and place furniture for all rooms of a plan, and fill its doors and windows.

    Args:
        rng: random numbers.
        plan: the apartment.
        pieces: the pieces to choose from; rules for categories without pieces are skipped.
    """
    stock = _by_category(pieces)
    placements = [
        _open_door(rng, plan, opening)
        for opening in plan.openings
        if opening.kind == "passage" and opening.width < 1.0 and rng.random() < 0.5
    ]
    doors = list(placements)
    for room, kind in enumerate(plan.kinds):
        planner = RoomPlanner(rng, plan, room, stock, doors)
        for rule, categories, probability, most in RULES[kind]:
            for _ in range(most):
                if rng.random() < probability:
                    planner.apply(rule, categories)
        placements += planner.placements
    for opening in plan.openings:
        if choices := stock.get(opening.kind):
            placements.append(_fit(choices[int(rng.integers(len(choices)))], opening))
    return placements


def _by_category(pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    stock: dict[str, list[Piece]] = {}
    for piece in pieces:
        stock.setdefault(piece.category, []).append(piece)
    return stock


def _fit(piece: Piece, opening: Opening) -> Placement:
    """Stretch a door or window to fill its opening; its front faces the room."""
    x, z = oriented(opening.axis, opening.at, opening.middle)
    yaw = (np.pi / 2 if opening.axis == 0 else 0.0) + (0.0 if opening.rooms[1] != OUTSIDE else np.pi)
    width, height, depth = piece.size
    scale = (opening.width / width, (opening.top - opening.bottom) / height, min(1.0, 0.16 / depth))
    return Placement(piece, OUTSIDE, x, z, yaw, opening.bottom, scale)


def _open_door(rng: np.random.Generator, plan: FloorPlan, opening: Opening) -> Placement:
    """Make a door that stands open at a right angle to its wall, but never across a corridor."""
    colour, texture = ((238, 236, 230), "") if rng.random() < 0.6 else ((150, 108, 70), "wood")
    width = opening.width
    leaf = Shapes()
    leaf.box((0.0, width), (0.0, opening.top - 0.01), (0.0, _LEAF), (colour, texture))
    mesh, textures, size = leaf.mesh()
    piece = Piece(f"open door {texture}", 0, "open_door", size, 0.01, mesh, textures, "this project, Apache-2.0")
    sides = [side for side, room in zip((-1, 1), opening.rooms, strict=True) if plan.kinds[room] != "corridor"]
    across = opening.at + int(rng.choice(sides)) * (WALL + width) / 2
    along = opening.start + _LEAF / 2 if rng.random() < 0.5 else opening.end - _LEAF / 2
    x, z = oriented(opening.axis, across, along)
    return Placement(piece, OUTSIDE, x, z, 0.0 if opening.axis == 0 else np.pi / 2, piece.elevation)


def substitute(placements: Sequence[Placement], pieces: Sequence[Piece]) -> list[Placement]:
    """Replace held-out pieces by the most similar other pieces of their categories, stretched to the same size.

    Args:
        placements: of a furnished home; positions stay the same.
        pieces: the replacements; held-out ones are not used.
    """
    stock = _by_category([piece for piece in pieces if not piece.held_out])

    def substituted(placement: Placement) -> Placement:
        if not placement.piece.held_out:
            return placement
        size = np.array(placement.piece.size) * placement.scale
        best = min(
            stock[placement.piece.category],
            key=lambda piece: (np.abs(np.log(np.array(piece.size) / size)).sum(), piece.name),
        )
        width, height, depth = (float(ratio) for ratio in size / np.array(best.size))
        return placement._replace(piece=best, scale=(width, height, depth))

    return [substituted(placement) for placement in placements]
