"""A furnished apartment of simple shapes for tests of the renderer: five rooms around a hall."""

import numpy as np

from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, Lamp, Mesh, Portal, Scene

HEIGHT = 2.6  # metres
WALL = 0.06  # metres: half the thickness of a wall
ROOMS = [
    (0, 0, 5, 5),
    (5, 0, 9, 4),
    (5, 5.4, 9, 9.4),
    (0, 5, 5, 9.4),
    (5, 4, 9, 5.4),
]  # x0, z0, x1, z1; the last one is the hall
# axis and coordinate of the wall, start and end of the opening, rooms
DOORS = [
    ("x", 5, 4.25, 5.15 - 0.4, (0, 4)),
    ("z", 4, 6.5, 7.4, (1, 4)),
    ("z", 5.4, 6.5, 7.4, (2, 4)),
    ("z", 5, 1, 2.2, (0, 3)),
]
WINDOWS = [("z", 0, 1.2, 3.2, 0), ("z", 0, 6.2, 7.8, 1), ("x", 9, 6.5, 8.3, 2), ("x", 0, 6.2, 8, 3)]
WHITE, WOOD, PLASTER, FABRIC, TILES, LEAVES = range(6)


def mesh(positions, normals, uv, layer, colour, faces) -> Mesh:
    count = len(positions)
    return Mesh(
        np.asarray(positions, np.float32),
        np.asarray(normals, np.float32),
        np.asarray(uv, np.float32),
        np.full(count, layer, np.int32),
        np.tile(np.asarray(colour, np.uint8), (count, 1)),
        np.asarray(faces, np.int32),
    )


def merged(*meshes: Mesh) -> Mesh:
    offsets = np.cumsum([0, *(len(each.positions) for each in meshes[:-1])])
    return Mesh(
        *(
            np.concatenate([getattr(each, name) for each in meshes])
            for name in ("positions", "normals", "uv", "layer", "colour")
        ),
        np.concatenate([each.faces + offset for each, offset in zip(meshes, offsets, strict=True)]).astype(np.int32),
    )


def moved(shape: Mesh, x: float, z: float, turn: float = 0.0, y: float = 0.0) -> Mesh:
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return Mesh(
        (shape.positions @ rotation.T + [x, y, z]).astype(np.float32),
        (shape.normals @ rotation.T).astype(np.float32),
        shape.uv,
        shape.layer,
        shape.colour,
        shape.faces,
    )


def panel(origin, along, up, layer=WHITE, colour=(255, 255, 255), breaks=None, holes=(), repeat=1.0) -> Mesh:
    """Make a rectangle that faces ``along x up``, with holes ``(a0, b0, a1, b1)`` in metres along its two edges."""
    origin, along, up = (np.asarray(each, float) for each in (origin, along, up))
    width, height = np.linalg.norm(along), np.linalg.norm(up)
    a = np.unique([0, width, *(each[0] for each in holes), *(each[2] for each in holes)])
    b = np.unique([0, height, *(each[1] for each in holes), *(each[3] for each in holes)])
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    faces = []
    for i in range(len(a) - 1):
        for j in range(len(b) - 1):
            middle = (a[i] + a[i + 1]) / 2, (b[j] + b[j + 1]) / 2
            if any(h[0] < middle[0] < h[2] and h[1] < middle[1] < h[3] for h in holes):
                continue
            p = i * len(b) + j
            faces += [(p, p + len(b), p + len(b) + 1), (p, p + len(b) + 1, p + 1)]
    normal = np.cross(along, up) / (width * height)
    positions = origin + grid[:, :1] * along / width + grid[:, 1:] * up / height
    return mesh(positions, np.tile(normal, (len(grid), 1)), grid / repeat, layer, colour, faces)


def box(low, high, layer=WHITE, colour=(255, 255, 255)) -> Mesh:
    (x0, y0, z0), (x1, y1, z1) = low, high
    x, y, z = np.diag([x1 - x0, y1 - y0, z1 - z0])
    sides = [
        ((x0, y0, z1), x, y),
        ((x1, y0, z0), -x, y),
        ((x1, y0, z1), -z, y),
        ((x0, y0, z0), z, y),
        ((x0, y1, z1), x, -z),
        ((x0, y0, z0), x, z),
    ]
    return merged(*(panel(*side, layer, colour) for side in sides))


