"""Loops over the blocks of a map, compiled for the CPU with numba.

They perform the float32 operations of :func:`mirage_sim.geometry.splat` and :func:`~mirage_sim.geometry.coverage` in
the same order, so that both give the same bits. Blocks are processed nearest first. A block is skipped if all cells
that it may cover already show surfaces too near for any of its points to be visible.
"""

import numpy as np
from numba import carray

from mirage_sim.geometry import NEAR, scale_ratio
from mirage_sim.memory.compilation import compiled, pointer, prefetch

BLOCK_POINTS = 1024  # points in a full block
KEY, LENGTH, XYZ, FOOTPRINT, IDS, FEATURES = range(6)  # columns of Blocks.table; the last four are addresses
NO_RANK = np.iinfo(np.int64).max
_COARSE = np.int64(1 << 62)  # added to the id of a point that is too coarse for a cell
_NEAR = np.float32(NEAR)
_HALF = np.float32(0.5)
_ROUNDING = 1e-5  # relative margin, many times the rounding error of float32
_AHEAD = 32  # points; how far ahead their data is prefetched
_MEMORY_PAGE = 4096  # bytes
_ROOM = 1 << 14  # points; initial size of the buffers
_CODES = np.float32(32768.5)  # code -32768 is the middle of the first of 65,536 steps


class Work:
    """Counts the blocks and points that the kernels have visited in this process; for tests and benchmarks."""

    walked = 0


WORK = Work()
_scale_ratio = compiled(scale_ratio)


