"""Light in a home: lamps with shadows, daylight, and one bounce from all surfaces, on a grid of small cubes (voxels).

Triangles are sampled into voxels, which become more or less opaque. For each lamp one sweep outwards through the grid
finds which share of its light arrives where. Light that walls and furniture return, and daylight through windows, is
carried through a coarser grid along a fixed set of directions, one sweep each (the method of discrete ordinates). The
cost is therefore that of the grid, not that of rays per surface point, and the same for any number of triangles.
"""

import math

import numpy as np

from mirage_sim.data.simulators.homes.scene import Scene
from mirage_sim.memory.kernels import compiled

VOXEL = 0.08  # metres; larger in homes of more than MAX_VOXELS
MAX_VOXELS = 800_000
COARSE = 2  # voxels along the side of a cell of the coarser grid
FITTING = 0.35  # metres around a lamp where nothing casts shadows: it may hang in a shade
NEAREST = 0.3  # metres; no surface is lit as if it were nearer to a lamp
LIFT = 1.25  # cells above its surface where a point looks up its light
BOUNCES = 1.6  # what all bounces return, over what the first does
DIRECTIONS = 64
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

    Its parts cast shadows and return light, its movers do not.
    """

    def __init__(self, scene: Scene):
        corners = np.concatenate([part.positions[part.faces] for part in scene.parts])
        mean_texture = LINEAR[scene.textures[..., :3]].mean((1, 2))
        albedo = np.concatenate(
            [(LINEAR[part.colour] * mean_texture[part.layer])[part.faces[:, 0]] for part in scene.parts]
        )
        low, high = corners.min((0, 1)), corners.max((0, 1))
        cell = max(VOXEL, float(np.prod(high - low) / MAX_VOXELS) ** (1 / 3))
        # a margin around all; its share of a cell keeps walls, which stand at round numbers, off the faces of voxels
        self._origin = (low - np.float32(2.37 * cell)).astype(np.float32)
        shape = np.ceil((high - self._origin) / cell + 2.5).astype(np.int64)
        shape += -shape % COARSE
        self._cell = np.float32(cell)
        self._lamps = np.array([[*lamp.position, *lamp.colour] for lamp in scene.lamps], np.float32).reshape(-1, 6)
        daylight = np.array(scene.daylight, np.float32)

        opacity = np.zeros(shape, np.float32)
        _voxelise(corners, self._origin, self._cell, opacity)
        lamp_voxels = (self._lamps[:, :3] - self._origin) / self._cell - 0.5
        self._visible = np.zeros((len(self._lamps), *shape), np.float32)
        for visible, lamp in zip(self._visible, lamp_voxels, strict=True):
            _shine(opacity, lamp, np.float32(FITTING / cell), visible)

        coarse_shape = tuple(shape // COARSE)
        coarse_opacity = opacity.reshape(coarse_shape[0], COARSE, coarse_shape[1], COARSE, coarse_shape[2], COARSE)
        coarse_opacity = np.ascontiguousarray(np.minimum(coarse_opacity.max((1, 3, 5)), 1))
        returned = np.zeros((4, *coarse_shape), np.float32)
        _reflect(
            corners, albedo, self._origin, self._cell, self._lamps, self._visible, returned,
            np.float32(COARSE), np.float32(LIFT),
        )  # fmt: skip
        emitted = returned[:3] / np.maximum(returned[3], 1e-6) * np.float32(BOUNCES)
        indoors = _indoors(coarse_opacity)
        self._faces = _extended(_carry(coarse_opacity, emitted, daylight), indoors)

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
            self._faces,
            np.float32(COARSE),
            np.float32(LIFT),
            result,
        )
        return result


@compiled
def _voxelise(corners, origin, cell, opacity):
    """Add the area of all triangles, in faces of a voxel, to the voxels they pass."""
    inverse = np.float32(1.0) / cell
    for f in range(len(corners)):
        ax, ay, az = corners[f, 0]
        bx, by, bz = corners[f, 1] - corners[f, 0]
        cx, cy, cz = corners[f, 2] - corners[f, 0]
        nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
        area = math.sqrt(nx * nx + ny * ny + nz * nz) / 2
        longest = max(bx * bx + by * by + bz * bz, cx * cx + cy * cy + cz * cz)
        longest = math.sqrt(max(longest, (bx - cx) ** 2 + (by - cy) ** 2 + (bz - cz) ** 2))
        steps = int(longest * inverse * 2) + 1
        share = np.float32(2 * area / (steps * steps) * inverse * inverse)
        for i in range(steps):
            # centres of the small triangles that cuts of all sides make: every other one stands on its head
            for j in range(2 * (steps - i) - 1):
                u = (i + (1.0 if j % 2 == 0 else 2.0) / 3) / steps
                v = (j // 2 + (1.0 if j % 2 == 0 else 2.0) / 3) / steps
                x = int((ax + u * bx + v * cx - origin[0]) * inverse)
                y = int((ay + u * by + v * cy - origin[1]) * inverse)
                z = int((az + u * bz + v * cz - origin[2]) * inverse)
                opacity[x, y, z] = min(opacity[x, y, z] + share, np.float32(1.0))


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
def _direct(px, py, pz, nx, ny, nz, origin, cell, lamps, visible, lift, smooth, result):
    """Add the light of all lamps on a surface point to ``result``, linear RGB; shadows are smooth, or as in its voxel."""
    inverse = np.float32(1.0) / cell
    gx = (px - origin[0]) * inverse + lift * nx
    gy = (py - origin[1]) * inverse + lift * ny
    gz = (pz - origin[2]) * inverse + lift * nz
    for k in range(len(lamps)):
        dx, dy, dz = lamps[k, 0] - px, lamps[k, 1] - py, lamps[k, 2] - pz
        facing = dx * nx + dy * ny + dz * nz
        if facing <= 0:
            continue
        square = dx * dx + dy * dy + dz * dz
        square = max(square, np.float32(NEAREST * NEAREST))
        light = facing / (square * math.sqrt(square))
        if light < 0.002:
            continue
        light *= _trilinear(visible[k], gx, gy, gz) if smooth else visible[k, int(gx), int(gy), int(gz)]
        result[0] += light * lamps[k, 3]
        result[1] += light * lamps[k, 4]
        result[2] += light * lamps[k, 5]


@compiled
def _reflect(corners, albedo, origin, cell, lamps, visible, returned, coarse, lift):
    """Add the light that triangles return to their coarse cells, weighted by area, and the area: ``[4, X, Y, Z]``."""
    inverse = np.float32(1.0) / (cell * coarse)
    light = np.zeros(3, np.float32)
    for f in range(len(corners)):
        ax, ay, az = corners[f, 0]
        bx, by, bz = corners[f, 1] - corners[f, 0]
        cx, cy, cz = corners[f, 2] - corners[f, 0]
        nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
        double = math.sqrt(nx * nx + ny * ny + nz * nz)
        if double < 1e-12:
            continue
        nx, ny, nz = np.float32(nx / double), np.float32(ny / double), np.float32(nz / double)
        longest = max(bx * bx + by * by + bz * bz, cx * cx + cy * cy + cz * cz)
        longest = math.sqrt(max(longest, (bx - cx) ** 2 + (by - cy) ** 2 + (bz - cz) ** 2))
        steps = int(longest * inverse * 1.5) + 1
        weight = np.float32(double / (steps * steps))
        for i in range(steps):
            for j in range(2 * (steps - i) - 1):
                u = np.float32((i + (1.0 if j % 2 == 0 else 2.0) / 3) / steps)
                v = np.float32((j // 2 + (1.0 if j % 2 == 0 else 2.0) / 3) / steps)
                px, py, pz = ax + u * bx + v * cx, ay + u * by + v * cy, az + u * bz + v * cz
                light[:] = 0
                _direct(px, py, pz, nx, ny, nz, origin, cell, lamps, visible, lift, False, light)
                x, y, z = (
                    int((px - origin[0]) * inverse),
                    int((py - origin[1]) * inverse),
                    int((pz - origin[2]) * inverse),
                )
                for k in range(3):
                    returned[k, x, y, z] += weight * light[k] * albedo[f, k]
                returned[3, x, y, z] += weight


def _indoors(opacity: np.ndarray) -> np.ndarray:
    """Cells with something above and something below them, bool ``[X, Y, Z]``."""
    solid = opacity > 0.5
    below, above = np.logical_or.accumulate(solid, 1), np.logical_or.accumulate(solid[:, ::-1], 1)[:, ::-1]
    return below & above


def _extended(faces: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Light ``[6, 3, X, Y, Z]`` where cells that are not valid, or dark, have the mean of their neighbours."""
    valid = valid & (faces.sum((0, 1)) > 1e-4)
    total, count = np.zeros_like(faces), np.zeros(valid.shape, np.float32)
    kept = faces * valid
    for axis in range(3):
        for shift in (1, -1):
            total += np.roll(kept, shift, 2 + axis)
            count += np.roll(valid, shift, axis)
    return np.where(valid, faces, total / np.maximum(count, 1))


