"""Random floor plans: rooms, walls, doors and windows of an apartment.

Rooms are unions of rectangles on a grid of cells. Walls stand on the lines between cells of different rooms and reach
``WALL / 2`` into either room. Plans lie in the x-z plane; the first index of an array is x, the second z.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CELL = 0.1  # metres
WALL = 0.1  # thickness, metres
DOOR_HEIGHT = 2.05  # metres
OUTSIDE = -1

_MIN_SIDE = 26  # cells: shortest side of a room
_CORRIDOR = 13  # cells: width of a corridor
_STEP = 12  # cells: offset between the two parts of a stepped wall

# possible kinds of the rooms by number of rooms, largest room first
_KINDS: dict[int, list[tuple[str, ...]]] = {
    1: [("studio",)],
    2: [("living", "bedroom"), ("living", "kitchen"), ("studio", "bathroom")],
    3: [("living", "bedroom", "kitchen"), ("living", "bedroom", "bathroom"), ("living", "dining", "kitchen")],
    4: [("living", "bedroom", "kitchen", "bathroom"), ("living", "bedroom", "office", "kitchen")],
    5: [
        ("living", "bedroom", "bedroom", "kitchen", "bathroom"),
        ("living", "dining", "bedroom", "office", "bathroom"),
        ("living", "bedroom", "office", "kitchen", "bathroom"),
    ],
}


class Wall(NamedTuple):
    """One face of a wall.

    Attributes:
        room: the room on this side.
        beyond: the room on the other side, or ``OUTSIDE``.
        axis: axis of the normal, 0 for x and 1 for z.
        at: coordinate of the face along ``axis``, metres.
        sign: direction of the normal along ``axis``, into the room.
        start, end: extent along the other axis, metres.
    """

    room: int
    beyond: int
    axis: int
    at: float
    sign: int
    start: float
    end: float

    def point(self, along: float, away: float = 0.0) -> tuple[float, float]:
        """Return the point ``(x, z)`` at a coordinate along the wall and a distance from it, into the room."""
        return oriented(self.axis, self.at + self.sign * away, along)

    @property
    def normal(self) -> tuple[float, float]:
        """Normal ``(x, z)``, into the room."""
        return oriented(self.axis, float(self.sign), 0.0)


class Opening(NamedTuple):
    """An opening in a wall.

    Attributes:
        kind: ``"passage"`` (a doorway that a body can pass), ``"door"`` (closed) or ``"window"``.
        axis: axis of the wall's normal, 0 for x and 1 for z.
        at: coordinate of the middle of the wall along ``axis``, metres.
        start, end: extent along the other axis, metres.
        bottom, top: extent in height, metres.
        rooms: the rooms on its lower and its upper side along ``axis``.
    """

    kind: str
    axis: int
    at: float
    start: float
    end: float
    bottom: float
    top: float
    rooms: tuple[int, int]

    @property
    def width(self) -> float:
        """Extent along the wall, metres."""
        return self.end - self.start

    @property
    def middle(self) -> float:
        """Coordinate of the centre along the wall, metres."""
        return (self.start + self.end) / 2

    def side(self, room: int) -> int:
        """Return the direction along ``axis`` from the opening into ``room``, 1 or -1."""
        return 1 if self.rooms[1] == room else -1


@dataclass(frozen=True)
class FloorPlan:
    """An apartment without furniture.

    Attributes:
        label: int ``[X, Z]``, number of each cell's room, or ``OUTSIDE``. A margin of 5 cells surrounds the apartment;
            the corner of cell ``[0, 0]`` is the origin.
        kinds: purpose of each room: ``"living"``, ``"bedroom"``, ``"kitchen"``, ``"bathroom"``, ``"office"``,
            ``"dining"``, ``"studio"`` or ``"corridor"``.
        walls: faces of all walls.
        openings: passages, doors and windows.
        height: of the ceiling, metres.
    """

    label: NDArray[np.int64]
    kinds: tuple[str, ...]
    walls: tuple[Wall, ...]
    openings: tuple[Opening, ...]
    height: float


def oriented(axis: int, across: float, along: float) -> tuple[float, float]:
    """Return ``(x, z)`` of coordinates across and along a wall whose normal has this axis."""
    return (across, along) if axis == 0 else (along, across)


def draw_floor_plan(rng: np.random.Generator, rooms: int | None = None) -> FloorPlan:
    """Draw a random floor plan.

    Args:
        rng: random numbers.
        rooms: number of rooms without corridors, 1 to 5; random if None.
    """
    rooms = int(rng.choice([1, 2, 3, 4, 5], p=[0.15, 0.2, 0.25, 0.2, 0.2])) if rooms is None else rooms
    areas, corridor = _divide(rng, rooms)
    label = np.pad(areas, 5, constant_values=OUTSIDE)
    sizes = np.array([(label == room).sum() for room in range(rooms)])
    kinds = [""] * rooms
    chosen = _KINDS[rooms][int(rng.integers(len(_KINDS[rooms])))]
    for room, kind in zip(np.argsort(-sizes, kind="stable"), chosen, strict=True):
        kinds[room] = kind
    if corridor:
        kinds.append("corridor")
    walls = _walls(label)
    height = float(rng.uniform(2.4, 3.0))
    openings = _passages(rng, walls, len(kinds), corridor)
    openings += _outer_openings(rng, walls, kinds)
    return FloorPlan(label, tuple(kinds), tuple(walls), tuple(openings), height)


def _divide(rng: np.random.Generator, rooms: int) -> tuple[NDArray[np.int64], bool]:
    """Return the labels ``[X, Z]`` of an apartment, and whether the last room is a corridor."""
    if rooms == 1:
        return _studio(rng), False
    if rooms >= 4 and rng.random() < 0.75:
        return _along_corridor(rng, rooms), True
    while True:
        width, depth = (int(side) for side in rng.integers(36, 52, size=2) * np.sqrt(rooms / 1.6))
        label = np.zeros((width, depth), dtype=np.int64)
        if _split(rng, label, 0, rooms):
            return label, False


def _studio(rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the labels of a single room, rectangular or L-shaped."""
    label = np.zeros(tuple(rng.integers(38, 60, size=2)), dtype=np.int64)
    if rng.random() < 0.5:  # L-shaped
        cut = [
            int(rng.integers(_STEP, side - _MIN_SIDE + 1)) if side > _MIN_SIDE + _STEP else 0 for side in label.shape
        ]
        label[: cut[0], : cut[1]] = OUTSIDE
    return _turned(rng, label)


