"""The memory written out slowly and obviously, one point and one cell at a time, in float32 scalars."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry import NEAR, Camera, is_coarse, project
from mirage_sim.memory.blocks import GENERATED

f32 = np.float32


def reference_splat(
    points: np.ndarray,
    ids: np.ndarray,
    footprint: np.ndarray,
    camera: Camera,
    tolerance: float,
    refine: float,
    samples_per_cell: int = 1,
) -> dict[tuple[int, int], dict[str, Any]]:
    """Part of a cell (row, column) to what it shows; holes are absent. ``surface`` is that of the whole cell."""
    c2w, K = camera.c2w.numpy(), camera.K.numpy()
    height, width = camera.size
    cells: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for i, point in enumerate(points):
        dx, dy, dz = (point[a] - c2w[a, 3] for a in range(3))
        x, y, z = (c2w[0, a] * dx + c2w[1, a] * dy + c2w[2, a] * dz for a in range(3))
        if not (z > f32(NEAR) and z < math.inf):
            continue
        u, v = x / z * K[0, 0] + K[0, 2], y / z * K[1, 1] + K[1, 2]
        if not (0 <= u < width and 0 <= v < height):
            continue
        cell = math.floor(v), math.floor(u)
        u, v = u * f32(samples_per_cell), v * f32(samples_per_cell)
        row, column = math.floor(v), math.floor(u)
        offset = (u - f32(column) - f32(0.5), v - f32(row) - f32(0.5))
        log_scale = f32(np.log2(np.float64(z) / np.float64(samples_per_cell * K[0, 0]) / np.float64(footprint[i])))
        coarse = bool(footprint[i] > z / K[0, 0] * f32(refine))
        hit = {"index": i, "id": int(ids[i]), "depth": z, "offset": offset, "log_scale": log_scale, "coarse": coarse}
        cells.setdefault(cell, []).append({**hit, "part": (row, column)})
    shown: dict[tuple[int, int], dict[str, Any]] = {}
    for hits in cells.values():
        surface = min(hit["depth"] for hit in hits)
        near = [hit for hit in hits if hit["depth"] <= surface * f32(1.0 + tolerance)]
        for part in {hit["part"] for hit in near}:
            winner = min((hit for hit in near if hit["part"] == part), key=lambda hit: (hit["coarse"], hit["id"]))
            shown[part] = {**winner, "surface": surface}
    return shown


def depth_at_centre(depth: np.ndarray) -> np.float32:
    """Of one cell's samples [s, s]; 0 where unknown."""
    s = len(depth)
    around = [depth[i, j] for i in range((s - 1) // 2, s // 2 + 1) for j in range((s - 1) // 2, s // 2 + 1)]
    known = all(math.isfinite(d) and d > 0 for d in around)
    if known and min(around) < max(around) <= min(around) * f32(1.1):
        return f32(len(around)) / sum((f32(1.0) / d for d in around), f32(0.0))
    return f32(around[-1])


class TwinMemory:
    """PointMemory as a list of points."""

    def __init__(self, stride: int, tolerance: float, refine: float, samples_per_cell: int = 1) -> None:
        self.stride, self.tolerance, self.refine, self.samples_per_cell = stride, tolerance, refine, samples_per_cell
        self.points: list[tuple[np.ndarray, np.ndarray, int, np.float32]] = []  # xyz, feature, id, footprint
        self.next_id = GENERATED

    def render(self, camera: Camera, samples_per_cell: int) -> dict[tuple[int, int], dict[str, Any]]:
        """What one camera on the latent grid is shown in each part of a cell."""
        if not self.points:
            return {}
        xyz, _, ids, footprint = zip(*self.points, strict=True)
        return reference_splat(
            np.stack(xyz), np.array(ids), np.array(footprint), camera, self.tolerance, self.refine, samples_per_cell
        )

    def write(self, latents: torch.Tensor, depth: torch.Tensor, static: torch.Tensor, camera: Camera) -> None:
        """One frame: latents [C, h, w], depth and static [H, W], one camera of pixel size."""
        s = self.stride
        height, width = camera.size[0] // s, camera.size[1] // s
        grid = camera.resize((height, width))
        shown = self.render(grid, 1)
        c2w, K = grid.c2w.numpy(), grid.K.numpy()
        new = []
        for row in range(height):
            for column in range(width):
                block = (slice(row * s, row * s + s), slice(column * s, column * s + s))
                d = depth_at_centre(depth[block].numpy())
                known = torch.isfinite(depth[block]) & (depth[block] > 0)
                if not (math.isfinite(d) and d > 0) or not bool(static[block][known].all()):
                    continue
                hit = shown.get((row, column))
                if hit and not (hit["coarse"] and d <= hit["surface"] * f32(1.0 + self.tolerance)):
                    continue
                x = (f32(column + 0.5) - K[0, 2]) / K[0, 0] * d
                y = (f32(row + 0.5) - K[1, 2]) / K[1, 1] * d
                xyz = np.stack([c2w[a, 0] * x + c2w[a, 1] * y + c2w[a, 2] * d + c2w[a, 3] for a in range(3)])
                identity = self.next_id + row * width + column
                new.append((xyz, latents[:, row, column].numpy(), identity, d / K[0, 0]))
        self.points += new
        self.next_id += height * width

    def read(self, camera: Camera, channels: int) -> dict[str, torch.Tensor]:
        """One camera of pixel size, as the fields of a MemoryView with T = 1."""
        grid = camera.resize((camera.size[0] // self.stride, camera.size[1] // self.stride))
        h, w = self.samples_per_cell * grid.size[0], self.samples_per_cell * grid.size[1]
        out = {
            "latents": torch.zeros(channels, 1, h, w),
            "visible": torch.zeros(1, h, w, dtype=torch.bool),
            "depth": torch.zeros(1, h, w),
            "source": torch.full((1, h, w), -1),
            "offset": torch.zeros(2, 1, h, w),
            "log_scale": torch.zeros(1, h, w),
        }
        for (row, column), hit in self.render(grid, self.samples_per_cell).items():
            out["latents"][:, 0, row, column] = torch.from_numpy(self.points[hit["index"]][1])
            out["visible"][0, row, column] = True
            out["depth"][0, row, column] = float(hit["depth"])
            out["source"][0, row, column] = hit["id"]
            out["offset"][:, 0, row, column] = torch.tensor([float(o) for o in hit["offset"]])
            out["log_scale"][0, row, column] = float(hit["log_scale"])
        return out


def sorted_splat(
    points: Tensor, ids: Tensor, footprint: Tensor, camera: Camera, tolerance: float, refine: float
) -> Tensor:
    """Sort-based reference of :func:`splat` for one camera: index of the winner per cell ``[h, w]``, -1 in holes."""
    height, width = camera.size
    u, v, z = project(points, camera)
    inside = ((z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)).nonzero().squeeze(1)
    cell, z = v[inside].long() * width + u[inside].long(), z[inside]

    def first_of_cell(order: Tensor) -> Tensor:
        grouped = cell[order]
        return torch.cat([grouped.new_ones(1, dtype=torch.bool), grouped[1:] != grouped[:-1]])

    order = torch.argsort(z, stable=True)
    order = order[torch.argsort(cell[order], stable=True)]
    surface = torch.full((height * width,), torch.inf)
    front = order[first_of_cell(order)]
    surface[cell[front]] = z[front]
    near = z <= surface[cell] * (1.0 + tolerance)
    inside, cell, z = inside[near], cell[near], z[near]
    order = torch.argsort(ids[inside], stable=True)
    coarse = is_coarse(footprint[inside], z, camera.K[0, 0], refine)
    order = order[torch.argsort(coarse[order].long(), stable=True)]
    order = order[torch.argsort(cell[order], stable=True)]
    winner = order[first_of_cell(order)]
    index = torch.full((height * width,), -1)
    index[cell[winner]] = inside[winner]
    return index.view(height, width)