def _carry(opacity: np.ndarray, emitted: np.ndarray, daylight: np.ndarray) -> np.ndarray:
    """Irradiance over pi on the six sides of each cell, ``[6, 3, X, Y, Z]`` in order +x, -x, +y, -y, +z, -z."""
    directions = spread_directions(DIRECTIONS)
    faces = np.zeros((3, 2, 3, *opacity.shape), np.float32)
    share = np.maximum(np.stack([directions, -directions], -1), 0)  # [D, axis, side]
    share /= share.sum(0)  # light that is the same from everywhere comes out as it is
    for axis in range(3):
        order = (axis, *(other for other in range(3) if other != axis))
        turned_opacity = np.ascontiguousarray(opacity.transpose(order))
        turned_emitted = np.ascontiguousarray(emitted.transpose(0, *(1 + each for each in order)))
        turned = np.zeros((3, 2, 3, *turned_opacity.shape), np.float32)
        for direction, weights in zip(directions, share, strict=True):
            if np.abs(direction).argmax() == axis:
                step = (direction / np.abs(direction[axis]))[list(order)].astype(np.float32)
                sides = (weights[:, 1] > 0).astype(np.int64)
                sky = daylight if direction[1] > 0 else daylight * np.float32(GROUND)
                _sweep(turned_opacity, turned_emitted, sky, step, sides, weights.sum(1).astype(np.float32), turned)
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
def _look_up(points, normals, origin, cell, lamps, visible, faces, coarse, lift, result):
    """Light at surface points: of the lamps, and what comes from everywhere else."""
    inverse = np.float32(1.0) / (cell * coarse)
    for p in range(len(points)):
        px, py, pz = points[p]
        nx, ny, nz = normals[p]
        result[p] = 0
        _direct(px, py, pz, nx, ny, nz, origin, cell, lamps, visible, lift, True, result[p])
        gx = (px - origin[0]) * inverse + lift / 2 * nx
        gy = (py - origin[1]) * inverse + lift / 2 * ny
        gz = (pz - origin[2]) * inverse + lift / 2 * nz
        sx, sy, sz = (0 if nx > 0 else 1), (2 if ny > 0 else 3), (4 if nz > 0 else 5)
        for k in range(3):
            result[p, k] += nx * nx * _trilinear(faces[sx, k], gx, gy, gz)
            result[p, k] += ny * ny * _trilinear(faces[sy, k], gx, gy, gz)
            result[p, k] += nz * nz * _trilinear(faces[sz, k], gx, gy, gz)
