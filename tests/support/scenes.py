"""Scenes for tests of light and rendering: panels, boxes, an empty room and a furnished home."""

from functools import cache

import numpy as np

from mirage_sim.data.simulators.homes.building import build_scene, place
from mirage_sim.data.simulators.homes.collision import Clearance
from mirage_sim.data.simulators.homes.floor_plan import draw_floor_plan
from mirage_sim.data.simulators.homes.furnishing import furnish
from mirage_sim.data.simulators.homes.furniture import procedural_pieces
from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, Mesh, Scene

WHITE, TEXTURED = range(2)  # layers of `textures`


@cache
def home(seed: int = 0) -> tuple[Scene, Clearance]:
    """Return a furnished home of five rooms and its clearance."""
    rngs = (np.random.default_rng([seed, use]) for use in range(3))
    plan, pieces = draw_floor_plan(next(rngs), rooms=5), procedural_pieces()
    placements = furnish(next(rngs), plan, pieces)
    clearance = Clearance(plan, [place(placement) for placement in placements], 1.6)
    return build_scene(next(rngs), plan, placements, procedural=True), clearance


def textures() -> np.ndarray:
    """Return two white textures."""
    return np.full((2, TEXTURE_SIZE, TEXTURE_SIZE, 4), 255, np.uint8)


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


def floor(size: float = 8.0) -> Mesh:
    return panel((-size / 2, 0, size / 2), (size, 0, 0), (0, 0, -size))


def room(*holes: tuple[float, float, float, float]) -> tuple[Mesh, ...]:
    """Make a room of 4 x 2.5 x 4 metres around the origin, with holes in one wall."""
    return (
        floor(4),
        panel((-2, 2.5, -2), (4, 0, 0), (0, 0, 4)),
        panel((-2, 0, -2), (4, 0, 0), (0, 2.5, 0), holes=holes),
        panel((2, 0, 2), (-4, 0, 0), (0, 2.5, 0)),
        panel((-2, 0, 2), (0, 0, -4), (0, 2.5, 0)),
        panel((2, 0, -2), (0, 0, 4), (0, 2.5, 0)),
    )
