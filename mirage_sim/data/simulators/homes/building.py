"""Conversion of a furnished floor plan to a scene."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.simulators.homes.floor_plan import CELL, WALL, FloorPlan, Opening, Wall, oriented
from mirage_sim.data.simulators.homes.furniture import Piece, Placement
from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, Lamp, Mesh, Portal, Scene, unit
from mirage_sim.data.simulators.homes.surfaces import Surface, surfaces

Vector = NDArray[np.float64]

_SKIRTING = (0.08, 0.012)  # height and thickness, metres
_FRAME = (0.06, 0.015)  # width and thickness of a door frame, metres
_GROUND = 40.0  # metres of ground around the apartment
_WHITE_LAMP = np.array([1.0, 0.92, 0.8])
_DAYLIGHT = np.array([1.6, 1.8, 2.0])  # radiance of a bright sky, relative to lamps


@dataclass
class _Textures:
    """The texture array of a scene in the making; layer 0 is white."""

    layers: list[NDArray[np.uint8]] = field(
        default_factory=lambda: [np.full((TEXTURE_SIZE, TEXTURE_SIZE, 4), 255, dtype=np.uint8)]
    )
    known: dict[int | str, int] = field(default_factory=dict)

    def surface(self, surface: Surface) -> int:
        """Return the layer of a surface's texture."""
        if id(surface.texture) not in self.known:  # surfaces are cached, so that ids are not reused
            self.known[id(surface.texture)] = len(self.layers)
            self.layers.append(surface.texture)
        return self.known[id(surface.texture)]

    def piece(self, piece: Piece) -> int:
        """Return the offset from the layers of a piece's mesh to those of the scene; they share layer 0."""
        if piece.name not in self.known:
            self.known[piece.name] = len(self.layers) - 1
            self.layers.extend(piece.textures[1:])
        return self.known[piece.name]


def build_scene(
    rng: np.random.Generator,
    plan: FloorPlan,
    placements: Sequence[Placement],
    movers: Sequence[Piece] = (),
    procedural: bool = False,
) -> Scene:
    """Build the scene of a furnished apartment.

    Args:
        rng: random numbers for surfaces, colours and lamps.
        plan: the apartment.
        placements: its furniture, doors and windows.
        movers: pieces that move; see :attr:`Scene.movers`.
        procedural: use procedural textures only.
    """
    textures = _Textures()
    parts: list[Mesh] = []
    rooms: list[int] = []

    def add(mesh: Mesh, room: int) -> None:
        parts.append(mesh)
        rooms.append(room)

    for room, kind in enumerate(plan.kinds):
        for mesh in _shell(rng, plan, room, kind, textures, procedural):
            add(mesh, room)
    for opening in plan.openings:
        add(_frame(rng, opening), -1)
    for placement in placements:
        add(place(placement, textures.piece(placement.piece)), placement.room)
    add(_ground(rng, plan, textures, procedural), -1)
    moving = tuple(_with_layers(piece.mesh, textures.piece(piece)) for piece in movers)
    lamps = tuple(_lamps(rng, plan, placements))
    portals = tuple(_portal(opening) for opening in plan.openings if opening.kind == "passage")
    red, green, blue = (float(each) for each in rng.uniform(0.4, 1.2) * _DAYLIGHT)
    return Scene(tuple(parts), tuple(rooms), np.stack(textures.layers), lamps, portals, (red, green, blue), moving)


def place(placement: Placement, layers: int = 0) -> Mesh:
    """Return the mesh of a placed piece in the world frame.

    Args:
        placement: the piece and its pose.
        layers: added to the layers of its textures.
    """
    mesh, scale = placement.piece.mesh, np.array(placement.scale, dtype=np.float32)
    cos, sin = np.cos(placement.yaw), np.sin(placement.yaw)
    turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]], dtype=np.float32)
    shift = np.array([placement.x, placement.elevation, placement.z], dtype=np.float32)
    positions, normals = (mesh.positions * scale) @ turn.T + shift, unit((mesh.normals / scale) @ turn.T)
    return _with_layers(replace(mesh, positions=positions, normals=normals), layers)


