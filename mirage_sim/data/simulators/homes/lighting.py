"""Light in a home: lamps with shadows, daylight, and one bounce from all surfaces, on a grid of small cubes (voxels).

Triangles are sampled into voxels, which become more or less opaque. For each lamp one sweep outwards through the grid
finds which share of its light arrives where. Light that walls and furniture return, and daylight through windows, is
carried through a coarser grid along a fixed set of directions, one sweep each (the method of discrete ordinates). The
cost is therefore that of the grid, not that of rays per surface point, and the same for any number of triangles.
"""

import math

import cv2
import numpy as np

from mirage_sim.data.simulators.homes.scene import Scene
from mirage_sim.memory.kernels import compiled

VOXEL = 0.08  # metres; larger in homes of more than MAX_VOXELS
MAX_VOXELS = 800_000
MARGIN = 0.3  # metres around all rooms: walls and what hangs on them; what reaches farther casts no shadows
COARSE = 2  # voxels along the side of a cell of the coarser grid
FITTING = np.float32(0.35)  # metres around a lamp where surfaces let light through: it may hang in a shade
NEAREST = np.float32(0.3)  # metres; no surface is lit as if it were nearer to a lamp
DARK = np.float32(0.002)  # what is less of a lamp's light at 1 m counts as none
LIFT = np.float32(1.25)  # cells above its surface where a point looks up its light: the surface's own cells are dark
BRIGHTEST = np.float32(2.0)  # light that surfaces return at most: of single bright cells, directions would leave spots
BOUNCES = np.float32(1.6)  # light of all bounces over that of the first
DIRECTIONS = 64
NOOK = 2  # voxels around the middle of what stands near a surface
NOOK_SHADE = np.float32(0.6)  # of light that a surface loses where most is opaque above it
GROUND = 0.2  # radiance of the ground outside, over the sky's

_SRGB = np.arange(256) / 255
# linear light of each byte of sRGB
LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)


