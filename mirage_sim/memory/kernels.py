"""Loops over the blocks of a map, compiled for the CPU by numba.

They follow :func:`mirage_sim.geometry.splat` and :func:`~mirage_sim.geometry.cover`, operation by operation in float32
and without contraction, so that both have the same bits. Blocks come nearest first, and one is left out when all the
cells that it may cover already show something so near that none of its points can be within the tolerance.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import carray, njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from mirage_sim.geometry import NEAR

BLOCK_POINTS = 1024  # points in a full block
KEY, LENGTH, XYZ, FOOTPRINT, IDS, FEATURES = range(6)  # columns of the table of blocks; the last four are addresses
NO_RANK = np.iinfo(np.int64).max
_COARSE = np.int64(1 << 62)  # added to the id of a point that was written too coarsely for the cell
_NEAR = np.float32(NEAR)
_HALF = np.float32(0.5)
_ROUNDING = 1e-5  # relative; many times what rounding to float32 may move a point by
_CODES = np.float32(32768.5)  # a code of -32768 is the middle of the first of 65,536 steps


class Work:
    """How much the kernels have walked over, in blocks and points, since the process began."""

    walked = 0


WORK = Work()
Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    """Compile at the first call, and keep the result for later processes where there is a place to."""
    try:
        compiled: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package nor the user's cache can be written to
        compiled = njit(nogil=True, error_model="numpy")(function)
    return compiled


def _typed_pointer(typing_context: Any, address: Any) -> Any:
    """An integer as the address that it is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


_pointer: Any = intrinsic(_typed_pointer)


