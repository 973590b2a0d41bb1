"""What the node shows of a memory besides images: a scan that tells free from unknown space, and coloured points."""

import math
from copy import copy

import numpy as np
import torch

from mirage_sim.geometry import Camera
from mirage_sim.memory import LatentMap
from mirage_sim.memory.blocks import GENERATED, Blocks
from mirage_sim.world import WorldModel
from mirage_sim.world.body import RANGE
from mirage_sim.world.export import point_colours


def ranges(scan: np.ndarray, map: LatentMap, camera: Camera) -> np.ndarray:
    """Tell free space from unknown space in a scan of the environment, as REP-117 demands.

    The environment's ranges are infinite wherever no obstacle is remembered. A ray is known to be free only if the
    memory holds a point (sky, for example) beyond the range of the scan in its direction.

    Args:
        scan: ``info["scan"]``, float32 ``[rays]``.
        map: the memory.
        camera: the camera, batch shape ``()``.

    Returns:
        float32 ``[rays]``: finite ranges as in `scan`; infinite where free up to 20 m; NaN where unknown.
    """
    spacing = 2 * math.pi / len(scan)
    forward, left = (camera.c2w[[0, 2], 2], -camera.c2w[[0, 2], 0])
    plan = map.xyz().cpu()[:, [0, 2]] - camera.c2w[[0, 2], 3]
    distance = torch.hypot(plan[:, 0], plan[:, 1])
    far = distance > RANGE
    plan, distance, footprint = plan[far], distance[far], map.footprint().cpu().float()[far]
    angle = torch.atan2(plan @ left, plan @ forward)
    half = torch.atan2(footprint / 2, distance)
    first = ((angle - half + math.pi) / spacing).ceil().long()
    last = ((angle + half + math.pi) / spacing).floor().long()
    # +1 at the first ray that a point covers and -1 after the last one, over three turns
    changes = torch.zeros(3 * len(scan) + 1, dtype=torch.int64)
    changes.index_add_(0, first + len(scan), torch.ones_like(first))
    changes.index_add_(0, last + len(scan) + 1, -torch.ones_like(last))
    free = (changes[:-1].cumsum(0) > 0).reshape(3, -1).any(0).numpy()
    return np.where(np.isfinite(scan) | free, scan, np.float32(np.nan))


class PointColours:
    """Colours of remembered points, which hold latents but no colours.

    The id of a point identifies the write and the cell, and so the part of an image that the point was written from.
    Images are kept at one colour per cell until colours are requested; then only colours by point are kept.
    """

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int64)  # of the points whose colours are kept, ascending
        self._rgb = np.zeros((0, 3), np.uint8)  # their colours
        self._images: dict[int, np.ndarray] = {}  # uint8 [cells, 3] of newer writes, by the first id of the write
        self._blocks: Blocks | None = None
        self._next = (0, GENERATED)  # first unused ids of observed and of generated points

    @classmethod
    def of_world(cls, model: WorldModel, map: LatentMap) -> "PointColours":
        """Return the colours of a saved world's points, decoded from their latents."""
        colours, ids = cls(), map.ids().cpu().numpy()
        order = np.argsort(ids)
        colours._ids, colours._rgb = ids[order], point_colours(model, map)[order]
        colours._blocks, colours._next = map.blocks, (map.next_observed, map.next_id)
        return colours

    def copy(self) -> "PointColours":
        """Return an independent copy. Arrays are shared because they are never modified."""
        other = copy(self)
        other._images = dict(self._images)
        return other

    def record(self, map: LatentMap, images: np.ndarray) -> None:
        """Record the images of the newest points.

        Args:
            map: after the step. Recording the same map again has no effect.
            images: images that were written since the previous map, uint8 ``[T, H, W, 3]``.
        """
        after = (map.next_observed, map.next_id)
        if map.blocks is not self._blocks:
            for first, last in zip(self._next, after, strict=True):
                if last > first:
                    cells = (last - first) // len(images)
                    self._images[first] = np.concatenate([_cell_means(image, cells) for image in images])
        self._blocks, self._next = map.blocks, after

    def of(self, map: LatentMap) -> np.ndarray:
        """Return the colours of all points, uint8 RGB ``[N, 3]``, in the order of ``map.xyz()``.

        Args:
            map: the map that was recorded last, or a part of it.
        """
        ids = map.ids().cpu().numpy()
        colours = np.zeros((len(ids), 3), np.uint8)
        at = np.searchsorted(self._ids, ids).clip(max=max(len(self._ids) - 1, 0))
        known = self._ids[at] == ids if len(self._ids) else np.zeros(len(ids), bool)
        colours[known] = self._rgb[at[known]]
        if self._images:
            images = dict(sorted(self._images.items()))
            starts, lengths = np.array(list(images)), np.array([len(image) for image in images.values()])
            write = np.searchsorted(starts, ids[~known], side="right") - 1
            rows = (np.cumsum(lengths) - lengths - starts)[write] + ids[~known]
            colours[~known] = np.concatenate(list(images.values()))[rows]
        order = np.argsort(ids)
        self._ids, self._rgb, self._images = ids[order], colours[order], {}
        return colours


def _cell_means(image: np.ndarray, cells: int) -> np.ndarray:
    """Return the mean colours ``[cells, 3]`` of an image's square cells, row by row."""
    height, width = image.shape[:2]
    stride = round((height * width / cells) ** 0.5)
    squares = image[: height // stride * stride, : width // stride * stride]
    squares = squares.reshape(height // stride, stride, width // stride, stride, 3)
    return squares.mean((1, 3)).round().astype(np.uint8).reshape(-1, 3)