def lathe(profile, segments=32, layer=WHITE, colour=(255, 255, 255), squareness=2.0) -> Mesh:
    """Make a solid of revolution; with ``squareness`` above 2 its plan is a rounded square."""
    radius, y = np.asarray(profile, float).T
    turn = np.linspace(0, 2 * np.pi, segments + 1)
    cos, sin = np.cos(turn), np.sin(turn)
    stretch = (np.abs(cos) ** squareness + np.abs(sin) ** squareness) ** (-1 / squareness)
    positions = np.stack(
        [np.outer(radius, cos * stretch), np.repeat(y[:, None], len(turn), 1), np.outer(radius, sin * stretch)], -1
    )
    d_turn, d_y = np.gradient(positions, axis=1), np.gradient(positions, axis=0)
    d_turn[:, [0, -1]] = positions[:, 1:2] - positions[:, -2:-1]
    normals = np.cross(d_y, d_turn)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
    i, j = np.meshgrid(np.arange(len(radius) - 1), np.arange(segments), indexing="ij")
    p = (i * (segments + 1) + j).ravel()
    up = segments + 1
    faces = np.concatenate([np.stack([p, p + up, p + up + 1], -1), np.stack([p, p + up + 1, p + 1], -1)])
    uv = np.stack(np.broadcast_arrays(turn[None] / np.pi, y[:, None] * 2), -1).reshape(-1, 2)
    return mesh(positions.reshape(-1, 3), normals.reshape(-1, 3), uv, layer, colour, faces)


def cushion(size, layer=FABRIC, colour=(255, 255, 255), rings=24) -> Mesh:
    """Make a rounded box of ``rings * 32 * 2`` triangles that stands on the floor."""
    turn = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    cos, sin = np.abs(np.cos(turn)) ** 0.35, np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.35
    shape = lathe(np.stack([cos / 2, sin / 2 + 0.5], -1), 32, layer, colour, 8.0)
    return Mesh(
        (shape.positions * size).astype(np.float32),
        *(getattr(shape, name) for name in ("normals", "uv", "layer", "colour", "faces")),
    )


def sofa(colour) -> Mesh:
    seat, back = cushion((2.0, 0.3, 0.9), colour=colour, rings=12), cushion((2.0, 0.8, 0.25), colour=colour, rings=8)
    arm = cushion((0.25, 0.6, 0.9), colour=colour, rings=4)
    legs = [
        moved(lathe([(0.03, 0), (0.03, 0.12)], 8, colour=(60, 50, 40)), x, z)
        for x in (-0.9, 0.9)
        for z in (-0.35, 0.35)
    ]
    return merged(
        moved(seat, 0, 0, y=0.12),
        moved(back, 0, -0.4, y=0.12),
        moved(arm, -1, 0, y=0.12),
        moved(arm, 1, 0, y=0.12),
        *legs,
    )


def table(width, depth, height, colour) -> Mesh:
    legs = [
        moved(lathe(np.stack([np.full(23, 0.035), np.linspace(0, height - 0.04, 23)], -1), 16, WOOD, colour), x, z)
        for x in (-width / 2 + 0.08, width / 2 - 0.08)
        for z in (-depth / 2 + 0.08, depth / 2 - 0.08)
    ]
    return merged(box((-width / 2, height - 0.04, -depth / 2), (width / 2, height, depth / 2), WOOD, colour), *legs)


def shelf(width, height, colour) -> Mesh:
    boards = [
        box((-width / 2, y, -0.15), (width / 2, y + 0.03, 0.15), WOOD, colour)
        for y in np.linspace(0.05, height - 0.03, 6)
    ]
    sides = [box((x - 0.015, 0, -0.15), (x + 0.015, height, 0.15), WOOD, colour) for x in (-width / 2, width / 2)]
    rng = np.random.default_rng(round(width * 100))
    books = []
    for y in np.linspace(0.05, height - 0.03, 6)[:-1] + 0.03:
        x = -width / 2 + 0.03
        while x < width / 2 - 0.1:
            thick, tall = rng.uniform(0.02, 0.05), rng.uniform(0.16, 0.27)
            books.append(box((x, y, -0.1), (x + thick, y + tall, 0.1), WHITE, rng.integers(40, 220, 3)))
            x += thick + rng.choice([0.002, 0.1], p=[0.9, 0.1])
    return merged(*boards, *sides, box((-width / 2, 0, -0.15), (width / 2, height, -0.14), WOOD, colour), *books)


