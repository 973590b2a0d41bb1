"""Colours for remembered points: a point has those of the picture that it was written from."""

import numpy as np

from mirage_sim.memory import LatentMap


class PointColours:
    """The pictures that points were written from, small: one colour per cell of the latent grid.

    Points carry latents, not colours; but the id of a point tells the write and the cell, and with them where in which
    picture it was.
    """

    def __init__(self) -> None:
        self._pictures: dict[int, np.ndarray] = {}  # by first id of the write: uint8 [cells, 3]
        self._next_id = 0

    def copy(self) -> "PointColours":
        """The same, to go its own way; pictures are shared."""
        twin = PointColours()
        twin._pictures, twin._next_id = dict(self._pictures), self._next_id
        return twin

    def note(self, map: LatentMap, image: np.ndarray) -> None:
        """Tell what was seen when the map got its newest points.

        Args:
            map: after the step; the same one again changes nothing.
            image: the picture of that step, uint8 ``[H, W, 3]``.
        """
        cells = map.next_id - self._next_id
        if cells > 0:
            self._pictures[self._next_id] = _per_cell(image, cells)
            self._next_id = map.next_id

    def of(self, map: LatentMap) -> np.ndarray:
        """Colours of all points, uint8 RGB ``[N, 3]``, in the order of ``map.xyz()``."""
        ids = map.ids().cpu().numpy()
        starts = np.array(sorted(self._pictures))
        owner = np.searchsorted(starts, ids, side="right") - 1
        # writes that nothing is left of, or that added nothing, need no colours any more
        used, owner = np.unique(owner, return_inverse=True)
        starts = starts[used]
        self._pictures = {start: self._pictures[start] for start in starts.tolist()}
        lengths = np.array([len(picture) for picture in self._pictures.values()])
        rows = (np.cumsum(lengths) - lengths - starts)[owner] + ids
        return np.concatenate(list(self._pictures.values()))[rows]


def _per_cell(image: np.ndarray, cells: int) -> np.ndarray:
    """Mean colours ``[cells, 3]`` of the squares that a grid of so many cells cuts a picture into, row by row."""
    height, width = image.shape[:2]
    stride = round((height * width / cells) ** 0.5)
    squares = image[: height // stride * stride, : width // stride * stride]
    squares = squares.reshape(height // stride, stride, width // stride, stride, 3)
    return squares.mean((1, 3)).round().astype(np.uint8).reshape(-1, 3)
