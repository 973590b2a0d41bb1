"""The light field of a home: lamps with shadows, daylight and one bounce from all surfaces, on a grid of voxels.

Points sampled on the triangles make voxels opaque. For each lamp, one sweep outwards through the grid computes the
share of its light that reaches each voxel. Light reflected by walls and furniture, and daylight through windows, travel
through a coarser grid along a fixed set of directions, with one sweep each (the method of discrete ordinates). The cost
depends on the size of the grid, and hardly on the number of triangles.
"""

import math

import cv2
import numpy as np

from mirage_sim.data.simulators.homes.rendering.light_transport import GROUND, carry, extended, indoors, shine
from mirage_sim.data.simulators.homes.scene import Scene
from mirage_sim.memory.compilation import compiled

VOXEL = 0.08  # metres; larger in homes of more than MAX_VOXELS
MAX_VOXELS = 800_000
MARGIN = 0.3  # metres around all rooms, for walls and what hangs on them; parts that reach farther cast no shadows
COARSE = 2  # voxels along the side of a cell of the coarser grid
FITTING = np.float32(0.35)  # metres around a lamp where surfaces are transparent, because it may hang in a shade
MIN_DISTANCE = np.float32(0.3)  # metres: lower limit of distances to a lamp
MIN_LIGHT = np.float32(0.002)  # share of a lamp's light at 1 m below which it is ignored
LIFT = np.float32(1.25)  # cells from a surface to the point whose light it gets, because cells at the surface are dark
MAX_REFLECTED = np.float32(2.0)  # limit of reflected light: few directions make spots of very bright cells
NOOK = 2  # voxels: radius of the neighbourhood that shades a surface
NOOK_SHADE = np.float32(0.6)  # share of its light that a surface loses if most of the neighbourhood is opaque

_SRGB = np.arange(256) / 255
# linear value of each byte of sRGB
LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)