def spread_directions(count: int) -> np.ndarray:
    """Unit vectors ``[count, 3]``, spread evenly over the sphere along a spiral, in pairs of opposites."""
    index = np.arange(count // 2) + 0.5
    height, turn = 1 - index / (count // 2), index * math.pi * (3 - math.sqrt(5))
    flat = np.sqrt(1 - height**2)
    half = np.stack([flat * np.cos(turn), height, flat * np.sin(turn)], -1)
    return np.concatenate([half, -half])


class LightField:
    """The light that arrives anywhere in a home.

    Its parts cast shadows and return light, its movers do not. The grid reaches as far as its rooms do; outside
    there is daylight.
    """

    def __init__(self, scene: Scene):
        corners, normals, albedo = _surfaces(scene)
        low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
        cell = max(VOXEL, float(np.prod(high - low) / MAX_VOXELS) ** (1 / 3))
        self._cell = np.float32(cell)
        # a margin around all; its share of a cell keeps walls, which stand at round numbers, off the faces of voxels
        self._origin = (low - np.float32(2.37 * cell)).astype(np.float32)
        shape = np.ceil((high - self._origin) / cell + 2.5).astype(np.int64)
        shape += -shape % COARSE
        coarse_shape = shape // COARSE
        self._lamps = np.array([[*lamp.position, *lamp.colour] for lamp in scene.lamps], np.float32).reshape(-1, 6)
        self._daylight = np.array(scene.daylight, np.float32)

        opacity = np.zeros(shape, np.float32)
        points, faces, areas = _sample(corners, self._cell / 2)
        _fill(points, faces, areas, self._origin, self._cell, opacity)
        self._visible = np.zeros((len(self._lamps), *shape), np.float32)
        for visible, lamp in zip(self._visible, self._lamps, strict=True):
            place = np.clip((lamp[:3] - self._origin) / self._cell - 0.5, 0, shape - 1).astype(np.float32)
            _shine(opacity, place, np.float32(FITTING / cell), visible)

        self._crowding = _crowding(opacity)
        blocks = opacity.reshape(np.stack([coarse_shape, np.full(3, COARSE)], -1).ravel())
        coarse_opacity = np.ascontiguousarray(blocks.max((1, 3, 5)))
        returned = np.zeros((*coarse_shape, 3, 2, 4), np.float32)
        points, faces, areas = _sample(corners, self._cell * COARSE / 1.5)
        _reflect(points, faces, areas, normals, albedo, self._origin, self._cell, self._lamps, self._visible, returned)
        arriving = _extended(_carry(coarse_opacity, returned, self._daylight), _indoors(coarse_opacity))
        self._sides = np.ascontiguousarray(np.moveaxis(arriving, (0, 1), (3, 4)))

    def irradiance(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Linear RGB that white surfaces return: float32 ``[N, 3]``, as are their points and unit normals."""
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
    """Of triangles in and between rooms corners ``[F, 3, 3]``, normals ``[F, 3]`` and albedo ``[F, 3]``, linear RGB."""
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
    """Points on triangles, no farther apart than ``spacing``: ``[S, 3]``; their triangles ``[S]``; their areas ``[S]``.

    A triangle whose sides are cut into n pieces falls into n^2 small ones; the points are their centres.
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
            for j in range(2 * (n - i) - 1):  # every other small triangle stands on its head
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
    """The cell of a point; ``inverse`` is of the width of cells."""
    x = (points[number, 0] - origin[0]) * inverse
    y = (points[number, 1] - origin[1]) * inverse
    z = (points[number, 2] - origin[2]) * inverse
    return int(x), int(y), int(z)


@compiled
def _fill(points, faces, areas, origin, cell, opacity):
    """Make voxels opaque by as many of their faces as the area within them could cover."""
    inverse = np.float32(1.0) / cell
    for s in range(len(points)):
        i, j, k = _cell_of(points, s, origin, inverse)
        opacity[i, j, k] = min(opacity[i, j, k] + areas[s] * inverse * inverse, np.float32(1.0))


@compiled
def _shine(opacity, lamp, fitting, visible):
    """The share of a lamp's light that arrives in each voxel, from what left the voxels towards the lamp."""
    nx, ny, nz = opacity.shape
    cx, cy, cz = int(lamp[0] + 0.5), int(lamp[1] + 0.5), int(lamp[2] + 0.5)
    one, zero = np.float32(1.0), np.float32(0.0)
    left = np.zeros(opacity.shape, np.float32)
    for sx in (-1, 1):
        for sy in (-1, 1):
            for sz in (-1, 1):
                for x in range(cx, nx if sx > 0 else -1, sx):
                    dx = abs(x - lamp[0])
                    for y in range(cy, ny if sy > 0 else -1, sy):
                        dy = abs(y - lamp[1])
                        for z in range(cz, nz if sz > 0 else -1, sz):
                            dz = abs(z - lamp[2])
                            longest = max(dx, dy, dz)
                            if longest < 1.5:
                                visible[x, y, z] = one
                                left[x, y, z] = one
                                continue
                            tx, ty, tz = dx / longest, dy / longest, dz / longest
                            # one step along the longest axis; between neighbours along the other two
                            if longest == dx:
                                p = x - sx
                                light = (one - tz) * (
                                    (one - ty) * left[p, y, z] + ty * left[p, y - sy if y != cy else y, z]
                                )
                                q = z - sz if z != cz else z
                                light += tz * ((one - ty) * left[p, y, q] + ty * left[p, y - sy if y != cy else y, q])
                            elif longest == dy:
                                p = y - sy
                                light = (one - tz) * (
                                    (one - tx) * left[x, p, z] + tx * left[x - sx if x != cx else x, p, z]
                                )
                                q = z - sz if z != cz else z
                                light += tz * ((one - tx) * left[x, p, q] + tx * left[x - sx if x != cx else x, p, q])
                            else:
                                p = z - sz
                                light = (one - tx) * (
                                    (one - ty) * left[x, y, p] + ty * left[x, y - sy if y != cy else y, p]
                                )
                                q = x - sx if x != cx else x
                                light += tx * ((one - ty) * left[q, y, p] + ty * left[q, y - sy if y != cy else y, p])
                            visible[x, y, z] = light
                            shade = opacity[x, y, z] if dx * dx + dy * dy + dz * dz > fitting * fitting else zero
                            left[x, y, z] = light * (one - shade)


@compiled
def _trilinear(grid, x, y, z):
    """Value between the centres of eight cells; coordinates in cells from the corner of the grid, kept inside."""
    x = min(max(x - np.float32(0.5), np.float32(0.0)), np.float32(grid.shape[0] - 1.001))
    y = min(max(y - np.float32(0.5), np.float32(0.0)), np.float32(grid.shape[1] - 1.001))
    z = min(max(z - np.float32(0.5), np.float32(0.0)), np.float32(grid.shape[2] - 1.001))
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    one = np.float32(1.0)
    low = (one - v) * ((one - w) * grid[i, j, k] + w * grid[i, j, k + 1]) + v * (
        (one - w) * grid[i, j + 1, k] + w * grid[i, j + 1, k + 1]
    )
    i += 1
    high = (one - v) * ((one - w) * grid[i, j, k] + w * grid[i, j, k + 1]) + v * (
        (one - w) * grid[i, j + 1, k] + w * grid[i, j + 1, k + 1]
    )
    return (one - u) * low + u * high


@compiled
def _add_lamps(point, normal, origin, cell, lamps, visible, smooth, result):
    """Add the light of all lamps on a surface point to ``result``; shadows are smooth, or as in its voxel."""
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
            facing = abs(facing)  # a shade shines
        if facing <= 0:
            continue
        square = max(square, NEAREST * NEAREST)
        light = facing / (square * math.sqrt(square))
        if light > DARK:
            light *= _trilinear(visible[k], x, y, z) if smooth else visible[k, int(x), int(y), int(z)]
            result[0] += light * lamps[k, 3]
            result[1] += light * lamps[k, 4]
            result[2] += light * lamps[k, 5]


@compiled
def _reflect(points, faces, areas, normals, albedo, origin, cell, lamps, visible, returned):
    """Add the light that surfaces return to the sides of their coarse cells.

    ``returned`` is ``[X, Y, Z, axis, side, 4]``, side 0 towards larger coordinates: linear RGB, weighted by the area
    that shows on that side, and this area.
    """
    inverse = np.float32(1.0) / (cell * COARSE)
    light = np.zeros(3, np.float32)
    for s in range(len(points)):
        f = faces[s]
        light[:] = 0
        _add_lamps(points[s], normals[f], origin, cell, lamps, visible, False, light)
        i, j, k = _cell_of(points, s, origin, inverse)
        for axis in range(3):
            side = 0 if normals[f, axis] > 0 else 1
            area = areas[s] * abs(normals[f, axis])
            for colour in range(3):
                returned[i, j, k, axis, side, colour] += area * min(light[colour], BRIGHTEST) * albedo[f, colour]
            returned[i, j, k, axis, side, 3] += area


def _crowding(opacity: np.ndarray) -> np.ndarray:
    """Mean opacity of the voxels within ``NOOK`` of each, nearer ones counting more."""
    width = 2 * NOOK + 1
    planes = np.stack([cv2.GaussianBlur(plane, (width, width), 0, borderType=cv2.BORDER_CONSTANT) for plane in opacity])
    rows = planes.reshape(len(planes), -1)
    return cv2.GaussianBlur(rows, (1, width), 0, borderType=cv2.BORDER_CONSTANT).reshape(opacity.shape)


def _indoors(opacity: np.ndarray) -> np.ndarray:
    """Cells of air with something above and something below them, bool ``[X, Y, Z]``."""
    solid = opacity > 0.5
    below, above = np.logical_or.accumulate(solid, 1), np.logical_or.accumulate(solid[:, ::-1], 1)[:, ::-1]
    return below & above & ~solid


def _extended(faces: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Light ``[6, 3, X, Y, Z]`` where cells that are not valid, or dark, have the mean of their valid neighbours."""
    valid = valid & (faces.sum((0, 1)) > 1e-4)
    total, count = np.zeros_like(faces), np.zeros(valid.shape, np.float32)
    kept = faces * valid
    for axis in range(3):
        for shift in (1, -1):
            total += np.roll(kept, shift, 2 + axis)
            count += np.roll(valid, shift, axis)
    return np.where(valid | (count == 0), faces, total / np.maximum(count, 1))


def _carry(opacity: np.ndarray, returned: np.ndarray, daylight: np.ndarray) -> np.ndarray:
    """Light that arrives on the six sides of each cell, ``[6, 3, X, Y, Z]`` in order +x, -x, +y, -y, +z, -z.

    Args:
        opacity: ``[X, Y, Z]``.
        returned: what :func:`_reflect` makes.
        daylight: linear RGB of the sky.
    """
    directions = spread_directions(DIRECTIONS)
    faces = np.zeros((3, 2, 3, *opacity.shape), np.float32)
    share = np.maximum(np.stack([directions, -directions], -1), 0)  # [D, axis, side]
    share /= share.sum(0)  # light that is the same from everywhere comes out as it is
    returned = np.ascontiguousarray(np.moveaxis(returned, (3, 4, 5), (0, 1, 2)))
    sides = (directions < 0).astype(np.int64)  # [D, axis], that the light arrives on
    emitted = {
        tuple(seen): sum(returned[axis, 1 - side] for axis, side in enumerate(seen))
        for seen in np.unique(sides, axis=0)
    }
    emitted = {seen: each[:3] / np.maximum(each[3], 1e-9) * BOUNCES for seen, each in emitted.items()}
    for axis in range(3):
        order = (axis, *(other for other in range(3) if other != axis))
        turned_opacity = np.ascontiguousarray(opacity.transpose(order))
        turned_emitted = {
            seen: np.ascontiguousarray(each.transpose(0, *(1 + other for other in order)))
            for seen, each in emitted.items()
        }
        turned = np.zeros((3, 2, 3, *turned_opacity.shape), np.float32)
        for number in np.flatnonzero(np.abs(directions).argmax(1) == axis):
            direction, weights = directions[number], share[number].sum(1).astype(np.float32)
            step = (direction / np.abs(direction[axis]))[list(order)].astype(np.float32)
            sky = daylight if direction[1] > 0 else daylight * np.float32(GROUND)
            _sweep(turned_opacity, turned_emitted[tuple(sides[number])], sky, step, sides[number], weights, turned)
        back = np.argsort(order)
        faces += turned.transpose(0, 1, 2, *(3 + each for each in back))
    return faces.reshape(6, 3, *opacity.shape)


@compiled
def _sweep(opacity, emitted, daylight, step, sides, weights, faces):
    """Carry light against ``step``, whose first entry is 1 or -1, through the grid; add what arrives to ``faces``."""
    n0, n1, n2 = opacity.shape
    one = np.float32(1.0)
    forward = step[0] > 0
    t1, t2 = abs(step[1]), abs(step[2])
    s1, s2 = (1 if step[1] > 0 else -1), (1 if step[2] > 0 else -1)
    w00, w01, w10, w11 = (one - t1) * (one - t2), (one - t1) * t2, t1 * (one - t2), t1 * t2
    before = np.empty((n1 + 2, n2 + 2), np.float32)
    after = np.empty((n1 + 2, n2 + 2), np.float32)
    for colour in range(3):
        before[:] = daylight[colour]
        after[:] = daylight[colour]
        f0, f1, f2 = faces[0, sides[0], colour], faces[1, sides[1], colour], faces[2, sides[2], colour]
        for n in range(n0):
            i = n0 - 1 - n if forward else n
            for j in range(n1):
                near, far = before[j + 1], before[j + 1 + s1]
                out, shade, own = after[j + 1], opacity[i, j], emitted[colour, i, j]
                g0, g1, g2 = f0[i, j], f1[i, j], f2[i, j]
                for k in range(n2):
                    light = w00 * near[k + 1] + w01 * near[k + 1 + s2] + w10 * far[k + 1] + w11 * far[k + 1 + s2]
                    g0[k] += weights[0] * light
                    g1[k] += weights[1] * light
                    g2[k] += weights[2] * light
                    out[k + 1] = light + shade[k] * (own[k] - light)
            before, after = after, before


@compiled
def _add_arriving(sides, x, y, z, nx, ny, nz, result):
    """Add what arrives from everywhere on a surface to ``result``; between the centres of eight cells."""
    one, half = np.float32(1.0), np.float32(0.5)
    x = min(max(x - half, np.float32(0.0)), np.float32(sides.shape[0] - 1.001))
    y = min(max(y - half, np.float32(0.0)), np.float32(sides.shape[1] - 1.001))
    z = min(max(z - half, np.float32(0.0)), np.float32(sides.shape[2] - 1.001))
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
    """Light at surface points: of the lamps, and what comes from everywhere else; less of it in nooks."""
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
        _add_arriving(sides, x, y, z, nx, ny, nz, result[p])
        x, y, z = x * COARSE + above * nx, y * COARSE + above * ny, z * COARSE + above * nz
        crowded = min(_trilinear(crowding, x, y, z) * np.float32(NOOK + 0.5), np.float32(1.0))
        shade = np.float32(1.0) - NOOK_SHADE * crowded
        for k in range(3):
            result[p, k] *= shade