@_compiled
def in_view(boxes: np.ndarray, view: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which boxes may have points in a picture, how near, and where.

    Conservative: a box is left out only where all of its corners lie clearly on the outer side of one and the same
    plane of the frustum, or clearly beside the picture; on rounding's doubt it stays.

    Args:
        boxes: float32 ``[n, 6+]``, lowest and highest corner in metres.
        view: float64 ``[16]``: the first three rows of the camera's ``c2w``, then fx, fy, cx, cy in cells.
        height: of the picture in cells.
        width: of the picture in cells.

    Returns:
        Rows ``[m]``; less than the depth of any of their points; and first and last row, first and last column of the
        cells they may cover ``[m, 4]``.
    """
    fx, fy, cx, cy = view[12], view[13], view[14], view[15]
    scale = fx + fy + abs(cx) + abs(cy) + (1.0 + width + height)
    rows = np.empty(len(boxes), np.int64)
    depths = np.empty(len(boxes), np.float64)
    cells = np.empty((len(boxes), 4), np.int64)
    count = 0
    for row in range(len(boxes)):
        reach, low, ahead = 0.0, np.inf, -np.inf
        # a point is in the picture only if all are positive; they are linear, so a box is beyond a plane where all its
        # corners are
        left, right, above, below = -np.inf, -np.inf, -np.inf, -np.inf
        u_low, u_high, v_low, v_high = np.inf, -np.inf, np.inf, -np.inf
        for corner in range(8):
            dx = boxes[row, 3 * (corner & 1)] - view[3]
            dy = boxes[row, 1 + 3 * (corner >> 1 & 1)] - view[7]
            dz = boxes[row, 2 + 3 * (corner >> 2)] - view[11]
            x = view[0] * dx + view[4] * dy + view[8] * dz
            y = view[1] * dx + view[5] * dy + view[9] * dz
            z = view[2] * dx + view[6] * dy + view[10] * dz
            reach = max(reach, abs(dx) + abs(dy) + abs(dz))
            low, ahead = min(low, z), max(ahead, z - _NEAR)
            left, right = max(left, fx * x + cx * z), max(right, (width - cx) * z - fx * x)
            above, below = max(above, fy * y + cy * z), max(below, (height - cy) * z - fy * y)
            u, v = x / z, y / z
            u_low, u_high, v_low, v_high = min(u_low, u), max(u_high, u), min(v_low, v), max(v_high, v)
        if min(ahead, left, right, above, below) < -_ROUNDING * scale * reach:
            continue
        depth = low - _ROUNDING * reach
        top, bottom, first, last = 0.0, height - 1.0, 0.0, width - 1.0
        if depth > _NEAR:  # else it reaches behind the camera, and may be anywhere
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
    return rows[:count], depths[:count], cells[:count]


@_compiled
def _hidden(nearest: np.ndarray, width: int, cells: np.ndarray, depth: float, grown: np.float32) -> bool:
    """Whether nothing at this depth or beyond can be near the surface in any of these cells."""
    for i in range(cells[0], cells[1] + 1):
        for j in range(cells[2], cells[3] + 1):
            if depth <= nearest[i * width + j] * grown:
                return False
    return True


@_compiled
def _unpack(address: int, length: int, origin: np.ndarray, xyz: np.ndarray) -> None:
    """Coordinates of a block, axis by axis, so that vector instructions can take them; ``origin [4]`` with the step."""
    step = origin[3]
    plain = carray(_pointer(address), (length, 3), np.float32)
    codes = carray(_pointer(address), (length, 3), np.int16)
    for axis in range(3):
        if step > 0:
            for j in range(length):
                xyz[axis, j] = origin[axis] + (np.float32(codes[j, axis]) + _CODES) * step
        else:
            for j in range(length):
                xyz[axis, j] = plain[j, axis]


@_compiled
def _project(
    xyz: np.ndarray,
    length: int,
    view: np.ndarray,
    height: int,
    width: int,
    pixels: np.ndarray,
    inside: np.ndarray,
) -> None:
    """u, v and z of the first points, and whether they are in the picture; a straight line of vector instructions."""
    x_axis_x, x_axis_y, x_axis_z = view[0], view[4], view[8]
    y_axis_x, y_axis_y, y_axis_z = view[1], view[5], view[9]
    z_axis_x, z_axis_y, z_axis_z = view[2], view[6], view[10]
    x0, y0, z0 = view[3], view[7], view[11]
    fx, fy, cx, cy = view[12], view[13], view[14], view[15]
    bottom, right = np.float32(height), np.float32(width)
    for j in range(length):
        dx, dy, dz = xyz[0, j] - x0, xyz[1, j] - y0, xyz[2, j] - z0
        z = z_axis_x * dx + z_axis_y * dy + z_axis_z * dz
        u = (x_axis_x * dx + x_axis_y * dy + x_axis_z * dz) / z * fx + cx
        v = (y_axis_x * dx + y_axis_y * dy + y_axis_z * dz) / z * fy + cy
        pixels[0, j], pixels[1, j], pixels[2, j] = u, v, z
        # every comparison with a NaN fails: no division needs guarding
        inside[j] = (z > _NEAR) & (z < np.inf) & (u >= 0) & (u < right) & (v >= 0) & (v < bottom)


@_compiled
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
    """The smallest depth per cell, and the points that may be within the tolerance of it.

    Args:
        rows: of the blocks to look at, nearest first, with what :func:`in_view` says about them in ``depths`` and
            ``cells``.
        depths: see ``rows``.
        cells: see ``rows``.
        extents: float32 ``[blocks, 10]``: box, then origin and step of the coordinates, where these are codes.
        table: int64 ``[blocks, 6]``.
        view: as of :func:`in_view`, float32.
        height: of the picture in cells.
        width: of the picture in cells.
        grown: 1 + tolerance.

    Returns:
        Smallest depths ``[height * width]``, infinite in holes; of the points found row, position in the block and
        cell, int32 ``[n, 3]``, and u, v, z, float32 ``[n, 3]``; and how many points were looked at.
    """
    nearest = np.full(height * width, np.inf, np.float32)
    room = 0
    for i in range(len(rows)):
        room += table[rows[i], LENGTH]
    found = np.empty((room, 3), np.int32)
    places = np.empty((room, 3), np.float32)
    xyz, pixels = np.empty((3, BLOCK_POINTS), np.float32), np.empty((3, BLOCK_POINTS), np.float32)
    inside, kept = np.empty(BLOCK_POINTS, np.uint8), np.empty(BLOCK_POINTS + 1, np.int32)
    u, v, z = pixels[0], pixels[1], pixels[2]
    count, walked = 0, 0
    for i in range(len(rows)):
        if _hidden(nearest, width, cells[i], depths[i], grown):
            continue
        row = rows[i]
        length = table[row, LENGTH]
        walked += length
        _unpack(table[row, XYZ], length, extents[row, 6:], xyz)
        _project(xyz, length, view, height, width, pixels, inside)
        hits = 0
        for j in range(length):  # without a branch that could not be foretold
            kept[hits] = j
            hits += inside[j]
        for j in kept[:hits]:
            cell = int(v[j]) * width + int(u[j])
            # the smallest depth so far can only fall, so what is too deep now is too deep
            if z[j] <= nearest[cell] * grown:
                nearest[cell] = min(nearest[cell], z[j])
                found[count, 0], found[count, 1], found[count, 2] = row, j, cell
                places[count, 0], places[count, 1], places[count, 2] = u[j], v[j], z[j]
                count += 1
    return nearest, found[:count], places[:count], walked


@_compiled
def choose(
    nearest: np.ndarray,
    found: np.ndarray,
    places: np.ndarray,
    table: np.ndarray,
    width: int,
    detail: int,
    focal: np.float32,
    grown: np.float32,
    refine: np.float32,
    features: np.ndarray,
    source: np.ndarray,
    seen: np.ndarray,
) -> None:
    """What each part of a cell shows, of the points that :func:`sweep` found; see :func:`mirage_sim.geometry.splat`.

    Args:
        nearest: smallest depths per cell.
        found: row, position and cell of points.
        places: u, v, z of them.
        table: of the blocks.
        width: of the picture in cells.
        detail: parts of a cell per axis.
        focal: in cells.
        grown: 1 + tolerance.
        refine: how many cells wide a point may be.
        features: out, uint8 ``[parts, bytes of a feature]``, zeros.
        source: out, int64 ``[parts]``.
        seen: out, float32 ``[4, parts]``, zeros: depth, offset to the right and down, and the winner's footprint.
    """
    winner = np.empty(len(source), np.int64)
    source[:] = NO_RANK
    for i in range(len(found)):
        u, v, z = places[i, 0], places[i, 1], places[i, 2]
        if not z <= nearest[found[i, 2]] * grown:
            continue
        row, j = found[i, 0], found[i, 1]
        length = table[row, LENGTH]
        written = carray(_pointer(table[row, FOOTPRINT]), length, np.float32)[j]
        rank = carray(_pointer(table[row, IDS]), length, np.int64)[j]
        if written > z / focal * refine:
            rank += _COARSE
        part = int(v * np.float32(detail)) * width * detail + int(u * np.float32(detail))
        if rank < source[part]:
            source[part], winner[part] = rank, i
    for part in range(len(source)):
        if source[part] == NO_RANK:
            source[part] = -1
            continue
        source[part] &= _COARSE - 1
        i = winner[part]
        row, j = found[i, 0], found[i, 1]
        length = table[row, LENGTH]
        u, v = places[i, 0] * np.float32(detail), places[i, 1] * np.float32(detail)
        seen[0, part] = places[i, 2]
        seen[1, part], seen[2, part] = u - np.floor(u) - _HALF, v - np.floor(v) - _HALF
        seen[3, part] = carray(_pointer(table[row, FOOTPRINT]), length, np.float32)[j]
        kept = carray(_pointer(table[row, FEATURES]), (length, features.shape[1]), np.uint8)
        for byte in range(features.shape[1]):
            features[part, byte] = kept[j, byte]


@_compiled
def judge(
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
    """What the points that :func:`sweep` found cover; see :func:`mirage_sim.geometry.cover`.

    Args:
        nearest: smallest depths per cell.
        found: row, position and cell of points.
        places: u, v, z of them.
        table: of the blocks.
        focal: in cells.
        grown: 1 + tolerance.
        refine: how many cells wide a point may be.
        fine: out, bool per cell: some point on the surface is not coarse.
        shown: out, bool per block: some point of it is on a surface.
    """
    for i in range(len(found)):
        z, cell, row = places[i, 2], found[i, 2], found[i, 0]
        if z <= nearest[cell] * grown:
            shown[row] = True
            written = carray(_pointer(table[row, FOOTPRINT]), table[row, LENGTH], np.float32)[found[i, 1]]
            if not written > z / focal * refine:
                fine[cell] = True
