"""Colours for remembered points: a point has those of the picture that it was written from."""

from copy import copy

import numpy as np

from mirage_sim.memory import LatentMap
from mirage_sim.memory.blocks import Blocks


class PointColours:
    """Colours by point. They are read from small copies of the pictures, which are kept until colours are asked for.

    Points carry latents, not colours; but the id of a point tells the write and the cell, and with them where in which
    picture it was.
    """

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int64)  # ascending: of the points that have been coloured
        self._rgb = np.zeros((0, 3), np.uint8)  # theirs
        self._pictures: dict[int, np.ndarray] = {}  # by first id of the write, since then: uint8 [cells, 3]
        self._blocks: Blocks | None = None
        self._next_id = 0

    def copy(self) -> "PointColours":
        """The same, to go its own way; arrays are shared, because none is ever written to."""
        reference = copy(self)
        reference._pictures = dict(self._pictures)
        return reference

    def note(self, map: LatentMap, images: np.ndarray) -> None:
        """Tell what was seen when the map got its newest points.

        Args:
            map: after the step; the same one again changes nothing.
            images: the pictures that were written since the map before, uint8 ``[T, H, W, 3]``.
        """
        if map.blocks is not self._blocks and map.next_id > self._next_id:
            cells = (map.next_id - self._next_id) // len(images)
            self._pictures[self._next_id] = np.concatenate([_per_cell(image, cells) for image in images])
        self._blocks, self._next_id = map.blocks, map.next_id

    def of(self, map: LatentMap) -> np.ndarray:
        """Colours of all points, uint8 RGB ``[N, 3]``, in the order of ``map.xyz()``.

        Args:
            map: the one that was noted last, or less of it.
        """
        ids = map.ids().cpu().numpy()
        colours = np.zeros((len(ids), 3), np.uint8)
        first = min(self._pictures, default=self._next_id)
        known = ids < first
        colours[known] = self._rgb[np.searchsorted(self._ids, ids[known])]
        if self._pictures:
            starts = np.array(list(self._pictures))
            lengths = np.array([len(picture) for picture in self._pictures.values()])
            owner = np.searchsorted(starts, ids[~known], side="right") - 1
            rows = (np.cumsum(lengths) - lengths - starts)[owner] + ids[~known]
            colours[~known] = np.concatenate(list(self._pictures.values()))[rows]
        order = np.argsort(ids)
        self._ids, self._rgb, self._pictures = ids[order], colours[order], {}
        return colours


def _per_cell(image: np.ndarray, cells: int) -> np.ndarray:
    """Mean colours ``[cells, 3]`` of the squares that a grid of so many cells cuts a picture into, row by row."""
    height, width = image.shape[:2]
    stride = round((height * width / cells) ** 0.5)
    squares = image[: height // stride * stride, : width // stride * stride]
    squares = squares.reshape(height // stride, stride, width // stride, stride, 3)
    return squares.mean((1, 3)).round().astype(np.uint8).reshape(-1, 3)