def _with_layers(mesh: Mesh, layers: int) -> Mesh:
    return replace(mesh, layer=np.where(mesh.layer > 0, mesh.layer + layers, 0).astype(np.int32))


class _Quads:
    """Rectangles that form one mesh, with one texture and one colour."""

    def __init__(self, layer: int = 0, repeat: float = 1.0, colour: Vector | None = None):
        self.layer, self.repeat = layer, repeat
        self.colour = np.array([255.0, 255.0, 255.0]) if colour is None else colour
        self.corners: list[Vector] = []
        self.uv: list[Vector] = []

    def add(self, origin: Sequence[float], right: Sequence[float], up: Sequence[float]) -> None:
        """Add a rectangle; it faces the side from which ``right`` points right and ``up`` points up."""
        o, r, u = np.array(origin, dtype=np.float64), np.array(right, dtype=np.float64), np.array(up, dtype=np.float64)
        self.corners.append(np.stack([o, o + r, o + r + u, o + u]))
        width, height = float(np.linalg.norm(r)), float(np.linalg.norm(u))
        along = np.array([o @ r / max(width, 1e-9), o @ u / max(height, 1e-9)])  # neighbours continue the pattern
        self.uv.append((np.array([[0, 0], [width, 0], [width, height], [0, height]]) + along) / self.repeat)

    def box(self, low: Sequence[float], high: Sequence[float]) -> None:
        """Add an upright box."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        w, h, d = x1 - x0, y1 - y0, z1 - z0
        self.add((x0, y0, z1), (w, 0, 0), (0, h, 0))
        self.add((x1, y0, z0), (-w, 0, 0), (0, h, 0))
        self.add((x0, y0, z0), (0, 0, d), (0, h, 0))
        self.add((x1, y0, z1), (0, 0, -d), (0, h, 0))
        self.add((x0, y1, z1), (w, 0, 0), (0, 0, -d))
        self.add((x0, y0, z0), (w, 0, 0), (0, 0, d))

    def mesh(self) -> Mesh:
        """Return the mesh."""
        corners = np.stack(self.corners)
        count = len(corners)
        normal = unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]))
        first = 4 * np.arange(count)[:, None]
        return Mesh(
            positions=corners.reshape(-1, 3).astype(np.float32),
            normals=np.repeat(normal, 4, axis=0).astype(np.float32),
            uv=np.stack(self.uv).reshape(-1, 2).astype(np.float32),
            layer=np.full(4 * count, self.layer, dtype=np.int32),
            colour=np.tile(self.colour.clip(0, 255).astype(np.uint8), (4 * count, 1)),
            faces=np.concatenate([first + [0, 1, 2], first + [0, 2, 3]], axis=1).reshape(-1, 3).astype(np.int32),
        )


def _shell(
    rng: np.random.Generator, plan: FloorPlan, room: int, kind: str, textures: _Textures, procedural: bool
) -> Iterator[Mesh]:
    """Yield the floor, the ceiling, the walls and the skirting of a room."""
    wall, floor, ceiling = (_choose(rng, name, kind, procedural) for name in ("wall", "floor", "ceiling"))
    hue = _pastel(rng)
    floors = _Quads(textures.surface(floor), floor.repeat, _shade(rng, 0.75, 1.0) * 255.0)
    ceilings = _Quads(textures.surface(ceiling), ceiling.repeat, np.array([250.0, 250.0, 247.0]))
    for x0, z0, x1, z1 in _rectangles(plan.label == room):
        floors.add((x0, 0.0, z1), (x1 - x0, 0.0, 0.0), (0.0, 0.0, z0 - z1))
        ceilings.add((x0, plan.height, z0), (x1 - x0, 0.0, 0.0), (0.0, 0.0, z1 - z0))
    yield floors.mesh()
    yield ceilings.mesh()
    skirting = _Quads(colour=np.array([235.0, 232.0, 225.0]) if rng.random() < 0.7 else np.array([120.0, 85.0, 55.0]))
    accent = int(rng.integers(12))  # some rooms have one wall in another colour
    for i, face in enumerate(each for each in plan.walls if each.room == room):
        colour = _pastel(rng) if i == accent else hue
        quads = _Quads(textures.surface(wall), wall.repeat, colour)
        for start, end, bottom, top in _around_openings(plan, face):
            _upright(quads, face, start, end, bottom, top)
            if bottom == 0.0:
                height, thickness = _SKIRTING
                _upright(skirting, face, start, end, 0.0, height, thickness)
                _ledge(skirting, face, start, end, height, thickness)
        if quads.corners:
            yield quads.mesh()
    if skirting.corners:
        yield skirting.mesh()


def _choose(rng: np.random.Generator, name: str, kind: str, procedural: bool) -> Surface:
    """Choose a surface; walls other than those of bathrooms and kitchens are often plain."""
    choices = surfaces(name, procedural)
    if name == "wall" and rng.random() < 0.45 and kind not in ("bathroom", "kitchen"):
        return choices[0]
    return choices[int(rng.integers(len(choices)))]


def _pastel(rng: np.random.Generator) -> Vector:
    """Draw a colour for paint: light, and seldom saturated."""
    strength = rng.uniform(0.0, 0.16) if rng.random() < 0.8 else rng.uniform(0.15, 0.35)
    return 255.0 * rng.uniform(0.82, 1.0) * (1.0 - strength * rng.dirichlet([0.7, 0.7, 0.7]) * 1.6).clip(0.15, 1.0)


def _shade(rng: np.random.Generator, low: float, high: float) -> Vector:
    return rng.uniform(low, high) * (1.0 - 0.12 * rng.random(3))


def _rectangles(cells: NDArray[np.bool_]) -> Iterator[tuple[float, float, float, float]]:
    """Yield rectangles ``(x0, z0, x1, z1)`` in metres that cover the cells; equal rows share their rectangles."""
    start = 0
    while start < len(cells):
        end = start + 1
        while end < len(cells) and (cells[end] == cells[start]).all():
            end += 1
        edges = np.flatnonzero(np.diff(np.concatenate([[0], cells[start].astype(np.int8), [0]])))
        for z0, z1 in zip(edges[::2], edges[1::2], strict=True):
            yield start * CELL, z0 * CELL, end * CELL, z1 * CELL
        start = end


def _holes(plan: FloorPlan, face: Wall) -> list[Opening]:
    """Return the openings in a face, in order."""
    through = [
        opening
        for opening in plan.openings
        if opening.axis == face.axis
        and abs(opening.at + face.sign * WALL / 2 - face.at) < 1e-6
        and face.room in opening.rooms
        and opening.start < face.end
        and opening.end > face.start
    ]
    return sorted(through, key=lambda opening: opening.start)


def _around_openings(plan: FloorPlan, face: Wall) -> Iterator[tuple[float, float, float, float]]:
    """Yield rectangles ``(start, end, bottom, top)`` that cover a face except its openings."""
    at = face.start
    for hole in _holes(plan, face):
        yield at, hole.start, 0.0, plan.height
        if hole.bottom > 0.0:
            yield hole.start, hole.end, 0.0, hole.bottom
        yield hole.start, hole.end, hole.top, plan.height
        at = hole.end
    yield at, face.end, 0.0, plan.height


def _upright(quads: _Quads, face: Wall, start: float, end: float, bottom: float, top: float, away: float = 0.0) -> None:
    """Add a rectangle parallel to a wall that faces the room."""
    if end - start < 1e-6 or top - bottom < 1e-6:
        return
    (x0, z0), (x1, z1) = face.point(start, away), face.point(end, away)
    nx, nz = face.normal
    if (z1 - z0) * nx - (x1 - x0) * nz > 0:  # the origin must be on the left for an observer in the room
        (x0, z0), (x1, z1) = (x1, z1), (x0, z0)
    quads.add((x0, bottom, z0), (x1 - x0, 0.0, z1 - z0), (0.0, top - bottom, 0.0))


def _ledge(quads: _Quads, face: Wall, start: float, end: float, height: float, depth: float) -> None:
    """Add the top of a skirting board."""
    (x0, z0), (x1, z1) = face.point(start), face.point(end, depth)
    low, high = (min(x0, x1), min(z0, z1)), (max(x0, x1), max(z0, z1))
    quads.add((low[0], height, high[1]), (high[0] - low[0], 0.0, 0.0), (0.0, 0.0, low[1] - high[1]))


def _frame(rng: np.random.Generator, opening: Opening) -> Mesh:
    """Make the frame around an opening."""
    white, brown = np.array([236.0, 234.0, 228.0]), np.array([130.0, 92.0, 60.0])
    frame = _Quads(colour=white if rng.random() < 0.7 else brown)
    width, thickness = _FRAME
    reach = WALL / 2 + thickness
    bars = [
        (opening.start - width, opening.start, opening.bottom, opening.top + width),
        (opening.end, opening.end + width, opening.bottom, opening.top + width),
        (opening.start, opening.end, opening.top, opening.top + width),
    ]
    if opening.bottom > 0.0:
        bars.append((opening.start - width, opening.end + width, opening.bottom - 0.04, opening.bottom))
    for start, end, bottom, top in bars:
        low, high = (opening.at - reach, bottom, start), (opening.at + reach, top, end)
        frame.box(*((low, high) if opening.axis == 0 else ((low[2], low[1], low[0]), (high[2], high[1], high[0]))))
    return frame.mesh()


def _portal(opening: Opening) -> Portal:
    """Return the portal of a passage."""
    start, end, bottom, top = opening.start, opening.end, opening.bottom, opening.top
    corners = [
        (x, y, z)
        for along, y in ((start, bottom), (end, bottom), (end, top), (start, top))
        for x, z in (oriented(opening.axis, opening.at, along),)
    ]
    return Portal(opening.rooms, np.array(corners))


def _ground(rng: np.random.Generator, plan: FloorPlan, textures: _Textures, procedural: bool) -> Mesh:
    """Make the ground outside, below the floor by the height of a random storey."""
    below = -float(rng.choice([0.2, 3.0, 6.0]))
    ground = _Quads(textures.surface(surfaces("floor", procedural)[4]), 3.0, np.array([95.0, 120.0, 70.0]))
    x1, z1 = np.array(plan.label.shape) * CELL + _GROUND
    ground.add((-_GROUND, below, z1), (x1 + _GROUND, 0.0, 0.0), (0.0, 0.0, -z1 - _GROUND))
    return ground.mesh()


def _lamps(rng: np.random.Generator, plan: FloorPlan, placements: Sequence[Placement]) -> Iterator[Lamp]:
    """Yield a light at each ceiling lamp, or in the middle of a room without one."""
    for room in range(len(plan.kinds)):
        hanging = [each for each in placements if each.room == room and each.piece.category == "ceiling_lamp"]
        places = [(each.x, each.elevation - 0.05, each.z) for each in hanging]
        if not places:
            x, z = (np.argwhere(plan.label == room).mean(axis=0) + 0.5) * CELL
            places = [(float(x), plan.height - 0.15, float(z))]
        area = float((plan.label == room).sum()) * CELL**2
        colour = rng.uniform(0.8, 1.25) * (0.6 + 0.11 * area) * (1.0 - rng.uniform(0.2, 1.2) * (1.0 - _WHITE_LAMP))
        for where in places:
            yield Lamp(where, tuple((colour / len(places)).tolist()))
