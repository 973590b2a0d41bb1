"""Primitives with simple textures for furniture made in code: boxes, superellipsoids and solids of revolution."""

from collections.abc import Sequence

import numpy as np

from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, Mesh, face_normals, opaque, unit

REPEAT = 0.5  # metres covered by one repeat of a texture
Paint = tuple[tuple[int, int, int], str]  # sRGB colour, and the name of the texture that it multiplies or ""
Range = tuple[float, float]


class Shapes:
    """A mesh in the making. The axes are those of a piece: x right, y up, the front towards +z; lengths in metres."""

    def __init__(self) -> None:
        self._names = [""]  # names of the textures, by layer
        self._vertices: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._count = 0

    def box(self, x: Range, y: Range, z: Range, paint: Paint) -> None:
        """Add a box that spans three ranges."""
        low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
        for axis in range(3):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            for side in (0, 1):
                corners = np.zeros((4, 3))
                corners[:, axis] = high[axis] if side else low[axis]
                corners[:, u] = np.array([low[u], high[u], high[u], low[u]])
                corners[:, v] = np.array([low[v], low[v], high[v], high[v]])
                normal = np.zeros(3)
                normal[axis] = 2 * side - 1
                # wood grain runs upwards, and along x on level faces
                across, along = {0: (2, 1), 1: (2, 0), 2: (0, 1)}[axis]
                faces = np.array([[0, 1, 2], [0, 2, 3]]) if side else np.array([[0, 2, 1], [0, 3, 2]])
                self._add(corners, np.tile(normal, (4, 1)), corners[:, [across, along]] / REPEAT, faces, paint)

    def panel(self, x: Range, y: Range, z: float, paint: Paint) -> None:
        """Add a rectangle that faces +z and shows its texture once."""
        corners = np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])
        uv = np.array([[0.0, 0.0], [1, 0], [1, 1], [0, 1]])
        self._add(corners, np.tile([0.0, 0, 1], (4, 1)), uv, np.array([[0, 1, 2], [0, 2, 3]]), paint)

    def rounded(self, x: Range, y: Range, z: Range, paint: Paint, round_: float = 0.35) -> None:
        """Add a superellipsoid that fills a box; with ``round_`` 1 it is an ellipsoid, with 0 the box itself."""
        low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
        around, up = 12, 6
        angle = np.arange(around + 1) / around * 2 * np.pi
        height = (np.arange(up + 1) / up - 0.5) * np.pi
        a, h = (grid.ravel() for grid in np.meshgrid(angle, height))
        sphere = np.stack([np.cos(h) * np.sin(a), np.sin(h), np.cos(h) * np.cos(a)], 1)
        power = np.sign(np.round(sphere, 9)) * np.abs(sphere) ** round_
        positions = (low + high) / 2 + power * (high - low) / 2
        normals = unit(np.sign(np.round(sphere, 9)) * np.abs(sphere) ** (2 - round_) / (high - low))
        uv = np.stack([a / (2 * np.pi) * 2, h / np.pi], 1) * max(high - low) / REPEAT
        self._add(positions, normals, uv, _grid_faces(up, around), paint)

    def turned(self, profile: Sequence[tuple[float, float]], x: float, z: float, paint: Paint) -> None:
        """Add a solid of revolution about a vertical axis at ``(x, z)``.

        Args:
            profile: points ``(radius, y)`` from the bottom to the top.
            x: of the axis, metres.
            z: of the axis, metres.
            paint: colour and texture.
        """
        around = 12
        angle = np.arange(around + 1) / around * 2 * np.pi
        ring = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], 1)
        for (r0, y0), (r1, y1) in zip(profile, profile[1:], strict=False):
            positions = np.concatenate([ring * r0 + [x, y0, z], ring * r1 + [x, y1, z]])
            slope = np.array([y1 - y0, r0 - r1]) / max(np.hypot(y1 - y0, r0 - r1), 1e-9)
            normals = np.tile(ring * slope[0] + [0, slope[1], 0], (2, 1))
            uv = np.stack([np.tile(angle * max(r0, r1), 2), np.repeat([y0, y1], around + 1)], 1) / REPEAT
            if y0 == y1:  # flat: the texture lies on it
                uv = positions[:, [0, 2]] / REPEAT
            self._add(positions, normals, uv, _grid_faces(1, around), paint)

    def _add(self, positions: np.ndarray, normals: np.ndarray, uv: np.ndarray, faces: np.ndarray, paint: Paint) -> None:
        colour, texture = paint
        if texture not in self._names:
            self._names.append(texture)
        shared = np.tile([float(self._names.index(texture)), *colour], (len(positions), 1))
        self._vertices.append(np.concatenate([positions, normals, uv, shared], 1))
        self._faces.append(faces + self._count)
        self._count += len(positions)

    def mesh(self) -> tuple[Mesh, np.ndarray, tuple[float, float, float]]:
        """Return the mesh, with its origin below the centre of the footprint, its textures and its size."""
        rows, faces = np.concatenate(self._vertices), np.concatenate(self._faces)
        low, high = rows[:, :3].min(0), rows[:, :3].max(0)
        rows[:, :3] -= [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]
        has_area = np.linalg.norm(face_normals(rows[:, :3], faces), axis=1) > 1e-12
        width, height, depth = (high - low).tolist()
        textures = np.stack([texture(name) for name in self._names])
        return Mesh.from_rows(rows, faces[has_area]), textures, (width, height, depth)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Return the triangles of a grid of ``(rows + 1) × (columns + 1)`` vertices, counter-clockwise from outside."""
    start = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    above = start + columns + 1
    return np.concatenate([np.stack([start, start + 1, above + 1], 1), np.stack([start, above + 1, above], 1)])


def texture(name: str) -> np.ndarray:
    """Make a texture by name, uint8 ``[TEXTURE_SIZE, TEXTURE_SIZE, 4]``.

    The empty name is white. ``"wood"``, ``"fabric"`` and ``"stripes"`` are pale and meant to be coloured; ``"books"``
    and ``"art"`` are coloured and exist in variants such as ``"art3"``.
    """
    n = TEXTURE_SIZE
    y, x = np.mgrid[:n, :n] / n
    kind, number = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :] or 0)
    rng = np.random.default_rng(number)
    grey = np.ones((n, n))
    if kind == "wood":
        grain = np.sin(2 * np.pi * (6 * x + 0.15 * np.sin(2 * np.pi * y)))
        grey = 0.88 + 0.04 * grain + 0.08 * rng.random((1, n))
    elif kind == "fabric":
        grey = 0.86 + 0.06 * np.sign(np.sin(32 * np.pi * x) * np.sin(32 * np.pi * y)) + 0.08 * rng.random((n, n))
    elif kind == "stripes":
        grey = np.where(np.sin(8 * np.pi * x) > 0, 1.0, 0.72)
    elif kind == "books":
        return _books(rng, n)
    elif kind == "art":
        return _art(rng, x, y)
    return opaque(np.round(np.repeat(grey[..., None], 3, 2) * 255))


def _books(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw the spines of books, side by side."""
    image = np.full((n, n, 3), 0.12)
    at = 0
    while at < n - 3:
        width, height = int(rng.integers(3, 8)), int(rng.integers(n // 2, n - 4))
        image[n - height :, at : at + width - 1] = rng.uniform(0.15, 0.85, 3)
        at += width
    return opaque(np.round(image * 255))


def _art(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Draw a landscape: sky, sun and three ranges of hills."""
    sky, ground = rng.uniform(0.5, 1.0, 3), rng.uniform(0.1, 0.6, 3)
    image = sky * (1 - 0.4 * y[..., None])
    image[np.hypot(x - rng.uniform(0.2, 0.8), y - 0.25) < 0.1] = [1.0, 0.9, 0.6]
    for hill in range(3):
        edge = 0.45 + 0.17 * hill + 0.08 * np.sin(2 * np.pi * (rng.uniform(1, 2.5) * x + rng.random()))
        image[y > edge] = ground * (1.2 - 0.35 * hill)
    return opaque(np.round(image * 255))