@compiled
def _frustum(view: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the normals ``[5, 3]`` of near plane and sides: points in the image are on the positive side of all."""
    fx, fy, cx, cy = view[12], view[13], view[14], view[15]
    planes = np.empty((5, 3), np.float64)
    for axis in range(3):
        x, y, z = view[4 * axis], view[4 * axis + 1], view[4 * axis + 2]
        planes[0, axis] = z
        planes[1, axis], planes[2, axis] = fx * x + cx * z, (width - cx) * z - fx * x
        planes[3, axis], planes[4, axis] = fy * y + cy * z, (height - cy) * z - fy * y
    return planes


@compiled
def in_view(boxes: np.ndarray, view: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the boxes that may have points in an image.

    The test is conservative: a box is excluded only if it lies completely outside one plane of the frustum or beside
    the image, by more than the rounding error.

    Args:
        boxes: float32 ``[n, 6+]``, minimum and maximum corner in metres.
        view: float64 ``[16]``: the first three rows of the camera's ``c2w``, then fx, fy, cx, cy in cells.
        height: of the image in cells.
        width: of the image in cells.

    Returns:
        Rows ``[m]``, nearest first; a lower bound of the depth of their points ``[m]``; and first and last row, first
        and last column of the cells that they may cover ``[m, 4]``.
    """
    fx, fy, cx, cy = view[12], view[13], view[14], view[15]
    scale = fx + fy + abs(cx) + abs(cy) + (1.0 + width + height)
    planes = _frustum(view, height, width)
    rows = np.empty(len(boxes), np.int64)
    depths = np.empty(len(boxes), np.float64)
    cells = np.empty((len(boxes), 4), np.int64)
    middle, half = np.empty(3, np.float64), np.empty(3, np.float64)
    count = 0
    for row in range(len(boxes)):
        for axis in range(3):
            begin, end = np.float64(boxes[row, axis]), np.float64(boxes[row, axis + 3])
            middle[axis], half[axis] = (begin + end) / 2 - view[4 * axis + 3], (end - begin) / 2
        reach = abs(middle[0]) + abs(middle[1]) + abs(middle[2]) + half[0] + half[1] + half[2]
        beyond = False
        for plane in range(5):
            x, y, z = planes[plane, 0], planes[plane, 1], planes[plane, 2]
            most = x * middle[0] + y * middle[1] + z * middle[2]
            most += abs(x) * half[0] + abs(y) * half[1] + abs(z) * half[2]
            beyond |= most < -_ROUNDING * scale * reach
        if beyond:
            continue
        low = np.inf
        u_low, u_high, v_low, v_high = np.inf, -np.inf, np.inf, -np.inf
        for corner in range(8):
            dx = middle[0] + (half[0] if corner & 1 else -half[0])
            dy = middle[1] + (half[1] if corner & 2 else -half[1])
            dz = middle[2] + (half[2] if corner & 4 else -half[2])
            z = view[2] * dx + view[6] * dy + view[10] * dz
            u = (view[0] * dx + view[4] * dy + view[8] * dz) / z
            v = (view[1] * dx + view[5] * dy + view[9] * dz) / z
            low = min(low, z)
            u_low, u_high, v_low, v_high = min(u_low, u), max(u_high, u), min(v_low, v), max(v_high, v)
        depth = low - _ROUNDING * reach
        top, bottom, first, last = 0.0, height - 1.0, 0.0, width - 1.0
        if depth > _NEAR:  # else the box reaches behind the camera and may cover any cell
            doubt = _ROUNDING * (reach / depth + 1.0)
            u_doubt = doubt * (fx * (1.0 + max(abs(u_low), abs(u_high))) + abs(cx) + 1.0)
            v_doubt = doubt * (fy * (1.0 + max(abs(v_low), abs(v_high))) + abs(cy) + 1.0)
            first = max(first, np.floor(fx * u_low + cx - u_doubt))
            last = min(last, np.floor(fx * u_high + cx + u_doubt))
            top = max(top, np.floor(fy * v_low + cy - v_doubt))
            bottom = min(bottom, np.floor(fy * v_high + cy + v_doubt))
            if first > last or top > bottom:
                continue
        rows[count], depths[count] = row, depth
        cells[count, 0], cells[count, 1], cells[count, 2], cells[count, 3] = top, bottom, first, last
        count += 1
    order = np.argsort(depths[:count], kind="mergesort")  # a stable sort
    return rows[order], depths[order], cells[order]


@compiled
def _hidden(nearest: np.ndarray, width: int, cells: np.ndarray, depth: float, grown: np.float32) -> bool:
    """Return whether points at this depth or beyond are hidden in all of these cells."""
    for i in range(cells[0], cells[1] + 1):
        for j in range(cells[2], cells[3] + 1):
            if depth <= nearest[i * width + j] * grown:
                return False
    return True


@compiled
def _unpack(address: int, length: int, origin: np.ndarray, xyz: np.ndarray) -> None:
    """Read a block's coordinates axis by axis, for vector instructions; ``origin [4]`` ends in the step."""
    step = origin[3]
    plain = carray(pointer(address), (length, 3), np.float32)
    codes = carray(pointer(address), (length, 3), np.int16)
    for axis in range(3):
        if step > 0:
            for j in range(length):
                xyz[axis, j] = origin[axis] + (np.float32(codes[j, axis]) + _CODES) * step
        else:
            for j in range(length):
                xyz[axis, j] = plain[j, axis]


@compiled
def _project(
    xyz: np.ndarray,
    length: int,
    view: np.ndarray,
    height: int,
    width: int,
    pixels: np.ndarray,
    at: np.ndarray,
) -> None:
    """Compute u, v, z and the cell of each point without branches, for vector instructions.

    Points outside the image get the cell ``height * width``.
    """
    x_axis_x, x_axis_y, x_axis_z = view[0], view[4], view[8]
    y_axis_x, y_axis_y, y_axis_z = view[1], view[5], view[9]
    z_axis_x, z_axis_y, z_axis_z = view[2], view[6], view[10]
    x0, y0, z0 = view[3], view[7], view[11]
    fx, fy, cx, cy = view[12], view[13], view[14], view[15]
    bottom, right = np.float32(height), np.float32(width)
    across, beside = np.int32(width), np.uint32(height * width)
    for j in range(length):
        dx, dy, dz = xyz[0, j] - x0, xyz[1, j] - y0, xyz[2, j] - z0
        z = z_axis_x * dx + z_axis_y * dy + z_axis_z * dz
        u = (x_axis_x * dx + x_axis_y * dy + x_axis_z * dz) / z * fx + cx
        v = (y_axis_x * dx + y_axis_y * dy + y_axis_z * dz) / z * fy + cy
        pixels[0, j], pixels[1, j], pixels[2, j] = u, v, z
        # comparisons with NaN are False, so no division needs a guard
        inside = (z > _NEAR) & (z < np.inf) & (u >= 0) & (u < right) & (v >= 0) & (v < bottom)
        at[j] = np.uint32(np.int32(v) * across + np.int32(u)) if inside else beside


@compiled
def _doubled(rows: np.ndarray) -> np.ndarray:
    """Return an array of twice the length that starts with these rows."""
    return np.concatenate((rows, np.empty_like(rows)))


@compiled
def sweep(
    rows: np.ndarray,
    depths: np.ndarray,
    cells: np.ndarray,
    extents: np.ndarray,
    table: np.ndarray,
    view: np.ndarray,
    height: int,
    width: int,
    grown: np.float32,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Find the smallest depth per cell and the points that may be within the tolerance of it.

    Args:
        rows: from :func:`in_view`.
        depths: from :func:`in_view`.
        cells: from :func:`in_view`.
        extents: ``Blocks.extents``.
        table: ``Blocks.table``.
        view: as for :func:`in_view`, float32.
        height: of the image in cells.
        width: of the image in cells.
        grown: 1 + tolerance.

    Returns:
        Smallest depths ``[height * width]``, infinite in holes; row, index in the block and cell of the points found,
        int32 ``[n, 3]``; their u, v, z, float32 ``[n, 3]``; and the number of points visited.
    """
    nearest = np.full(height * width + 1, np.inf, np.float32)
    nearest[-1] = np.nan  # outside the image no point passes
    found, places = np.empty((_ROOM, 3), np.int32), np.empty((_ROOM, 3), np.float32)
    xyz, pixels = np.empty((3, BLOCK_POINTS), np.float32), np.empty((3, BLOCK_POINTS), np.float32)
    at, kept = np.empty(BLOCK_POINTS, np.uint32), np.empty(BLOCK_POINTS + 1, np.int32)
    u, v, z = pixels[0], pixels[1], pixels[2]
    count, walked = 0, 0
    for i in range(len(rows)):
        if _hidden(nearest, width, cells[i], depths[i], grown):
            continue
        row = rows[i]
        length = table[row, LENGTH]
        walked += length
        following = table[rows[min(i + 1, len(rows) - 1)], XYZ]
        for byte in range(0, 12 * BLOCK_POINTS, _MEMORY_PAGE):  # the processor prefetches within a page
            prefetch(following + byte)
        _unpack(table[row, XYZ], length, extents[row, 6:], xyz)
        _project(xyz, length, view, height, width, pixels, at)
        hits = 0
        # the smallest depth can only decrease, so points that are too deep now stay too deep
        for j in range(length):  # without an unpredictable branch
            kept[hits] = j
            hits += z[j] <= nearest[at[j]] * grown
        while count + hits > len(found):
            found, places = _doubled(found), _doubled(places)
        for j in kept[:hits]:
            cell = at[j]
            if z[j] <= nearest[cell] * grown:
                nearest[cell] = min(nearest[cell], z[j])
                found[count, 0], found[count, 1], found[count, 2] = row, j, cell
                places[count, 0], places[count, 1], places[count, 2] = u[j], v[j], z[j]
                count += 1
    return nearest[:-1], found[:count], places[:count], walked


@compiled
def _near(nearest: np.ndarray, found: np.ndarray, places: np.ndarray, grown: np.float32) -> np.ndarray:
    """Return which points of :func:`sweep` are within the tolerance of the final surface."""
    near, count = np.empty(len(found) + 1, np.int32), 0
    for i in range(len(found)):  # without an unpredictable branch
        near[count] = i
        count += places[i, 2] <= nearest[found[i, 2]] * grown
    return near[:count]


@compiled
def _gather(
    winner: np.ndarray,
    found: np.ndarray,
    places: np.ndarray,
    table: np.ndarray,
    samples_per_cell: int,
    focal: np.float32,
    features: np.ndarray,
    source: np.ndarray,
    seen: np.ndarray,
    scale: np.ndarray,
) -> None:
    """Write the outputs of :func:`choose`; ``winner`` is the index in ``found`` of each part's point."""
    size = features.shape[1]
    for part in range(len(source)):
        ahead = min(part + _AHEAD, len(source) - 1)
        if source[ahead] != NO_RANK:
            row, j = found[winner[ahead], 0], found[winner[ahead], 1]
            for byte in range(0, size, 64):
                prefetch(table[row, FEATURES] + size * j + byte)
        if source[part] == NO_RANK:
            source[part], features[part], seen[:, part], scale[part] = -1, 0, 0.0, 1.0
            continue
        source[part] &= _COARSE - 1
        i = winner[part]
        row, j = found[i, 0], found[i, 1]
        length = table[row, LENGTH]
        u, v = places[i, 0] * np.float32(samples_per_cell), places[i, 1] * np.float32(samples_per_cell)
        seen[0, part] = places[i, 2]
        seen[1, part], seen[2, part] = u - np.floor(u) - _HALF, v - np.floor(v) - _HALF
        written = carray(pointer(table[row, FOOTPRINT]), length, np.float32)[j]
        scale[part] = _scale_ratio(np.float64(places[i, 2]), np.float64(written), np.float64(focal), samples_per_cell)
        kept = carray(pointer(table[row, FEATURES]), (length, size), np.uint8)
        for byte in range(size):
            features[part, byte] = kept[j, byte]


@compiled
def choose(
    nearest: np.ndarray,
    found: np.ndarray,
    places: np.ndarray,
    table: np.ndarray,
    width: int,
    samples_per_cell: int,
    focal: np.float32,
    grown: np.float32,
    refine: np.float32,
    features: np.ndarray,
    source: np.ndarray,
    seen: np.ndarray,
    scale: np.ndarray,
) -> None:
    """Select the visible point of each part of a cell, as :func:`mirage_sim.geometry.splat` does.

    Args:
        nearest: from :func:`sweep`.
        found: from :func:`sweep`.
        places: from :func:`sweep`.
        table: ``Blocks.table``.
        width: of the image in cells.
        samples_per_cell: parts of a cell per axis.
        focal: horizontal focal length in cells.
        grown: 1 + tolerance.
        refine: a point is coarse if its footprint exceeds this many cells.
        features: output, uint8 ``[parts, bytes of a feature]``; 0 in holes.
        source: output, ids, int64 ``[parts]``; -1 in holes.
        seen: output, float32 ``[3, parts]``: depth, offset right and down; 0 in holes.
        scale: output, float64 ``[parts]``: :func:`~mirage_sim.geometry.scale_ratio`; 1 in holes.
    """
    near = _near(nearest, found, places, grown)
    winner = np.zeros(len(source), np.int64)
    source[:] = NO_RANK
    for n in range(len(near)):
        i, ahead = near[n], near[min(n + _AHEAD, len(near) - 1)]
        row, j = found[ahead, 0], found[ahead, 1]
        prefetch(table[row, FOOTPRINT] + 4 * j)
        prefetch(table[row, IDS] + 8 * j)
        u, v, z = places[i, 0], places[i, 1], places[i, 2]
        row, j = found[i, 0], found[i, 1]
        length = table[row, LENGTH]
        written = carray(pointer(table[row, FOOTPRINT]), length, np.float32)[j]
        rank = carray(pointer(table[row, IDS]), length, np.int64)[j] + _COARSE * (written > z / focal * refine)
        part = int(v * np.float32(samples_per_cell)) * width * samples_per_cell + int(u * np.float32(samples_per_cell))
        best = source[part]
        source[part], winner[part] = min(rank, best), i if rank < best else winner[part]
    _gather(winner, found, places, table, samples_per_cell, focal, features, source, seen, scale)


@compiled
def block_coverage(
    nearest: np.ndarray,
    found: np.ndarray,
    places: np.ndarray,
    table: np.ndarray,
    focal: np.float32,
    grown: np.float32,
    refine: np.float32,
    fine: np.ndarray,
    shown: np.ndarray,
) -> None:
    """Find fine cells and visible blocks, as :func:`mirage_sim.geometry.coverage` does.

    Args:
        nearest: from :func:`sweep`.
        found: from :func:`sweep`.
        places: from :func:`sweep`.
        table: ``Blocks.table``.
        focal: horizontal focal length in cells.
        grown: 1 + tolerance.
        refine: a point is coarse if its footprint exceeds this many cells.
        fine: output, bool per cell: any point on the surface is not coarse.
        shown: output, bool per block: any of its points is on a surface.
    """
    for i in _near(nearest, found, places, grown):
        z, cell, row = places[i, 2], found[i, 2], found[i, 0]
        shown[row] = True
        written = carray(pointer(table[row, FOOTPRINT]), table[row, LENGTH], np.float32)[found[i, 1]]
        if not written > z / focal * refine:
            fine[cell] = True
