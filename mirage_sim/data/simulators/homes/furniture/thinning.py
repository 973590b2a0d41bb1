"""Simplification of meshes by edge collapses with quadric error metrics (Garland & Heckbert, SIGGRAPH 1997)."""

import heapq

import numpy as np

from mirage_sim.data.simulators.homes.scene import face_normals
from mirage_sim.memory.compilation import compiled

BORDER_WEIGHT = 3.0  # weight of distances from a border, relative to distances from the surface
MIN_COSINE = 0.2  # of the angle by which a collapse may turn a triangle


def collapse_edges(positions: np.ndarray, faces: np.ndarray, material: np.ndarray, limit: int) -> np.ndarray:
    """Collapse edges, those of the smallest error first, until few triangles are left.

    A collapse moves one vertex onto its neighbour. The error is the squared distance of the neighbour from the planes
    of all triangles that met at both vertices and, where a surface or a material ends, from the border. A small
    separate part disappears once that has the smallest error.

    Args:
        positions: float64 ``[V, 3]``.
        faces: int64 ``[F, 3]``.
        material: int64 ``[F]``.
        limit: number of triangles to keep.

    Returns:
        For each vertex, the vertex that it was moved onto, or itself if it stayed: int64 ``[V]``. Triangles with two
        corners at one vertex have disappeared.
    """
    return _collapse(positions, faces.copy(), _quadrics(positions, faces, material), limit)


def _quadrics(positions: np.ndarray, faces: np.ndarray, material: np.ndarray) -> np.ndarray:
    """Return for each vertex the sum of squared distances from planes as a quadratic form: float64 ``[V, 4, 4]``."""
    normal = face_normals(positions, faces)
    area = np.linalg.norm(normal, axis=1)
    normal /= np.where(area > 0, area, 1)[:, None]
    total = np.zeros((len(positions), 4, 4))
    for corner in range(3):
        _add_planes(total, faces[:, corner], normal, positions[faces[:, 0]], area)
    start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    order = np.lexsort((np.maximum(start, end), np.minimum(start, end)))
    edges = np.sort(np.stack([start, end], 1)[order], axis=1)
    same = (edges[1:] == edges[:-1]).all(1) & (np.diff(np.repeat(material, 3)[order]) == 0)
    border = ~(np.append(same, False) | np.append(False, same))
    at, face = edges[border], order[border] // 3
    along = positions[at[:, 1]] - positions[at[:, 0]]
    across = np.cross(along, normal[face])
    length = np.linalg.norm(across, axis=1)
    across /= np.where(length > 0, length, 1)[:, None]
    for corner in range(2):
        _add_planes(total, at[:, corner], across, positions[at[:, 0]], BORDER_WEIGHT * length**2)
    return total


def _add_planes(total: np.ndarray, at: np.ndarray, normal: np.ndarray, point: np.ndarray, weight: np.ndarray) -> None:
    plane = np.concatenate([normal, -(normal * point).sum(1, keepdims=True)], 1)
    np.add.at(total, at, weight[:, None, None] * plane[:, :, None] * plane[:, None, :])


@compiled
def _error(quadrics, positions, old, new):
    error = 0.0
    for i in range(4):
        x = positions[new, i] if i < 3 else 1.0
        for j in range(4):
            y = positions[new, j] if j < 3 else 1.0
            error += x * y * (quadrics[old, i, j] + quadrics[new, i, j])
    return max(error, 0.0)


@compiled
def _turns(positions, faces, after, first, old, new):
    """Return whether a triangle would turn over if vertex ``old`` were moved onto vertex ``new``."""
    corner = first[old]
    while corner >= 0:
        face = corner // 3
        a, b = faces[face, (corner + 1) % 3], faces[face, (corner + 2) % 3]
        if a != new and b != new and a != b and a != old and b != old:
            both, before, then = 0.0, 0.0, 0.0
            for i in range(3):
                j, k = (i + 1) % 3, (i + 2) % 3
                y, z = positions[b, j] - positions[a, j], positions[b, k] - positions[a, k]
                p = y * (positions[old, k] - positions[a, k]) - z * (positions[old, j] - positions[a, j])
                q = y * (positions[new, k] - positions[a, k]) - z * (positions[new, j] - positions[a, j])
                both += p * q
                before += p * p
                then += q * q
            if both < MIN_COSINE * np.sqrt(before * then):
                return True
        corner = after[corner]
    return False


@compiled
def _corner_lists(faces, vertices):
    """Link the corners at each vertex: return its first and last corner, and for each corner the next one."""
    first, last, after = np.full(vertices, -1), np.full(vertices, -1), np.full(faces.size, -1)
    for corner in range(faces.size):
        vertex = faces[corner // 3, corner % 3]
        if first[vertex] < 0:
            first[vertex] = corner
        else:
            after[last[vertex]] = corner
        last[vertex] = corner
    return first, last, after


@compiled
def _is_triangle(faces, face):
    a, b, c = faces[face]
    return a != b and b != c and c != a


@compiled
def _move(faces, after, first, last, old, new):
    """Move vertex ``old`` onto ``new``, unlink the triangles that disappear, and return their number."""
    gone = 0
    corner = first[old]
    while corner >= 0:
        was_triangle = _is_triangle(faces, corner // 3)
        faces[corner // 3, corner % 3] = new
        gone += was_triangle and not _is_triangle(faces, corner // 3)
        corner = after[corner]
    after[last[new]] = first[old]
    last[new], first[old] = last[old], -1
    corner, kept = first[new], -1
    first[new] = -1
    while corner >= 0:
        if _is_triangle(faces, corner // 3):
            if kept < 0:
                first[new] = corner
            else:
                after[kept] = corner
            kept = corner
        corner = after[corner]
    if kept >= 0:
        after[kept], last[new] = -1, kept
    return gone


@compiled
def _collapse(positions, faces, quadrics, limit):
    count = len(faces)
    root, stamp = np.arange(len(positions)), np.zeros(len(positions), np.int64)
    first, last, after = _corner_lists(faces, len(positions))
    heap = [(0.0, 0, 0, -1, 0)]  # error, old, new and their stamps; entries with other stamps are out of date
    for face in range(count):
        for i in range(3):
            a, b = faces[face, i], faces[face, (i + 1) % 3]
            heap.append((_error(quadrics, positions, a, b), a, b, 0, 0))
            heap.append((_error(quadrics, positions, b, a), b, a, 0, 0))
    heapq.heapify(heap)
    while count > limit and len(heap) > 0:
        _, old, new, old_stamp, new_stamp = heapq.heappop(heap)
        if stamp[old] != old_stamp or stamp[new] != new_stamp or _turns(positions, faces, after, first, old, new):
            continue
        count -= _move(faces, after, first, last, old, new)
        quadrics[new] += quadrics[old]
        root[old] = new
        stamp[old] = -1
        stamp[new] = stamp[new] + 1 if first[new] >= 0 else -1
        corner = first[new]
        while corner >= 0:  # the remaining edges at this vertex have new errors
            for i in range(1, 3):
                other = faces[corner // 3, (corner + i) % 3]
                error = _error(quadrics, positions, new, other)
                heapq.heappush(heap, (error, new, other, stamp[new], stamp[other]))
                error = _error(quadrics, positions, other, new)
                heapq.heappush(heap, (error, other, new, stamp[other], stamp[new]))
            corner = after[corner]
    for vertex in range(len(root)):
        end = vertex
        while root[end] != end:
            end = root[end]
        root[vertex] = end
    return root