class LightField:
    """The light that arrives at any point in a home.

    Parts of the scene cast shadows and reflect light, movers do not. The grid covers all rooms; outside of it there is
    daylight only.
    """

    def __init__(self, scene: Scene):
        corners, normals, albedo = _surfaces(scene)
        low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
        cell = max(VOXEL, float(np.prod(high - low) / MAX_VOXELS) ** (1 / 3))
        self._cell = np.float32(cell)
        # walls stand at round coordinates; the fraction of a cell keeps them off the faces of voxels
        self._origin = (low - np.float32(2.37 * cell)).astype(np.float32)
        shape = np.ceil((high - self._origin) / cell + 2.5).astype(np.int64)
        shape += -shape % COARSE
        coarse_shape = shape // COARSE
        self._lamps = np.array([[*lamp.position, *lamp.colour] for lamp in scene.lamps], np.float32).reshape(-1, 6)
        self._daylight = np.array(scene.daylight, np.float32)

        opacity = np.zeros(shape, np.float32)
        points, faces, areas = _sample(corners, self._cell / 2)
        _fill(points, areas, self._origin, self._cell, opacity)
        self._visible = np.zeros((len(self._lamps), *shape), np.float32)
        for visible, lamp in zip(self._visible, self._lamps, strict=True):
            place = np.clip((lamp[:3] - self._origin) / self._cell - 0.5, 0, shape - 1).astype(np.float32)
            shine(opacity, place, np.float32(FITTING / cell), visible)

        self._crowding = _crowding(opacity)
        blocks = opacity.reshape(np.stack([coarse_shape, np.full(3, COARSE)], -1).ravel())
        coarse_opacity = np.ascontiguousarray(blocks.max((1, 3, 5)))
        reflected = np.zeros((*coarse_shape, 3, 2, 4), np.float32)
        points, faces, areas = _sample(corners, self._cell * COARSE / 1.5)
        normals, albedo = normals[faces], albedo[faces]
        _reflect(points, normals, albedo, areas, self._origin, self._cell, self._lamps, self._visible, reflected)
        arriving = extended(carry(coarse_opacity, reflected, self._daylight), indoors(coarse_opacity))
        self._sides = np.ascontiguousarray(np.moveaxis(arriving, (0, 1), (3, 4)))

    def irradiance(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return the linear RGB radiance of white surfaces.

        Args:
            points: float32 ``[N, 3]``, world frame, metres.
            normals: float32 ``[N, 3]``, unit length.

        Returns:
            float32 ``[N, 3]``.
        """
        result = np.empty((len(points), 3), np.float32)
        _look_up(
            points,
            normals,
            self._origin,
            self._cell,
            self._lamps,
            self._visible,
            self._sides,
            self._crowding,
            self._daylight,
            result,
        )
        return result


def _surfaces(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return corners ``[F, 3, 3]``, normals ``[F, 3]`` and linear RGB albedo ``[F, 3]`` of triangles near rooms."""
    bounds = np.array([(part.positions.min(0), part.positions.max(0)) for part in scene.parts])
    in_rooms = bounds[np.array(scene.rooms) >= 0]
    low, high = in_rooms[:, 0].min(0) - MARGIN, in_rooms[:, 1].max(0) + MARGIN
    near = (bounds[:, 0] >= low).all(1) & (bounds[:, 1] <= high).all(1)
    parts = [part for part, each in zip(scene.parts, near, strict=True) if each]
    first = [part.faces[:, 0] for part in parts]
    mean_texture = LINEAR[scene.textures[..., :3]].mean((1, 2))
    return (
        np.concatenate([part.positions[part.faces] for part in parts]),
        np.concatenate([part.normals[at] for part, at in zip(parts, first, strict=True)]),
        np.concatenate([LINEAR[m.colour[at]] * mean_texture[m.layer[at]] for m, at in zip(parts, first, strict=True)]),
    )


@compiled
def _sample(corners, spacing):
    """Sample points on triangles, at most ``spacing`` apart: ``[S, 3]``, their triangles ``[S]`` and areas ``[S]``.

    Each triangle is divided into n^2 equal ones, whose centres are the points.
    """
    pieces = np.empty(len(corners), np.int64)
    for f in range(len(corners)):
        longest = np.float32(0.0)
        for side in range(3):
            other = (side + 1) % 3
            x = corners[f, other, 0] - corners[f, side, 0]
            y = corners[f, other, 1] - corners[f, side, 1]
            z = corners[f, other, 2] - corners[f, side, 2]
            longest = max(longest, x * x + y * y + z * z)
        pieces[f] = int(math.sqrt(longest) / spacing) + 1
    count = (pieces * pieces).sum()
    points, faces, areas = np.empty((count, 3), np.float32), np.empty(count, np.int32), np.empty(count, np.float32)
    at = 0
    for f in range(len(corners)):
        n = pieces[f]
        ax, ay, az = corners[f, 0]
        bx, by, bz = corners[f, 1, 0] - ax, corners[f, 1, 1] - ay, corners[f, 1, 2] - az
        cx, cy, cz = corners[f, 2, 0] - ax, corners[f, 2, 1] - ay, corners[f, 2, 2] - az
        x, y, z = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
        area = math.sqrt(x * x + y * y + z * z) / (2 * n * n)
        for i in range(n):
            for j in range(2 * (n - i) - 1):  # every other small triangle is upside down
                third = np.float32(1 + j % 2) / np.float32(3.0)
                u, v = (i + third) / np.float32(n), (j // 2 + third) / np.float32(n)
                points[at, 0] = ax + u * bx + v * cx
                points[at, 1] = ay + u * by + v * cy
                points[at, 2] = az + u * bz + v * cz
                faces[at], areas[at] = f, area
                at += 1
    return points, faces, areas


@compiled
def _cell_of(points, number, origin, inverse):
    """Return the cell of a point; ``inverse`` is the reciprocal width of a cell."""
    x = (points[number, 0] - origin[0]) * inverse
    y = (points[number, 1] - origin[1]) * inverse
    z = (points[number, 2] - origin[2]) * inverse
    return int(x), int(y), int(z)


@compiled
def _fill(points, areas, origin, cell, opacity):
    """Add to the opacity of voxels the area of the surfaces in them, relative to the area of a face."""
    inverse = np.float32(1.0) / cell
    for s in range(len(points)):
        i, j, k = _cell_of(points, s, origin, inverse)
        opacity[i, j, k] = min(opacity[i, j, k] + areas[s] * inverse * inverse, np.float32(1.0))


def _crowding(opacity: np.ndarray) -> np.ndarray:
    """Return the mean opacity of the voxels within ``NOOK`` of each, with Gaussian weights."""
    width = 2 * NOOK + 1
    planes = np.stack([cv2.GaussianBlur(plane, (width, width), 0, borderType=cv2.BORDER_CONSTANT) for plane in opacity])
    rows = planes.reshape(len(planes), -1)
    return cv2.GaussianBlur(rows, (1, width), 0, borderType=cv2.BORDER_CONSTANT).reshape(opacity.shape)


@compiled
def _clamped(x, length):
    """Return a coordinate relative to the centre of the first cell, clamped to the centres of the grid."""
    return min(max(x - np.float32(0.5), np.float32(0.0)), np.float32(length - 1.001))


@compiled
def _bilinear(grid, i, j, k, v, w):
    one = np.float32(1.0)
    return (one - v) * ((one - w) * grid[i, j, k] + w * grid[i, j, k + 1]) + v * (
        (one - w) * grid[i, j + 1, k] + w * grid[i, j + 1, k + 1]
    )


@compiled
def _trilinear(grid, x, y, z):
    """Interpolate between the centres of eight cells; coordinates in cells from the corner of the grid."""
    x, y, z = _clamped(x, grid.shape[0]), _clamped(y, grid.shape[1]), _clamped(z, grid.shape[2])
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    return (np.float32(1.0) - u) * _bilinear(grid, i, j, k, v, w) + u * _bilinear(grid, i + 1, j, k, v, w)


@compiled
def _add_lamps(point, normal, origin, cell, lamps, visible, smooth, result):
    """Add the light of all lamps at a surface point to ``result``; shadows are interpolated if ``smooth``."""
    px, py, pz = point
    nx, ny, nz = normal
    inverse = np.float32(1.0) / cell
    x, y, z = (px - origin[0]) * inverse, (py - origin[1]) * inverse, (pz - origin[2]) * inverse
    x, y, z = x + LIFT * nx, y + LIFT * ny, z + LIFT * nz
    for k in range(len(lamps)):
        dx, dy, dz = lamps[k, 0] - px, lamps[k, 1] - py, lamps[k, 2] - pz
        square = dx * dx + dy * dy + dz * dz
        facing = dx * nx + dy * ny + dz * nz
        if square < FITTING * FITTING:
            facing = abs(facing)  # a shade shines on both sides
        if facing <= 0:
            continue
        square = max(square, MIN_DISTANCE * MIN_DISTANCE)
        light = facing / (square * math.sqrt(square))
        if light > MIN_LIGHT:
            light *= _trilinear(visible[k], x, y, z) if smooth else visible[k, int(x), int(y), int(z)]
            result[0] += light * lamps[k, 3]
            result[1] += light * lamps[k, 4]
            result[2] += light * lamps[k, 5]


@compiled
def _reflect(points, normals, albedo, areas, origin, cell, lamps, visible, reflected):
    """Add the light that surfaces reflect to the sides of their coarse cells.

    ``reflected`` is ``[X, Y, Z, axis, side, 4]``, where side 0 faces larger coordinates: linear RGB, weighted by the
    area projected to that side, and this area.
    """
    inverse = np.float32(1.0) / (cell * COARSE)
    light = np.zeros(3, np.float32)
    for s in range(len(points)):
        light[:] = 0
        _add_lamps(points[s], normals[s], origin, cell, lamps, visible, False, light)
        i, j, k = _cell_of(points, s, origin, inverse)
        for axis in range(3):
            side = 0 if normals[s, axis] > 0 else 1
            area = areas[s] * abs(normals[s, axis])
            for colour in range(3):
                reflected[i, j, k, axis, side, colour] += area * min(light[colour], MAX_REFLECTED) * albedo[s, colour]
            reflected[i, j, k, axis, side, 3] += area


@compiled
def _add_indirect(sides, x, y, z, nx, ny, nz, result):
    """Add the indirect light at a surface point to ``result``, interpolated between the centres of eight cells."""
    one = np.float32(1.0)
    x, y, z = _clamped(x, sides.shape[0]), _clamped(y, sides.shape[1]), _clamped(z, sides.shape[2])
    i, j, k = int(x), int(y), int(z)
    sx, sy, sz = (0 if nx > 0 else 1), (2 if ny > 0 else 3), (4 if nz > 0 else 5)
    for corner in range(8):
        a, b, c = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (x - i if a else i + one - x) * (y - j if b else j + one - y) * (z - k if c else k + one - z)
        cell = sides[i + a, j + b, k + c]
        for colour in range(3):
            light = nx * nx * cell[sx, colour] + ny * ny * cell[sy, colour] + nz * nz * cell[sz, colour]
            result[colour] += np.float32(weight) * light


@compiled
def _look_up(points, normals, origin, cell, lamps, visible, sides, crowding, daylight, result):
    """Compute the light at surface points: direct and indirect light, reduced in nooks."""
    inverse = np.float32(1.0) / (cell * COARSE)
    above = np.float32(NOOK + 1) - COARSE * LIFT
    for p in range(len(points)):
        nx, ny, nz = normals[p]
        x = (points[p, 0] - origin[0]) * inverse + LIFT * nx
        y = (points[p, 1] - origin[1]) * inverse + LIFT * ny
        z = (points[p, 2] - origin[2]) * inverse + LIFT * nz
        if min(x, y, z) < 0 or x > sides.shape[0] or y > sides.shape[1] or z > sides.shape[2]:
            for k in range(3):
                result[p, k] = daylight[k] * max(ny, np.float32(GROUND))
            continue
        result[p] = 0
        _add_lamps(points[p], normals[p], origin, cell, lamps, visible, True, result[p])
        _add_indirect(sides, x, y, z, nx, ny, nz, result[p])
        x, y, z = x * COARSE + above * nx, y * COARSE + above * ny, z * COARSE + above * nz
        crowded = min(_trilinear(crowding, x, y, z) * np.float32(NOOK + 0.5), np.float32(1.0))
        shade = np.float32(1.0) - NOOK_SHADE * crowded
        for k in range(3):
            result[p, k] *= shade
