"""Light maps: the light on flat parts of a scene, on a grid finer than their triangles."""

import math
from collections.abc import Sequence

import numpy as np

from mirage_sim.data.simulators.homes.scene import Mesh

TEXEL = 0.06  # metres
WIDTH = 512  # texels: width of the texture
MAX_SIDE = 192  # texels: longest side of a part


class LightMap:
    """The layout of one texture that holds the light of all flat parts.

    The grid of a part spans its bounding rectangle. The outer texels lie on the sides of the rectangle, so that the
    light of neighbouring parts is continuous. Texel (0, 0) is white, for parts that are not flat.

    Args:
        parts: all parts of a scene.

    Attributes:
        size: ``(width, height)`` of the texture.
        points: float32 ``[N, 3]``, positions of the used texels in the world frame, metres.
        normals: float32 ``[N, 3]`` at these points.
        texels: int64 ``[N]``, indices of these texels in the flattened texture.
        places: for each part, the texture coordinates of its vertices, float32 ``[V, 2]``.
    """

    def __init__(self, parts: Sequence[Mesh]):
        charts = {number: _chart(part) for number, part in enumerate(parts) if part.is_flat}
        corners, height = _pack([chart[1] for chart in charts.values()])
        self.size = (WIDTH, height)
        points, normals, texels = [np.zeros((0, 3))], [np.zeros((0, 3))], [np.zeros(0, np.int64)]
        half = np.array([0.5, 0.5])
        self.places = [np.tile((half / self.size).astype(np.float32), (len(part.positions), 1)) for part in parts]
        for (number, (axes, count, low, high)), corner in zip(charts.items(), corners, strict=True):
            flat = parts[number].positions @ axes.T
            share = (flat[:, :2] - low) / np.maximum(high - low, 1e-6)
            self.places[number] = ((corner + half + share * (count - 1)) / self.size).astype(np.float32)
            rows, columns = np.divmod(np.arange(count[0] * count[1]), count[0])
            across = low + np.stack([columns, rows], -1) * ((high - low) / np.maximum(count - 1, 1))
            points.append(across @ axes[:2] + flat[0, 2] * axes[2])
            normals.append(np.broadcast_to(axes[2], (len(rows), 3)))
            texels.append((corner[1] + rows) * WIDTH + corner[0] + columns)
        self.points = np.concatenate(points).astype(np.float32)
        self.normals = np.concatenate(normals).astype(np.float32)
        self.texels = np.concatenate(texels)


def _chart(part: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the axes ``[3, 3]`` of a flat part, its normal last, and its numbers of texels and range along them."""
    x, y, z = map(float, part.normals[0])
    length = math.hypot(x, z)
    first = (z / length, 0.0, -x / length) if length > 0.1 else (1.0, 0.0, 0.0)  # horizontal
    second = (y * first[2], z * first[0] - x * first[2], -y * first[0])
    axes = np.array([first, second, (x, y, z)])
    flat = part.positions @ axes[:2].T
    low, high = flat.min(0), flat.max(0)
    count = np.minimum(np.ceil((high - low) / TEXEL).astype(np.int64) + 1, MAX_SIDE)
    return axes, count, low, high


def _pack(counts: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """Arrange rectangles in rows of a texture, tallest first; return their corners ``[N, 2]`` and the height."""
    corners = np.zeros((len(counts), 2), np.int64)
    x, y, row = 1, 0, 1  # the first texel is white
    for number in sorted(range(len(counts)), key=lambda number: -counts[number][1]):
        width, height = counts[number]
        if x + width > WIDTH:
            x, y, row = 0, y + row, 0
        corners[number] = x, y
        x, row = x + width, max(row, height)
    return corners, int(y + row)
