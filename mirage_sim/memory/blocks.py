"""Blocks of neighbouring points, and an immutable sequence of blocks."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mirage_sim.memory.kernels import LENGTH
from mirage_sim.memory.persistent_array import PersistentArray
from mirage_sim.memory.quantization import STEPS, cells_of_keys

GENERATED = 1 << 60  # first id of generated points; observed points have smaller ids


class Points(NamedTuple):
    """Columns of a table of points.

    Attributes:
        xyz: ``[n, 3]``, float32 metres in the world frame, or int16 codes
            (:func:`~mirage_sim.memory.quantization.xyz_of`).
        features: ``[n, C]``, or uint8 ``[n, C + 2]``, coded (:func:`~mirage_sim.memory.quantization.decoded_features`).
        ids: int64 ``[n]``, unique in the map; older points have smaller ids.
        footprint: float32 ``[n]``, width in metres of the cell each point was written from.
    """

    xyz: Tensor
    features: Tensor
    ids: Tensor
    footprint: Tensor


class Block(NamedTuple):
    """Up to ``kernels.BLOCK_POINTS`` neighbouring points; immutable.

    Attributes:
        key: the spatial cell (:func:`~mirage_sim.memory.quantization.block_keys`); several blocks may share one.
        xyz: see :class:`Points`.
        features: see :class:`Points`.
        ids: see :class:`Points`.
        footprint: see :class:`Points`.
    """

    key: int
    xyz: Tensor
    features: Tensor
    ids: Tensor
    footprint: Tensor


class Blocks:
    """An immutable sequence of blocks with a table of their properties; changed copies share unchanged pages.

    Attributes:
        rows: the blocks.
        table: int64 ``[blocks, 6]``: key, number of points, and memory addresses of xyz, footprint, ids and features
            for the compiled loops (valid on the CPU only).
        extents: float32 ``[blocks, 10]``, metres: minimum and maximum corner of the points, then origin and step of
            quantised coordinates (0 otherwise).
    """

    def __init__(self, rows: PersistentArray, table: PersistentArray, extents: PersistentArray) -> None:
        self.rows = rows
        self.table = table
        self.extents = extents

    @classmethod
    def empty(cls) -> "Blocks":
        """Return a sequence without blocks."""
        return cls(
            PersistentArray.of(np.zeros(0, object)),
            PersistentArray.of(np.zeros((0, 6), np.int64)),
            PersistentArray.of(np.zeros((0, 10), np.float32)),
        )

    @classmethod
    def of(cls, blocks: Sequence[Block], extents: np.ndarray) -> "Blocks":
        """Return a sequence of blocks, with rows of :attr:`extents`."""
        return cls(
            PersistentArray.of(_objects(blocks)), PersistentArray.of(_table(blocks)), PersistentArray.of(extents)
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Blocks":
        # Immutable, and the table holds addresses that copies of the tensors would not have.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # After unpickling the tensors have other addresses, so the table is built again.
        return Blocks.of, (tuple(self), self.extents.array())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Block:
        block: Block = self.rows[row]
        return block

    def __iter__(self) -> Iterator[Block]:
        return iter(self.rows)

    @property
    def on_cpu(self) -> bool:
        """Whether the points are on the CPU, so that the addresses are valid."""
        return not len(self) or self[0].xyz.is_cpu

    @property
    def points(self) -> int:
        """Number of points."""
        return sum(int(page[:, LENGTH].sum()) for page in self.table.pages)

    @property
    def nbytes(self) -> int:
        """Bytes of the points and the tables."""
        each = sum(column[:1].nbytes for column in self[0][1:]) if len(self) else 0
        return self.points * each + self.rows.nbytes + self.table.nbytes + self.extents.nbytes

    def replace(self, rows: np.ndarray, blocks: Sequence[Block], boxes: np.ndarray, block_size: float) -> "Blocks":
        """Return a copy with some blocks replaced or appended.

        Args:
            rows: int64 ``[n]``, ascending. Rows from ``len(self)`` on are appended.
            blocks: ``n`` blocks.
            boxes: float32 ``[n, 6]``, minimum and maximum corner of the points of each block.
            block_size: of the map.
        """
        table = _table(blocks)
        places = np.zeros((len(blocks), 4), np.float32)
        if blocks and blocks[0].xyz.dtype == torch.int16:
            places = cells_of_keys(table[:, 0], block_size)
            places[:, 3] /= STEPS
        return Blocks(
            self.rows.replace(rows, _objects(blocks)),
            self.table.replace(rows, table),
            self.extents.replace(rows, np.concatenate([boxes, places], axis=1)),
        )

    def take(self, rows: np.ndarray) -> "Blocks":
        """Return the blocks in some rows."""
        return Blocks(*(PersistentArray.of(pages.array()[rows]) for pages in (self.rows, self.table, self.extents)))


def _objects(blocks: Sequence[Block]) -> np.ndarray:
    objects = np.empty(len(blocks), object)
    for i, block in enumerate(blocks):
        objects[i] = block  # np.array(blocks) would treat the named tuples as rows
    return objects


def _table(blocks: Sequence[Block]) -> np.ndarray:
    rows = [
        (key, len(ids), *(tensor.data_ptr() for tensor in (xyz, footprint, ids, features)))
        for key, xyz, features, ids, footprint in blocks
    ]
    return np.array(rows, np.int64).reshape(-1, 6)


def boxes_of(xyz: Tensor, lengths: list[int]) -> np.ndarray:
    """Return the minimum and maximum corner of each run of points: float32 ``[runs, 6]`` on the host.

    Args:
        xyz: ``[n, 3]`` metres.
        lengths: of the runs, positive, with sum ``n``.
    """
    if not lengths:
        return np.zeros((0, 6), np.float32)
    ends = torch.tensor(lengths, device=xyz.device)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=xyz.device), ends)[:, None].expand(-1, 3)
    low, high = xyz.new_full((len(lengths), 3), torch.inf), xyz.new_full((len(lengths), 3), -torch.inf)
    low.scatter_reduce_(0, owner, xyz, "amin")
    high.scatter_reduce_(0, owner, xyz, "amax")
    return torch.cat([low, high], dim=1).cpu().numpy()
