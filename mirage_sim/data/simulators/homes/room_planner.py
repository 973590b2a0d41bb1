"""Where furniture may stand in a room: backs to walls, next to what it belongs to, and never in the way.

Nothing overlaps, and ways of ``WAY`` metres between all doors of a room stay free.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from mirage_sim.data.simulators.homes.floor_plan import CELL, WALL, FloorPlan, Opening, Wall
from mirage_sim.data.simulators.homes.furniture import Piece, Placement

WAY = 0.8  # metres: width of the ways that stay free
_PIXEL = 0.05  # metres: grid on which places are taken
_SCALE = round(CELL / _PIXEL)
_GAP = 0.03  # metres between a back and its wall
_LOW = 1.2  # metres: what hangs higher leaves room below, what is lower leaves room above
_FRONT = 0.9  # metres kept free before doors


class RoomPlanner:
    """One room while it is furnished: what has been placed, and which of its floor is taken.

    Args:
        rng: decides everything.
        plan: the apartment.
        room: number of the room.
        stock: pieces by category.
        doors: that stand open: nothing may overlap them.
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
        walls = cv2.erode(inside, np.ones((3, 3), np.uint8)) == 0  # they reach half of their thickness into the room
        self.low = walls  # taken below _LOW
        self.high = walls.copy()  # taken above
        self.kept = np.zeros_like(self.low)  # before doors: nothing may stand there
        self.doors: list[tuple[int, int]] = []  # pixels that must stay within reach of each other
        for opening in self.openings:
            self._keep(opening)
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
        """Follow one rule; where nothing fits, nothing is placed."""
        present = tuple(category for category in categories if self.stock.get(category))
        if present:
            self.rules[rule](present)

    def _keep(self, opening: Opening) -> None:
        """Keep the floor before a door free, and the wall around every opening."""
        side = 1 if opening.rooms[1] == self.room else -1
        if opening.kind != "window":
            middle = (opening.start + opening.end) / 2
            front = opening.at + side * _FRONT / 2
            across, along = _FRONT + 0.1, opening.end - opening.start + 0.1
            centre, size = (
                ((front, middle), (across, along)) if opening.axis == 0 else ((middle, front), (along, across))
            )
            self.kept[_pixels(centre, size)] = True
            reach = opening.at + side * (WAY / 2 + 0.1)
            place = (reach, middle) if opening.axis == 0 else (middle, reach)
            self.doors.append((int(place[0] / _PIXEL), int(place[1] / _PIXEL)))
        width = opening.end - opening.start
        centre, size = (
            ((opening.at, (opening.start + opening.end) / 2), (0.5, width))
            if opening.axis == 0
            else (((opening.start + opening.end) / 2, opening.at), (width, 0.5))
        )
        self.high[_pixels(centre, size)] = True

    def _pick(self, categories: Sequence[str]) -> Piece:
        category = categories[int(self.rng.integers(len(categories)))]
        choices = self.stock[category]
        return choices[int(self.rng.integers(len(choices)))]

    def _place(
        self, piece: Piece, x: float, z: float, yaw: float, elevation: float | None = None, margin: float = 0.0
    ) -> Placement | None:
        """Place a piece if there is room for its box, wider by ``margin``, and the doors stay within reach."""
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
            if not self._ways_are_free():
                self.low[where] = before
                return None
        if high:
            self.high[where] = True
        placement = Placement(piece, self.room, x, z, yaw, elevation)
        self.placements.append(placement)
        return placement

    def _ways_are_free(self) -> bool:
        """Whether a disc of ``WAY`` can go from every door to every other, and still has room to move."""
        free = np.pad((~self.low).astype(np.uint8), 1)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 3)[1:-1, 1:-1]
        walkable = (distance * _PIXEL >= WAY / 2 - _PIXEL).astype(np.uint8)
        for door in self.doors:  # the disc in the doorway itself
            cv2.circle(walkable, (door[1], door[0]), 3, 1, -1)
        count, parts = cv2.connectedComponents(walkable)
        if count < 2:
            return False
        if not self.doors:
            return True
        return len({int(parts[door]) for door in self.doors}) == 1

    def _along_walls(
        self, piece: Piece, tries: int = 12, elevation: float | None = None, corner: bool = False
    ) -> Placement | None:
        """Back to a wall, somewhere; or at one end of it."""
        width, _, depth = piece.size
        walls = [wall for wall in self.walls if wall.end - wall.start >= width + 0.05]
        if not walls:
            return None
        lengths = np.array([wall.end - wall.start for wall in walls])
        for _ in range(tries):
            wall = walls[int(self.rng.choice(len(walls), p=lengths / lengths.sum()))]
            low, high = wall.start + width / 2 + 0.03, wall.end - width / 2 - 0.03
            along = float(self.rng.choice([low, high]) if corner else self.rng.uniform(low, max(low, high)))
            placed = self._against(piece, wall, along, elevation)
            if placed:
                return placed
        return None

    def _against(
        self, piece: Piece, wall: Wall, along: float, elevation: float | None = None, margin: float = 0.0
    ) -> Placement | None:
        x, z = wall.point(along, piece.size[2] / 2 + _GAP)
        return self._place(piece, x, z, _yaw(wall.normal), elevation, margin)

    def _to_wall(self, categories: tuple[str, ...]) -> Placement | None:
        placed = self._along_walls(self._pick(categories))
        if placed:
            self._load(placed)
        return placed

    def _to_corner(self, categories: tuple[str, ...]) -> Placement | None:
        return self._along_walls(self._pick(categories), corner=True)

    def _hang(self, categories: tuple[str, ...]) -> Placement | None:
        piece = self._pick(categories)
        elevation = piece.elevation if piece.elevation > 0.6 else 1.55 - piece.size[1] / 2
        return self._along_walls(piece, elevation=max(elevation, _LOW + 0.01))

    def _at_windows(self, categories: tuple[str, ...]) -> None:
        """Below or before every window."""
        for opening in self.openings:
            side = 1 if opening.rooms[1] == self.room else -1
            piece = self._pick(categories)
            hanging = piece.category == "curtain"
            if opening.kind != "window" or (not hanging and piece.elevation + piece.size[1] > opening.bottom):
                continue
            middle = (opening.start + opening.end) / 2
            across = opening.at + side * (WALL / 2 + piece.size[2] / 2 + _GAP)
            x, z = (across, middle) if opening.axis == 0 else (middle, across)
            yaw = _yaw((float(side), 0.0) if opening.axis == 0 else (0.0, float(side)))
            if not hanging:
                self._place(piece, x, z, yaw)
                continue
            stretch = (opening.end - opening.start + 0.3) / piece.size[0]
            top = min(opening.top + 0.15, self.height - 0.03)
            self.placements.append(
                Placement(
                    piece,
                    self.room,
                    x,
                    z,
                    yaw,
                    top - piece.size[1],
                    (float(stretch), 1.0, min(1.0, 0.12 / piece.size[2])),
                )
            )

    def _to_ceiling(self, categories: tuple[str, ...]) -> Placement | None:
        """In the middle of the room, or of its largest part."""
        piece = self._pick(categories)
        distance = cv2.distanceTransform(np.pad((~self.low).astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        rows, columns = np.nonzero(distance >= 0.8 * distance.max())
        which = int(self.rng.integers(len(rows)))
        x, z = (rows[which] + 0.5) * _PIXEL, (columns[which] + 0.5) * _PIXEL
        return self._place(piece, float(x), float(z), 0.0, self.height - piece.size[1] - 0.021)

    def _sofa(self, categories: tuple[str, ...]) -> None:
        sofa = self._to_wall(categories)
        if sofa is None:
            return
        front = np.array([np.sin(sofa.yaw), np.cos(sofa.yaw)])
        if self.stock.get("coffee_table"):
            table = self._pick(("coffee_table",))
            away = sofa.piece.size[2] / 2 + 0.35 + table.size[2] / 2
            placed = self._place(table, sofa.x + away * front[0], sofa.z + away * front[1], sofa.yaw)
            if placed:
                self._load(placed)
        if self.stock.get("rug") and self.rng.random() < 0.7:
            rug = self._pick(("rug",))
            away = sofa.piece.size[2] / 2 + rug.size[2] / 2
            self._lay(rug, sofa.x + away * front[0], sofa.z + away * front[1], sofa.yaw)

    def _lay(self, rug: Piece, x: float, z: float, yaw: float) -> None:
        """A rug lies under things, but within the room."""
        where = _pixels((x, z), rug.extent(yaw))
        inside = ~self.low[where]
        taken = [each for each in self.placements if each.piece.category == "rug"]
        if inside.size and inside.mean() > 0.6 and not taken and self._within(x, z, *rug.extent(yaw)):
            self.placements.append(Placement(rug, self.room, x, z, yaw, 0.004))

    def _within(self, x: float, z: float, width: float, depth: float) -> bool:
        """Whether a rectangle lies between the room's walls, whatever stands there."""
        half = (width / 2, depth / 2)
        for wall in self.walls:
            across, along = ((x, z), (z, x))[wall.axis]
            reach, side = (half, half[::-1])[wall.axis]
            overlaps = wall.start < along + side and along - side < wall.end
            if overlaps and 0 > (across - wall.at) * wall.sign - reach > -2 * reach:
                return False
        return True

    def _bed(self, categories: tuple[str, ...]) -> None:
        bed = self._along_walls(self._pick(categories), tries=30)
        if bed is None or not self.stock.get("bedside_table"):
            return
        table = self._pick(("bedside_table",))
        right = np.array([np.cos(bed.yaw), -np.sin(bed.yaw)])
        front = np.array([np.sin(bed.yaw), np.cos(bed.yaw)])
        back = -bed.piece.size[2] / 2 + table.size[2] / 2
        for side in (-1, 1):
            across = side * (bed.piece.size[0] / 2 + table.size[0] / 2 + 0.06)
            x, z = np.array([bed.x, bed.z]) + across * right + back * front
            placed = self._place(table, float(x), float(z), bed.yaw)
            if placed and self.stock.get("table_lamp") and self.rng.random() < 0.7:
                self._put_on(placed, self._pick(("table_lamp",)))

    def _desk(self, categories: tuple[str, ...]) -> None:
        desk = self._along_walls(self._pick(categories), tries=30)
        if desk is None:
            return
        self._load(desk)
        if chairs := [name for name in ("office_chair", "chair") if self.stock.get(name)]:
            chair = self._pick(chairs[:1])
            away = desk.piece.size[2] / 2 + chair.size[2] / 2 - 0.15
            x, z = desk.x + away * np.sin(desk.yaw), desk.z + away * np.cos(desk.yaw)
            self._tuck(chair, float(x), float(z), desk.yaw + np.pi)

    def _tuck(self, chair: Piece, x: float, z: float, yaw: float) -> None:
        """A chair may reach under its table: only the part that sticks out needs room."""
        front = np.array([np.sin(yaw), np.cos(yaw)])
        free = replace(chair, size=(chair.size[0], chair.size[1], chair.size[2] * 0.5))
        back = np.array([x, z]) - front * chair.size[2] / 4
        if self._place(free, float(back[0]), float(back[1]), yaw):
            del self.placements[-1]
            self.placements.append(Placement(chair, self.room, x, z, yaw, chair.elevation))

    def _table(self, categories: tuple[str, ...]) -> None:
        """A table in the open, with chairs around it."""
        table = self._pick(categories)
        chairs = self.stock.get("chair")
        chair = chairs[int(self.rng.integers(len(chairs)))] if chairs else None
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

    def _seat(self, table: Placement, chair: Piece) -> None:
        width, _, depth = table.piece.size
        for sign, length, across in ((1, width, depth), (-1, width, depth), (1, depth, width), (-1, depth, width)):
            along_z = across is depth
            count = min(max(int(length / 0.6), 1), 3)
            for i in range(count):
                along = (i - (count - 1) / 2) * 0.6
                away = sign * (across / 2 + chair.size[2] / 2 - 0.2)
                offset = (along, away) if along_z else (away, along)
                yaw = (0.0 if sign > 0 else np.pi) if along_z else sign * np.pi / 2
                cos, sin = np.cos(table.yaw), np.sin(table.yaw)
                x = table.x + cos * offset[0] + sin * offset[1]
                z = table.z - sin * offset[0] + cos * offset[1]
                if self.rng.random() < 0.85:  # the margin around the table keeps their places free
                    turned = table.yaw + yaw + np.pi + float(self.rng.normal(0.0, 0.12))
                    self.placements.append(Placement(chair, self.room, float(x), float(z), turned, chair.elevation))

    def _kitchen(self, categories: tuple[str, ...]) -> None:
        """Base cabinets side by side along the longest free stretch of wall, wall cabinets above them."""
        walls = sorted(self.walls, key=lambda wall: wall.start - wall.end)
        for wall in walls[:3]:
            if self._row(wall, categories) >= 2:
                return

    def _row(self, wall: Wall, categories: tuple[str, ...]) -> int:
        along, placed = wall.start + 0.03, 0
        while placed < 6:
            piece = (
                self._pick((*categories, "fridge"))
                if self.stock.get("fridge") and placed == 0
                else self._pick(categories)
            )
            if along + piece.size[0] > wall.end - 0.02:
                break
            # neighbours touch, so that they share pixels of the grid
            stands = self._against(piece, wall, along + piece.size[0] / 2, margin=-2 * _PIXEL)
            if stands is None:
                along += 0.25
                continue
            if self.stock.get("kitchen_wall") and piece.elevation + piece.size[1] < _LOW and self.rng.random() < 0.7:
                self._hang_above(wall, along, piece.size[0])
            if piece.size[1] < _LOW:
                self._load(stands, 0.4)
            along += piece.size[0] + 0.005
            placed += 1
        return placed

    def _hang_above(self, wall: Wall, along: float, width: float) -> None:
        fitting = [piece for piece in self.stock["kitchen_wall"] if piece.size[0] <= width + 0.02]
        if fitting:
            piece = fitting[int(self.rng.integers(len(fitting)))]
            self._against(piece, wall, along + width / 2, max(piece.elevation, 1.4), margin=-2 * _PIXEL)

    def _load(self, below: Placement, probability: float = 0.7) -> None:
        """Put a few small things on a piece with a flat top."""
        tops = {"coffee_table", "dining_table", "desk", "chest_of_drawers", "tv_unit", "kitchen_base"}
        if below.piece.category not in tops:
            return
        if below.piece.category == "tv_unit" and self.stock.get("tv"):
            self._put_on(below, self._pick(("tv",)))
            return
        if below.piece.category == "desk" and self.stock.get("computer"):
            self._put_on(below, self._pick(("computer",)))
        if self.stock.get("small"):
            for _ in range(2):
                if self.rng.random() < probability:
                    self._put_on(below, self._pick(("small",)), spread=0.35)

    def _put_on(self, below: Placement, piece: Piece, spread: float = 0.0) -> None:
        width, _, depth = below.piece.size
        if piece.size[0] > width or piece.size[2] > depth or piece.size[1] > 0.9:
            return
        offset = self.rng.uniform(-spread, spread, size=2) * [width - piece.size[0], depth - piece.size[2]]
        cos, sin = np.cos(below.yaw), np.sin(below.yaw)
        x = below.x + cos * offset[0] + sin * offset[1]
        z = below.z - sin * offset[0] + cos * offset[1]
        top = below.elevation + below.piece.table_top
        on_it = [each for each in self.placements if abs(each.elevation - top) < 1e-6]
        for other in on_it:
            clear = (np.hypot(*other.piece.size[::2]) + np.hypot(*piece.size[::2])) / 2
            if np.hypot(other.x - x, other.z - z) < clear:
                return
        self.placements.append(Placement(piece, self.room, float(x), float(z), below.yaw, top))


def _yaw(normal: tuple[float, float]) -> float:
    """The yaw that turns a front towards ``(x, z)``."""
    return float(np.arctan2(normal[0], normal[1]))


def _pixels(centre: tuple[float, float], size: tuple[float, float]) -> tuple[slice, slice]:
    """The pixels that a rectangle touches."""
    first = [max(int(np.floor((c - s / 2) / _PIXEL + 1e-6)), 0) for c, s in zip(centre, size, strict=True)]
    last = [max(int(np.ceil((c + s / 2) / _PIXEL - 1e-6)), 0) for c, s in zip(centre, size, strict=True)]
    return slice(first[0], last[0]), slice(first[1], last[1])
