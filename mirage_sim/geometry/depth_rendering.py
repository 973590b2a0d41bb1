"""Render measured depth maps, as surfaces, from another camera."""

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry.camera import Camera
from mirage_sim.geometry.compilation import compiled
from mirage_sim.geometry.projection import NEAR, project, unproject

EDGE = 1.1  # neighbouring pixels whose depths differ by a larger factor lie on different surfaces


def render_depth(depth: Tensor, camera: Camera, target: Camera) -> Tensor:
    """Render depth maps as surfaces and return the z-depth of the nearest one at each pixel of another camera.

    Four neighbouring pixels of one surface (:data:`EDGE`) become two triangles, on which 1/z is interpolated linearly;
    a pixel at the edge of its surface becomes a square of its own width, too. The loops run on the CPU, in one thread.

    Args:
        depth: ``[N, H, W]`` metres; 0 is unknown.
        camera: cameras of these maps, batch shape ``[N]``, size ``(H, W)``.
        target: camera to render from, batch shape ``()``, any size ``(h, w)``.

    Returns:
        float32 ``[h, w]`` metres on the device of ``depth``; 0 where no surface is seen.
    """
    buffer = np.full(target.size, np.inf, np.float32)
    for own, one in zip(depth, camera, strict=True):
        u, v, z = project(unproject(own, one).reshape(-1, 3), target)
        known = (own > 0).flatten()
        zoom = target.K[0, 0] / one.K[0, 0]
        half = torch.where(known, 0.5 * zoom * own.flatten() / z.clamp(min=NEAR), 0.0)
        columns, rows, depths, halves = (
            part.reshape(own.shape).cpu().numpy() for part in (u, v, torch.where(known, z, 0.0), half)
        )
        _render(own.cpu().numpy(), columns, rows, depths, halves, buffer)
    buffer[np.isinf(buffer)] = 0.0
    return torch.from_numpy(buffer).to(depth.device)


@compiled
def _render(
    depth: np.ndarray, u: np.ndarray, v: np.ndarray, z: np.ndarray, half: np.ndarray, buffer: np.ndarray
) -> None:
    """Draw one depth map into a z-buffer.

    Args:
        depth: ``[H, W]`` of the source, which decides what is one surface.
        u: ``[H, W]`` columns in the target where its pixels fall.
        v: rows.
        z: their z-depth in the target; 0 where there is none.
        half: half the width of each pixel in the target.
        buffer: ``[h, w]``, infinite where nothing was drawn; changed.
    """
    height, width = depth.shape
    rows, columns = buffer.shape
    inverse = np.zeros((height, width), np.float64)
    for i in range(height):
        for j in range(width):
            inverse[i, j] = 1.0 / z[i, j] if z[i, j] > 0 else 0.0
    joined = np.zeros((height, width), np.int8)  # triangles' pairs that each pixel is part of
    for i in range(height - 1):
        for j in range(width - 1):
            low = min(min(depth[i, j], depth[i, j + 1]), min(depth[i + 1, j], depth[i + 1, j + 1]))
            high = max(max(depth[i, j], depth[i, j + 1]), max(depth[i + 1, j], depth[i + 1, j + 1]))
            if low <= 0 or high > low * EDGE:
                continue
            if min(min(z[i, j], z[i, j + 1]), min(z[i + 1, j], z[i + 1, j + 1])) <= 0:
                continue
            joined[i, j] += 1
            joined[i, j + 1] += 1
            joined[i + 1, j] += 1
            joined[i + 1, j + 1] += 1
            _triangle(u, v, inverse, i, j, i, j + 1, i + 1, j, buffer)
            _triangle(u, v, inverse, i + 1, j + 1, i, j + 1, i + 1, j, buffer)
    for i in range(height):
        for j in range(width):
            if joined[i, j] == 4 or z[i, j] <= 0:
                continue
            top, bottom = max(int(np.ceil(v[i, j] - half[i, j] - 0.5)), 0), min(v[i, j] + half[i, j] - 0.5, rows - 1)
            left, right = max(int(np.ceil(u[i, j] - half[i, j] - 0.5)), 0), min(u[i, j] + half[i, j] - 0.5, columns - 1)
            for y in range(top, int(np.floor(bottom)) + 1):
                for x in range(left, int(np.floor(right)) + 1):
                    if z[i, j] * EDGE < buffer[y, x]:  # on its own surface the triangles are more exact
                        buffer[y, x] = z[i, j]


@compiled
def _triangle(
    u: np.ndarray,
    v: np.ndarray,
    inverse: np.ndarray,
    ai: int,
    aj: int,
    bi: int,
    bj: int,
    ci: int,
    cj: int,
    buffer: np.ndarray,
) -> None:
    """Draw one triangle whose corners are pixels ``(ai, aj)``, ``(bi, bj)`` and ``(ci, cj)`` of the source.

    ``inverse`` is the reciprocal of the corners' z-depth in the target.
    """
    rows, columns = buffer.shape
    ax, ay, bx, by, cx, cy = (
        np.float64(u[ai, aj]),
        np.float64(v[ai, aj]),
        np.float64(u[bi, bj]),
        np.float64(v[bi, bj]),
        np.float64(u[ci, cj]),
        np.float64(v[ci, cj]),
    )
    top, bottom = max(np.ceil(min(ay, by, cy) - 0.5), 0.0), min(np.floor(max(ay, by, cy) - 0.5), rows - 1.0)
    left, right = max(np.ceil(min(ax, bx, cx) - 0.5), 0.0), min(np.floor(max(ax, bx, cx) - 0.5), columns - 1.0)
    if top > bottom or left > right:
        return  # most triangles, where source and target are about equally fine
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area == 0.0:
        return
    az, bz, cz = inverse[ai, aj], inverse[bi, bj], inverse[ci, cj]
    for y in range(int(top), int(bottom) + 1):
        for x in range(int(left), int(right) + 1):
            px, py = x + 0.5, y + 0.5
            a = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
            b = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
            c = 1.0 - a - b
            if a < 0.0 or b < 0.0 or c < 0.0:
                continue
            seen = np.float32(1.0 / (a * az + b * bz + c * cz))
            buffer[y, x] = min(buffer[y, x], seen)