def plant() -> Mesh:
    pot = lathe([(0, 0), (0.13, 0), (0.18, 0.3), (0.16, 0.3), (0, 0.28)], 24, colour=(190, 110, 80))
    leaves = [
        moved(panel((-0.4, 0.25, 0), (0.8, 0, 0), (0, 1.0, 0), LEAVES), 0, 0, turn) for turn in np.arange(6) * np.pi / 6
    ]
    return merged(pot, *leaves)


def floor_lamp() -> Mesh:
    return merged(
        lathe([(0, 0), (0.16, 0), (0.16, 0.03), (0.015, 0.04), (0.015, 1.4)], 24, colour=(40, 40, 40)),
        lathe([(0.22, 1.3), (0.14, 1.65)], 24, colour=(250, 235, 200)),
    )


def textures() -> np.ndarray:
    rng = np.random.default_rng(0)
    n = TEXTURE_SIZE
    result = np.full((6, n, n, 4), 255, np.uint8)
    board = np.arange(n)[:, None] // 16
    grain = rng.normal(0, 1, (n, n)).cumsum(1) * 2
    tone = rng.uniform(-18, 18, 4)[board] + (grain - grain.mean(1, keepdims=True)) * np.hanning(n)
    tone[np.arange(n) % 16 == 0] -= 45
    result[WOOD, :, :, :3] = np.clip(np.array([176, 128, 84]) + tone[..., None], 0, 255)
    result[PLASTER, :, :, :3] = np.clip(238 + rng.normal(0, 4, (n, n, 1)), 0, 255)
    weave = 14 * ((np.arange(n)[:, None] // 2 + np.arange(n) // 2) % 2)
    result[FABRIC, :, :, :3] = np.clip(225 + weave + rng.normal(0, 8, (n, n)), 0, 255)[..., None]
    result[TILES, :, :, :3] = np.where((np.arange(n) % 32 < 2)[:, None] | (np.arange(n) % 32 < 2), 150, 225)[..., None]
    y, x = np.mgrid[0:n, 0:n] / n
    leaf = np.zeros((n, n), bool)
    for root, lean in ((0.2, -0.3), (0.4, -0.1), (0.5, 0.05), (0.65, 0.2), (0.8, 0.35)):
        middle = 0.5 + (root - 0.5) * 0.6 * (1 - y) + lean * (1 - y) ** 2
        leaf |= np.abs(x - middle) < 0.06 * np.sin(np.pi * np.clip(1 - y, 0, 1)) ** 0.7
    result[LEAVES] = np.where(leaf[..., None], [60, 120, 50, 255], [60, 120, 50, 0])
    return result


def shell() -> tuple[list[Mesh], list[int], list[Portal]]:
    parts, rooms = [], []
    walls = [(235, 225, 205), (205, 220, 230), (225, 215, 225), (215, 228, 205), (240, 235, 225)]
    for room, (x0, z0, x1, z1) in enumerate(ROOMS):
        x0, z0, x1, z1 = x0 + WALL, z0 + WALL, x1 - WALL, z1 - WALL
        layer = TILES if room == 1 else WOOD
        meshes = [
            panel((x0, 0, z1), (x1 - x0, 0, 0), (0, 0, z0 - z1), layer, repeat=1.0),
            panel((x0, HEIGHT, z0), (x1 - x0, 0, 0), (0, 0, z1 - z0), WHITE, (250, 250, 250)),
        ]
        for axis, at, start, end in (("x", x0, z0, z1), ("x", x1, z0, z1), ("z", z0, x0, x1), ("z", z1, x0, x1)):
            holes = [
                (d[2] - start, 0.0, d[3] - start, 2.05)
                for d in DOORS
                if d[0] == axis and abs(d[1] - at) < 0.1 and room in d[4]
            ]
            holes += [
                (w[2] - start, 0.9, w[3] - start, 2.1)
                for w in WINDOWS
                if w[0] == axis and abs(w[1] - at) < 0.1 and room == w[4]
            ]
            origin, along = (
                ((at, 0, start), (0, 0, end - start)) if axis == "x" else ((start, 0, at), (end - start, 0, 0))
            )
            if (axis, at) in (
                ("x", x0),
                ("z", z1),
            ):  # reversed, so that the front faces the room
                origin, along = np.add(origin, along), np.negative(along)
                holes = [(end - start - h[2], h[1], end - start - h[0], h[3]) for h in holes]
            meshes.append(panel(origin, along, (0, HEIGHT, 0), PLASTER, walls[room], holes=holes))
        parts += meshes
        rooms += [room] * len(meshes)
    portals = []
    for axis, at, start, end, between in DOORS:
        parts += jambs(axis, at, start, end, 0.0, 2.05)
        rooms += [-1] * 4
        corners = [
            (at, y, s) if axis == "x" else (s, y, at) for s, y in ((start, 0), (end, 0), (end, 2.05), (start, 2.05))
        ]
        portals.append(Portal(between, np.array(corners)))
    for axis, at, start, end, room in WINDOWS:
        parts += jambs(axis, at, start, end, 0.9, 2.1)
        rooms += [room] * 4
    return parts, rooms, portals


def jambs(axis, at, start, end, low, high) -> list[Mesh]:
    """Make the four faces inside an opening of a wall."""

    def place(s, y, t):
        return (at + t, y, s) if axis == "x" else (s, y, at + t)

    middle = np.array(place((start + end) / 2, (low + high) / 2, 0))

    def face(a, b, c):
        a, b, c = (np.array(each, float) for each in (a, b, c))
        if np.cross(b - a, c - a) @ (middle - a) < 0:
            b, c = c, b
        return panel(a, b - a, c - a, WHITE, (240, 240, 240))

    return [
        face(place(start, low, -WALL), place(start, low, WALL), place(start, high, -WALL)),
        face(place(end, low, -WALL), place(end, low, WALL), place(end, high, -WALL)),
        face(place(start, low, -WALL), place(end, low, -WALL), place(start, low, WALL)),
        face(place(start, high, -WALL), place(end, high, -WALL), place(start, high, WALL)),
    ]


def furniture() -> list[tuple[int, Mesh]]:
    pieces = [
        (0, moved(sofa((150, 170, 190)), 2.5, 0.65)),
        (0, moved(table(1.0, 0.6, 0.42, (220, 200, 180)), 2.5, 1.9)),
        (0, moved(shelf(1.4, 2.0, (200, 180, 160)), 0.3, 3.2, np.pi / 2)),
        (0, moved(plant(), 4.5, 0.5)),
        (0, moved(floor_lamp(), 0.5, 0.6)),
        (0, moved(sofa((180, 90, 80)), 4.3, 2.6, -np.pi / 2)),
        (1, moved(table(1.6, 0.9, 0.75, (235, 220, 200)), 7, 2)),
        (1, moved(shelf(0.9, 1.8, (160, 120, 90)), 8.7, 1.0, -np.pi / 2)),
        (2, moved(cushion((1.6, 0.5, 2.0), colour=(230, 230, 240)), 7.5, 8.2)),
        (2, moved(shelf(1.2, 1.9, (120, 90, 70)), 5.3, 7.5, np.pi / 2)),
        (2, moved(plant(), 8.5, 5.9)),
        (3, moved(table(1.4, 0.7, 0.75, (150, 120, 100)), 2.5, 9.0)),
        (3, moved(shelf(1.6, 2.2, (230, 225, 220)), 4.7, 7.2, -np.pi / 2)),
        (3, moved(plant(), 0.5, 8.9)),
        (4, moved(plant(), 8.6, 4.7)),
    ]
    rng = np.random.default_rng(5)
    for room, count in ((0, 10), (1, 10), (2, 10), (3, 12), (4, 3)):
        x0, z0, x1, z1 = ROOMS[room]
        for _ in range(count):
            size = rng.uniform([0.3, 0.3, 0.3], [0.6, 1.0, 0.6])
            x, z = rng.uniform([x0 + 0.5, z0 + 0.5], [x1 - 0.5, z1 - 0.5])
            pieces.append((room, moved(cushion(size, colour=rng.integers(90, 255, 3)), x, z, rng.uniform(0, 6))))
    return pieces


def home(pieces: int | None = None) -> Scene:
    parts, rooms, portals = shell()
    for room, shape in furniture()[:pieces]:
        parts.append(shape)
        rooms.append(room)
    lamps = []
    for x0, z0, x1, z1 in ROOMS:
        colour = np.array([1.0, 0.86, 0.7]) * (0.4 + 0.12 * (x1 - x0) * (z1 - z0))
        lamps.append(Lamp(((x0 + x1) / 2, HEIGHT - 0.35, (z0 + z1) / 2), tuple(colour.tolist())))
    mover = lathe([(0, 0.02), (0.17, 0.02), (0.17, 0.08), (0.1, 0.1), (0, 0.1)], 32, colour=(60, 60, 70))
    return Scene(tuple(parts), tuple(rooms), textures(), tuple(lamps), tuple(portals), movers=(mover,))
