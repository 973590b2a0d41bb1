"""Transport of light through a grid of cells: from a lamp outwards, and along a set of directions."""

import math

import numpy as np

from mirage_sim.memory.compilation import compiled

DIRECTIONS = 64
BOUNCES = np.float32(1.6)  # light of all bounces, relative to the first
GROUND = 0.2  # radiance of the ground outside, relative to the sky


@compiled
def shine(opacity, lamp, fitting, visible):
    """Compute the share of a lamp's light that reaches each voxel, from the voxels nearer to the lamp."""
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
                            px, py, pz = x - sx if x != cx else x, y - sy if y != cy else y, z - sz if z != cz else z
                            if longest == dx:
                                a, b, c, d = left[px, y, z], left[px, py, z], left[px, y, pz], left[px, py, pz]
                                inner, outer = ty, tz
                            elif longest == dy:
                                a, b, c, d = left[x, py, z], left[px, py, z], left[x, py, pz], left[px, py, pz]
                                inner, outer = tx, tz
                            else:
                                a, b, c, d = left[x, y, pz], left[x, py, pz], left[px, y, pz], left[px, py, pz]
                                inner, outer = ty, tx
                            light = (one - outer) * ((one - inner) * a + inner * b)
                            light += outer * ((one - inner) * c + inner * d)
                            visible[x, y, z] = light
                            shade = opacity[x, y, z] if dx * dx + dy * dy + dz * dz > fitting * fitting else zero
                            left[x, y, z] = light * (one - shade)


def _spread(count: int) -> np.ndarray:
    """Return unit vectors ``[count, 3]`` on a spiral over the sphere, in pairs of opposites."""
    index = np.arange(count // 2) + 0.5
    height, turn = 1 - index / (count // 2), index * math.pi * (3 - math.sqrt(5))
    flat = np.sqrt(1 - height**2)
    half = np.stack([flat * np.cos(turn), height, flat * np.sin(turn)], -1)
    return np.concatenate([half, -half])


def indoors(opacity: np.ndarray) -> np.ndarray:
    """Return which cells are free, with solid cells above and below them: bool ``[X, Y, Z]``."""
    solid = opacity > 0.5
    below, above = np.logical_or.accumulate(solid, 1), np.logical_or.accumulate(solid[:, ::-1], 1)[:, ::-1]
    return below & above & ~solid


def extended(faces: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Replace the light ``[6, 3, X, Y, Z]`` of invalid and dark cells by the mean of their valid neighbours."""
    valid = valid & (faces.sum((0, 1)) > 1e-4)
    total, count = np.zeros_like(faces), np.zeros(valid.shape, np.float32)
    kept = faces * valid
    for axis in range(3):
        for shift in (1, -1):
            total += np.roll(kept, shift, 2 + axis)
            count += np.roll(valid, shift, axis)
    return np.where(valid | (count == 0), faces, total / np.maximum(count, 1))


def carry(opacity: np.ndarray, reflected: np.ndarray, daylight: np.ndarray) -> np.ndarray:
    """Compute the light that arrives on the six sides of each cell.

    Args:
        opacity: ``[X, Y, Z]``.
        reflected: light reflected by the sides of cells, and their area: ``[X, Y, Z, axis, side, 4]``.
        daylight: linear RGB of the sky.

    Returns:
        ``[6, 3, X, Y, Z]``, the sides in the order +x, -x, +y, -y, +z, -z.
    """
    directions = _spread(DIRECTIONS)
    faces = np.zeros((3, 2, 3, *opacity.shape), np.float32)
    share = np.maximum(np.stack([directions, -directions], -1), 0)  # [D, axis, side]
    share /= share.sum(0)  # preserves light that is equal from all directions
    reflected = np.ascontiguousarray(np.moveaxis(reflected, (3, 4, 5), (0, 1, 2)))
    sides = (directions < 0).astype(np.int64)  # [D, axis], sides that the light arrives on
    emitted = {}
    for octant in np.unique(sides, axis=0):
        total = sum(reflected[axis, 1 - side] for axis, side in enumerate(octant))
        emitted[tuple(octant)] = total[:3] / np.maximum(total[3], 1e-9) * BOUNCES
    for axis in range(3):
        order = (axis, *(other for other in range(3) if other != axis))
        turned_opacity = np.ascontiguousarray(opacity.transpose(order))
        turned_emitted = {
            octant: np.ascontiguousarray(light.transpose(0, *(1 + other for other in order)))
            for octant, light in emitted.items()
        }
        turned = np.zeros((3, 2, 3, *turned_opacity.shape), np.float32)
        for number in np.flatnonzero(np.abs(directions).argmax(1) == axis):
            direction, weights = directions[number], share[number].sum(1).astype(np.float32)
            step = (direction / np.abs(direction[axis]))[list(order)].astype(np.float32)
            sky = daylight if direction[1] > 0 else daylight * np.float32(GROUND)
            _sweep(turned_opacity, turned_emitted[tuple(sides[number])], sky, step, sides[number], weights, turned)
        back = np.argsort(order)
        faces += turned.transpose(0, 1, 2, *(3 + other for other in back))
    return faces.reshape(6, 3, *opacity.shape)


@compiled
def _sweep(opacity, emitted, daylight, step, sides, weights, faces):
    """Carry light through the grid against ``step``, whose first entry is 1 or -1; add it to ``faces``."""
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
