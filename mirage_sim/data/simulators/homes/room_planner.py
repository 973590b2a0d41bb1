"""Positions of furniture in a room: against walls, beside the pieces it belongs to, and never in the way.

Nothing overlaps, and paths of width ``WAY`` between all doors of a room stay free.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from mirage_sim.data.simulators.homes.floor_plan import CELL, WALL, FloorPlan, Opening, Wall, oriented
from mirage_sim.data.simulators.homes.furniture import Piece, Placement

WAY = 0.8  # metres: width of the paths that stay free
_PIXEL = 0.05  # metres: resolution of the occupancy grids
_SCALE = round(CELL / _PIXEL)
_GAP = 0.03  # metres between the back of a piece and its wall
_LOW = 1.2  # metres: pieces that end below it and pieces that start above it may share a place
_FRONT = 0.9  # metres kept free in front of doors
_TABLE_TOPS = {"coffee_table", "dining_table", "desk", "chest_of_drawers", "tv_unit", "kitchen_base"}


class RoomPlanner:
    """The state of a room while it is furnished: the placements, and which of its floor is occupied.

    Args:
        rng: random numbers.
        plan: the apartment.
        room: number of the room.
        stock: available pieces by category.
        doors: open doors, which nothing may overlap.

    Attributes:
        placements: all pieces placed so far.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        plan: FloorPlan,
        room: int,
        stock: dict[str, list[Piece]],
        doors: Sequence[Placement],
    ):
        self.rng, self.room, self.stock, self.height = rng, room, stock, plan.height
        self.walls = [wall for wall in plan.walls if wall.room == room and wall.end - wall.start > 0.4]
        self.openings = [opening for opening in plan.openings if room in opening.rooms]
        inside = np.kron(plan.label == room, np.ones((_SCALE, _SCALE), dtype=bool)).astype(np.uint8)
        walls = cv2.erode(inside, np.ones((3, 3), np.uint8)) == 0  # half of their thickness is in the room
        self.low = walls  # occupied below _LOW
        self.high = walls.copy()  # occupied above _LOW
        self.kept = np.zeros_like(self.low)  # kept free in front of doors
        self.doors: list[tuple[int, int]] = []  # pixels that must stay connected
        for opening in self.openings:
            self._keep_free(opening)
        for door in doors:
            where = _pixels((door.x, door.z), door.piece.extent(door.yaw))
            self.low[where] = self.high[where] = True
        self.placements: list[Placement] = []
        self.rules: dict[str, Callable[[tuple[str, ...]], object]] = {
            "wall": self._to_wall,
            "corner": self._to_corner,
            "hang": self._hang,
            "ceiling": self._to_ceiling,
            "sofa": self._sofa,
            "bed": self._bed,
            "desk": self._desk,
            "table": self._table,
            "kitchen": self._kitchen,
            "window": self._at_windows,
        }

    def apply(self, rule: str, categories: tuple[str, ...]) -> None:
        """Apply a rule to pieces of these categories; without space, or without pieces, nothing is placed."""
        available = tuple(category for category in categories if self.stock.get(category))
        if available:
            self.rules[rule](available)

    def _keep_free(self, opening: Opening) -> None:
        """Reserve the floor in front of a door, and the upper part of the wall around any opening."""
        axis, side = opening.axis, opening.side(self.room)
        if opening.kind != "window":
            centre = oriented(axis, opening.at + side * _FRONT / 2, opening.middle)
            self.kept[_pixels(centre, oriented(axis, _FRONT + 0.1, opening.width + 0.1))] = True
            x, z = oriented(axis, opening.at + side * (WAY / 2 + 0.1), opening.middle)
            self.doors.append((int(x / _PIXEL), int(z / _PIXEL)))
        self.high[_pixels(oriented(axis, opening.at, opening.middle), oriented(axis, 0.5, opening.width))] = True

    def _pick(self, *categories: str) -> Piece:
        """Choose a category and then one of its pieces."""
        choices = self.stock[categories[int(self.rng.integers(len(categories)))]]
        return choices[int(self.rng.integers(len(choices)))]

    def _add(
        self,
        piece: Piece,
        x: float,
        z: float,
        yaw: float,
        elevation: float,
        scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Placement:
        """Add a placement without any check."""
        self.placements.append(Placement(piece, self.room, x, z, yaw, elevation, scale))
        return self.placements[-1]

    def _place(
        self, piece: Piece, x: float, z: float, yaw: float, elevation: float | None = None, margin: float = 0.0
    ) -> Placement | None:
        """Place a piece if its bounding box, wider by ``margin``, is free and the doors stay connected."""
        elevation = piece.elevation if elevation is None else elevation
        height = piece.size[1]
        if elevation + height > self.height - 0.02:
            return None
        across, along = piece.extent(yaw)
        where = _pixels((x, z), (across + margin, along + margin))
        low, high = elevation < _LOW, elevation + height > _LOW
        if self.low[where].size == 0:
            return None
        if (low and (self.low[where].any() or self.kept[where].any())) or (high and self.high[where].any()):
            return None
        if low and height > 0.03:
            before = self.low[where].copy()
            self.low[where] = True
            if not self._doors_are_connected():
                self.low[where] = before
                return None
        if high:
            self.high[where] = True
        return self._add(piece, x, z, yaw, elevation)

    def _doors_are_connected(self) -> bool:
        """Return whether a disc of diameter ``WAY`` can move from every door to every other, and has some space."""
        free = np.pad((~self.low).astype(np.uint8), 1)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 3)[1:-1, 1:-1]
        walkable = (distance * _PIXEL >= WAY / 2 - _PIXEL).astype(np.uint8)
        for door in self.doors:  # the doorways themselves are narrower
            cv2.circle(walkable, (door[1], door[0]), 3, 1, -1)
        count, component = cv2.connectedComponents(walkable)
        return count >= 2 and len({int(component[door]) for door in self.doors}) <= 1

    def _along_walls(
        self, piece: Piece, tries: int = 12, elevation: float | None = None, corner: bool = False
    ) -> Placement | None:
        """Place a piece with its back to a random wall, at a random position or at one end of the wall."""
        width = piece.size[0]
        walls = [wall for wall in self.walls if wall.end - wall.start >= width + 0.05]
        if not walls:
            return None
        lengths = np.array([wall.end - wall.start for wall in walls])
        for _ in range(tries):
            wall = walls[int(self.rng.choice(len(walls), p=lengths / lengths.sum()))]
            low, high = wall.start + width / 2 + 0.03, wall.end - width / 2 - 0.03
            along = float(self.rng.choice([low, high]) if corner else self.rng.uniform(low, max(low, high)))
            if placed := self._against(piece, wall, along, elevation):
                return placed
        return None

    def _against(
        self, piece: Piece, wall: Wall, along: float, elevation: float | None = None, margin: float = 0.0
    ) -> Placement | None:
        """Place a piece with its back to a wall."""
        x, z = wall.point(along, piece.size[2] / 2 + _GAP)
        return self._place(piece, x, z, _yaw(wall.normal), elevation, margin)

    def _to_wall(self, categories: tuple[str, ...]) -> Placement | None:
        placed = self._along_walls(self._pick(*categories))
        if placed:
            self._load(placed)
        return placed

    def _to_corner(self, categories: tuple[str, ...]) -> Placement | None:
        return self._along_walls(self._pick(*categories), corner=True)

    def _hang(self, categories: tuple[str, ...]) -> Placement | None:
        piece = self._pick(*categories)
        elevation = piece.elevation if piece.elevation > 0.6 else 1.55 - piece.size[1] / 2
        return self._along_walls(piece, elevation=max(elevation, _LOW + 0.01))

    def _at_windows(self, categories: tuple[str, ...]) -> None:
        """Place a piece below every window, or hang a curtain in front of it."""
        for opening in self.openings:
            piece = self._pick(*categories)
            is_curtain = piece.category == "curtain"
            if opening.kind != "window" or (not is_curtain and piece.elevation + piece.size[1] > opening.bottom):
                continue
            side = opening.side(self.room)
            x, z = oriented(opening.axis, opening.at + side * (WALL / 2 + piece.size[2] / 2 + _GAP), opening.middle)
            yaw = _yaw(oriented(opening.axis, float(side), 0.0))
            if not is_curtain:
                self._place(piece, x, z, yaw)
                continue
            scale = (float((opening.width + 0.3) / piece.size[0]), 1.0, min(1.0, 0.12 / piece.size[2]))
            top = min(opening.top + 0.15, self.height - 0.03)
            self._add(piece, x, z, yaw, top - piece.size[1], scale)

    def _to_ceiling(self, categories: tuple[str, ...]) -> Placement | None:
        """Hang a piece in the middle of the largest free area."""
        piece = self._pick(*categories)
        distance = cv2.distanceTransform(np.pad((~self.low).astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        rows, columns = np.nonzero(distance >= 0.8 * distance.max())
        which = int(self.rng.integers(len(rows)))
        x, z = (rows[which] + 0.5) * _PIXEL, (columns[which] + 0.5) * _PIXEL
        return self._place(piece, float(x), float(z), 0.0, self.height - piece.size[1] - 0.021)

    def _sofa(self, categories: tuple[str, ...]) -> None:
        """Place a sofa at a wall, a table in front of it and a rug between them."""
        sofa = self._to_wall(categories)
        if sofa is None:
            return
        front = sofa.piece.size[2] / 2
        if self.stock.get("coffee_table"):
            table = self._pick("coffee_table")
            if placed := self._place(table, *sofa.point(0.0, front + 0.35 + table.size[2] / 2), sofa.yaw):
                self._load(placed)
        if self.stock.get("rug") and self.rng.random() < 0.7:
            rug = self._pick("rug")
            self._lay(rug, *sofa.point(0.0, front + rug.size[2] / 2), sofa.yaw)

    def _lay(self, rug: Piece, x: float, z: float, yaw: float) -> None:
        """Lay a rug, which other pieces may cover, if it fits into the room."""
        free = ~self.low[_pixels((x, z), rug.extent(yaw))]
        has_rug = any(placement.piece.category == "rug" for placement in self.placements)
        if free.size and free.mean() > 0.6 and not has_rug and self._is_between_walls(x, z, *rug.extent(yaw)):
            self._add(rug, x, z, yaw, 0.004)

    def _is_between_walls(self, x: float, z: float, width: float, depth: float) -> bool:
        """Return whether a rectangle crosses no wall of the room."""
        half = (width / 2, depth / 2)
        for wall in self.walls:
            across, along = ((x, z), (z, x))[wall.axis]
            reach, side = (half, half[::-1])[wall.axis]
            overlaps = wall.start < along + side and along - side < wall.end
            if overlaps and 0 > (across - wall.at) * wall.sign - reach > -2 * reach:
                return False
        return True

    def _bed(self, categories: tuple[str, ...]) -> None:
        """Place a bed with its head to a wall, bedside tables and lamps."""
        bed = self._along_walls(self._pick(*categories), tries=30)
        if bed is None or not self.stock.get("bedside_table"):
            return
        table = self._pick("bedside_table")
        for side in (-1, 1):
            right = side * (bed.piece.size[0] / 2 + table.size[0] / 2 + 0.06)
            placed = self._place(table, *bed.point(right, -bed.piece.size[2] / 2 + table.size[2] / 2), bed.yaw)
            if placed and self.stock.get("table_lamp") and self.rng.random() < 0.7:
                self._put_on(placed, self._pick("table_lamp"))

    def _desk(self, categories: tuple[str, ...]) -> None:
        """Place a desk at a wall and a chair in front of it."""
        desk = self._along_walls(self._pick(*categories), tries=30)
        if desk is None:
            return
        self._load(desk)
        if chairs := [name for name in ("office_chair", "chair") if self.stock.get(name)]:
            chair = self._pick(chairs[0])
            x, z = desk.point(0.0, desk.piece.size[2] / 2 + chair.size[2] / 2 - 0.15)
            tucked = Placement(chair, self.room, x, z, desk.yaw + np.pi, chair.elevation)
            # the front half of the chair may be below the desk: only the back half needs space
            back = replace(chair, size=(*chair.size[:2], chair.size[2] * 0.5))
            if self._place(back, *tucked.point(0.0, -chair.size[2] / 4), tucked.yaw):
                self.placements[-1] = tucked

    def _table(self, categories: tuple[str, ...]) -> None:
        """Place a table away from walls, with chairs around it."""
        table = self._pick(*categories)
        chair = self._pick_any("chair")
        margin = 0.5 if chair else 0.0
        free = np.argwhere(~self.low & ~self.kept)
        for _ in range(40 if len(free) else 0):
            x, z = (free[int(self.rng.integers(len(free)))] + 0.5) * _PIXEL
            yaw = float(self.rng.integers(4)) * np.pi / 2
            if placed := self._place(table, float(x), float(z), yaw, margin=margin):
                self._load(placed)
                if chair:
                    self._seat(placed, chair)
                return

    def _pick_any(self, category: str, max_width: float = np.inf) -> Piece | None:
        """Choose one of the pieces of a category that are narrow enough, if there are any."""
        choices = [piece for piece in self.stock.get(category, []) if piece.size[0] <= max_width]
        return choices[int(self.rng.integers(len(choices)))] if choices else None

    def _seat(self, table: Placement, chair: Piece) -> None:
        """Place chairs around a table, for which its margin left space."""
        width, _, depth = table.piece.size
        for sign, at_front in ((1, True), (-1, True), (1, False), (-1, False)):
            length, across = (width, depth) if at_front else (depth, width)
            count = min(max(int(length / 0.6), 1), 3)
            yaw = (0.0 if sign > 0 else np.pi) if at_front else sign * np.pi / 2
            for i in range(count):
                along, away = (i - (count - 1) / 2) * 0.6, sign * (across / 2 + chair.size[2] / 2 - 0.2)
                x, z = table.point(along, away) if at_front else table.point(away, along)
                if self.rng.random() < 0.85:
                    turned = table.yaw + yaw + np.pi + float(self.rng.normal(0.0, 0.12))
                    self._add(chair, x, z, turned, chair.elevation)

    def _kitchen(self, categories: tuple[str, ...]) -> None:
        """Place a row of base cabinets along one of the longest walls, with wall cabinets above them."""
        for wall in sorted(self.walls, key=lambda wall: wall.start - wall.end)[:3]:
            if self._row(wall, categories) >= 2:
                return

    def _row(self, wall: Wall, categories: tuple[str, ...]) -> int:
        """Place up to 6 cabinets side by side and return their number."""
        along, placed = wall.start + 0.03, 0
        while placed < 6:
            first = ("fridge",) if self.stock.get("fridge") and placed == 0 else ()
            piece = self._pick(*categories, *first)
            width = piece.size[0]
            if along + width > wall.end - 0.02:
                break
            # neighbours touch, so they may share pixels of the grid
            cabinet = self._against(piece, wall, along + width / 2, margin=-2 * _PIXEL)
            if cabinet is None:
                along += 0.25
                continue
            if self.stock.get("kitchen_wall") and piece.elevation + piece.size[1] < _LOW and self.rng.random() < 0.7:
                if upper := self._pick_any("kitchen_wall", max_width=width + 0.02):
                    self._against(upper, wall, along + width / 2, max(upper.elevation, 1.4), margin=-2 * _PIXEL)
            if piece.size[1] < _LOW:
                self._load(cabinet, 0.4)
            along += width + 0.005
            placed += 1
        return placed

    def _load(self, below: Placement, probability: float = 0.7) -> None:
        """Put a few small pieces on top of a piece, if its category has a flat top."""
        if below.piece.category not in _TABLE_TOPS:
            return
        if below.piece.category == "tv_unit" and self.stock.get("tv"):
            self._put_on(below, self._pick("tv"))
            return
        if below.piece.category == "desk" and self.stock.get("computer"):
            self._put_on(below, self._pick("computer"))
        if self.stock.get("small"):
            for _ in range(2):
                if self.rng.random() < probability:
                    self._put_on(below, self._pick("small"), spread=0.35)

    def _put_on(self, below: Placement, piece: Piece, spread: float = 0.0) -> None:
        """Put a piece on top of another, unless it is too large or would overlap what is there."""
        width, _, depth = below.piece.size
        if piece.size[0] > width or piece.size[2] > depth or piece.size[1] > 0.9:
            return
        right, front = self.rng.uniform(-spread, spread, size=2) * [width - piece.size[0], depth - piece.size[2]]
        x, z = below.point(right, front)
        top = below.elevation + below.piece.table_top
        for other in self.placements:
            clear = (np.hypot(*other.piece.size[::2]) + np.hypot(*piece.size[::2])) / 2
            if abs(other.elevation - top) < 1e-6 and np.hypot(other.x - x, other.z - z) < clear:
                return
        self._add(piece, x, z, below.yaw, top)


def _yaw(normal: tuple[float, float]) -> float:
    """Return the yaw at which the front of a piece faces ``(x, z)``."""
    return float(np.arctan2(normal[0], normal[1]))


def _pixels(centre: tuple[float, float], size: tuple[float, float]) -> tuple[slice, slice]:
    """Return the pixels that a rectangle touches."""
    first = [max(int(np.floor((c - s / 2) / _PIXEL + 1e-6)), 0) for c, s in zip(centre, size, strict=True)]
    last = [max(int(np.ceil((c + s / 2) / _PIXEL - 1e-6)), 0) for c, s in zip(centre, size, strict=True)]
    return slice(first[0], last[0]), slice(first[1], last[1])
