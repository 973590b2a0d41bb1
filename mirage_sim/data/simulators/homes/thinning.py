"""Thinning of triangle meshes: edges collapse by quadric error metrics (Garland & Heckbert, SIGGRAPH 1997)."""

import heapq

import numpy as np

from mirage_sim.memory.compilation import compiled

BORDER_WEIGHT = 3.0  # of a border's shape beside that of the surface
STEEPEST = 0.2  # cosine of the most that a triangle may turn in a collapse


def collapse_edges(positions: np.ndarray, faces: np.ndarray, material: np.ndarray, limit: int) -> np.ndarray:
    """Let vertices fall onto their neighbours, the least harmful first, until few triangles are left.

    The harm is the distance of the new place from the planes of all triangles that met in the old ones, and, where a
    surface or a material ends, from the border. Small separate parts vanish when that is the least harm.

    Args:
        positions: float64 ``[V, 3]``.
        faces: int64 ``[F, 3]``.
        material: int64 ``[F]``.
        limit: triangles to keep.

    Returns:
        The vertex that each fell onto in the end, itself if it stayed: int64 ``[V]``. Triangles with two corners in
        one place have vanished.
    """
    return _collapse(positions, faces.copy(), _quadrics(positions, faces, material), limit)


def _quadrics(positions: np.ndarray, faces: np.ndarray, material: np.ndarray) -> np.ndarray:
    """For each vertex, the sum of squared distances from planes as a quadratic form: float64 ``[V, 4, 4]``."""
    a, b, c = (positions[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1)
    normal /= np.where(area > 0, area, 1)[:, None]
    total = np.zeros((len(positions), 4, 4))
    for corner in range(3):
        _add_planes(total, faces[:, corner], normal, a, area)
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
def _harm(quadrics, positions, old, new):
    harm = 0.0
    for i in range(4):
        x = positions[new, i] if i < 3 else 1.0
        for j in range(4):
            y = positions[new, j] if j < 3 else 1.0
            harm += x * y * (quadrics[old, i, j] + quadrics[new, i, j])
    return max(harm, 0.0)


@compiled
def _turns(positions, faces, after, first, old, new):
    """Whether a triangle would turn over if one vertex fell onto another."""
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
            if both < STEEPEST * np.sqrt(before * then):
                return True
        corner = after[corner]
    return False


@compiled
def _corner_lists(faces, vertices):
    """The corners at each vertex as linked lists: the first and last of each, and the one after each corner."""
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
def _whole(faces, face):
    a, b, c = faces[face]
    return a != b and b != c and c != a


@compiled
def _move(faces, after, first, last, old, new):
    """Let a vertex fall onto another; returns how many triangles vanish. Vanished ones leave the corners' list."""
    gone = 0
    corner = first[old]
    while corner >= 0:
        was_whole = _whole(faces, corner // 3)
        faces[corner // 3, corner % 3] = new
        gone += was_whole and not _whole(faces, corner // 3)
        corner = after[corner]
    after[last[new]] = first[old]
    last[new], first[old] = last[old], -1
    corner, kept = first[new], -1
    first[new] = -1
    while corner >= 0:
        if _whole(faces, corner // 3):
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
    heap = [(0.0, 0, 0, -1, 0)]  # harm, old, new and their stamps; entries of other stamps are out of date
    for face in range(count):
        for i in range(3):
            a, b = faces[face, i], faces[face, (i + 1) % 3]
            heap.append((_harm(quadrics, positions, a, b), a, b, 0, 0))
            heap.append((_harm(quadrics, positions, b, a), b, a, 0, 0))
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
        while corner >= 0:  # the edges that are left have a new harm
            for i in range(1, 3):
                other = faces[corner // 3, (corner + i) % 3]
                harm = _harm(quadrics, positions, new, other)
                heapq.heappush(heap, (harm, new, other, stamp[new], stamp[other]))
                harm = _harm(quadrics, positions, other, new)
                heapq.heappush(heap, (harm, other, new, stamp[other], stamp[new]))
            corner = after[corner]
    for vertex in range(len(root)):
        end = vertex
        while root[end] != end:
            end = root[end]
        root[vertex] = end
    return root