def _along_corridor(rng: np.random.Generator, rooms: int) -> NDArray[np.int64]:
    """Return the labels of rooms in two rows with a corridor between them."""
    above = rooms // 2
    depths = rng.integers(_MIN_SIDE + 2, 42, size=2)
    width = int(rng.integers(30, 40)) * max(above, rooms - above)
    label = np.full((width, int(depths.sum()) + _CORRIDOR), rooms, dtype=np.int64)
    first = 0
    for count, row in ((above, slice(0, depths[0])), (rooms - above, slice(depths[0] + _CORRIDOR, None))):
        shares = rng.uniform(0.8, 1.25, size=count)
        ends = np.round(np.cumsum(shares) / shares.sum() * width).astype(int)
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            label[start:end, row] = first
            first += 1
    return _turned(rng, label)


def _turned(rng: np.random.Generator, label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Mirror and transpose a plan at random."""
    label = label[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
    return np.ascontiguousarray(label.T if rng.random() < 0.5 else label)


def _split(rng: np.random.Generator, label: NDArray[np.int64], first: int, rooms: int) -> bool:
    """Divide ``label`` into ``rooms`` rooms numbered from ``first``; return False if it is too small for them."""
    label[:] = first
    if rooms == 1:
        return min(label.shape) >= _MIN_SIDE
    area = label if label.shape[0] >= label.shape[1] else label.T  # a view whose first side is the longer one
    near = rooms // 2
    at = int(area.shape[0] * near / rooms * rng.uniform(0.85, 1.15))
    if not _MIN_SIDE <= at <= area.shape[0] - _MIN_SIDE:
        return False
    if rooms == 2 and rng.random() < 0.5 and area.shape[1] >= 2 * _STEP + 8:  # a stepped wall between L-shaped rooms
        step = int(rng.choice([-1, 1])) * min(_STEP, at - _MIN_SIDE // 2, area.shape[0] - at - _MIN_SIDE // 2)
        middle = int(rng.integers(_STEP, area.shape[1] - _STEP + 1))
        area[:] = first + 1
        area[:at, :middle] = first
        area[: at + step, middle:] = first
        return True
    return _split(rng, area[:at], first, near) and _split(rng, area[at:], first + near, rooms - near)


def _walls(label: NDArray[np.int64]) -> list[Wall]:
    """Find the faces of all walls, runs of cell edges between the same two rooms."""
    faces = []
    for axis in (0, 1):
        cells = label if axis == 0 else label.T  # rows along the axis
        for line in range(1, cells.shape[0]):
            for sign, inner, outer in ((1, cells[line], cells[line - 1]), (-1, cells[line - 1], cells[line])):
                start = 0
                while start < len(inner):
                    end = start + 1
                    while end < len(inner) and inner[end] == inner[start] and outer[end] == outer[start]:
                        end += 1
                    if inner[start] != OUTSIDE and inner[start] != outer[start]:
                        faces.append(_face(axis, line, sign, start, end, inner, outer))
                    start = end
    return faces


def _face(
    axis: int, line: int, sign: int, start: int, end: int, inner: NDArray[np.int64], outer: NDArray[np.int64]
) -> Wall:
    """Make the face of one run of cell edges; walls that meet it shorten or lengthen it by half their thickness."""
    room = int(inner[start])

    def inset(after: int) -> float:
        if inner[after] != room:
            return WALL / 2
        return -WALL / 2 if outer[after] == room else 0.0

    return Wall(
        room,
        int(outer[start]),
        axis,
        line * CELL + sign * WALL / 2,
        sign,
        start * CELL + inset(start - 1),
        end * CELL - inset(end),
    )


def _passages(rng: np.random.Generator, walls: list[Wall], rooms: int, corridor: bool) -> list[Opening]:
    """Open doorways so that every room can be reached; some rooms get a second one."""
    shared: dict[tuple[int, int], list[Wall]] = {}
    for wall in walls:
        if wall.sign > 0 and wall.beyond != OUTSIDE and wall.end - wall.start >= 1.2:
            shared.setdefault((min(wall.room, wall.beyond), max(wall.room, wall.beyond)), []).append(wall)
    pairs = sorted(shared)
    rng.shuffle(pairs)
    if corridor:  # doors lead to the corridor first
        pairs.sort(key=lambda pair: rooms - 1 not in pair)
    group = list(range(rooms))
    openings = []
    for low, high in pairs:
        joined = group[low] == group[high]
        if joined and (corridor or rng.random() < 0.6):
            continue
        group = [group[low] if each == group[high] else each for each in group]
        wall = shared[low, high][int(rng.integers(len(shared[low, high])))]
        wide = not corridor and rng.random() < 0.25 and wall.end - wall.start > 2.4
        width = float(rng.uniform(1.2, 1.8) if wide else rng.uniform(0.8, 0.95))
        start = float(rng.uniform(wall.start + 0.1, wall.end - 0.1 - width))
        middle = wall.at - wall.sign * WALL / 2
        openings.append(
            Opening("passage", wall.axis, middle, start, start + width, 0.0, DOOR_HEIGHT, (wall.beyond, wall.room))
        )
    return openings


def _outer_openings(rng: np.random.Generator, walls: list[Wall], kinds: list[str]) -> list[Opening]:
    """Open one entrance, and one or two windows per room."""
    openings = []
    outer = [wall for wall in walls if wall.beyond == OUTSIDE and wall.end - wall.start >= 1.6]
    entrances = [wall for wall in outer if kinds[wall.room] in ("corridor", "living", "studio")]
    entrance = entrances[int(rng.integers(len(entrances)))] if entrances else None
    if entrance is not None:
        start = float(rng.uniform(entrance.start + 0.15, entrance.end - 1.1))
        openings.append(_outer(entrance, "door", start, start + 0.95, 0.0, DOOR_HEIGHT))
    for room, kind in enumerate(kinds):
        free = [wall for wall in outer if wall.room == room and wall is not entrance]
        rng.shuffle(free)  # type: ignore[arg-type]
        for wall in free[: 0 if kind == "corridor" else 1 if kind == "bathroom" else int(rng.integers(1, 3))]:
            width = float(min(rng.uniform(0.9, 1.8), wall.end - wall.start - 0.5))
            start = float(rng.uniform(wall.start + 0.2, wall.end - 0.2 - width))
            bottom = 1.3 if kind == "bathroom" else float(rng.choice([0.9, 0.9, 0.6]))
            openings.append(_outer(wall, "window", start, start + width, bottom, 2.15))
    return openings


def _outer(wall: Wall, kind: str, start: float, end: float, bottom: float, top: float) -> Opening:
    """Make an opening in an outer wall."""
    rooms = (OUTSIDE, wall.room) if wall.sign > 0 else (wall.room, OUTSIDE)
    return Opening(kind, wall.axis, wall.at - wall.sign * WALL / 2, start, end, bottom, top, rooms)
