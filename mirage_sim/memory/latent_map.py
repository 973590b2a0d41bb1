"""The map of a point memory: an immutable set of 3D points with latent features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.memory import kernels
from mirage_sim.memory.blocks import GENERATED, Block, Blocks, Points, boxes_of
from mirage_sim.memory.kernels import BLOCK_POINTS, KEY, LENGTH
from mirage_sim.memory.map_tensors import check_tensors
from mirage_sim.memory.persistent_array import PersistentArray
from mirage_sim.memory.quantization import (
    block_keys,
    cells_of_keys,
    coded_features,
    codes_of,
    curve,
    decoded_features,
    xyz_of,
)

_FEW = 256  # points; new points join a block with at most this many points, or with fewer points than are new


class InView(NamedTuple):
    """Blocks that may have points in an image, nearest first.

    Attributes:
        rows: int64 ``[n]``.
        depths: float64 ``[n]``, a lower bound of the depth of the block's points, metres.
        cells: int64 ``[n, 4]``, first and last row, first and last column of the cells that the block may cover.
    """

    rows: np.ndarray
    depths: np.ndarray
    cells: np.ndarray

    @classmethod
    def all(cls, blocks: int, size: tuple[int, int]) -> "InView":
        """Return all blocks, each of which may cover the whole image of size ``(height, width)``."""
        whole = np.array([0, size[0] - 1, 0, size[1] - 1])
        return cls(np.arange(blocks), np.full(blocks, -np.inf), np.tile(whole, (blocks, 1)))


def view_of(camera: Camera) -> np.ndarray:
    """Return a camera as the kernels take it: float32 ``[16]``, three rows of ``c2w``, then fx, fy, cx, cy."""
    c2w, K = camera.c2w.tolist(), camera.K.tolist()
    return np.array([*c2w[0], *c2w[1], *c2w[2], K[0][0], K[1][1], K[0][2], K[1][2]], np.float32)


@dataclass(frozen=True)
class LatentMap:
    """An immutable map of 3D points. Keeping a map is a snapshot, because nothing ever writes to its tensors.

    Attributes:
        blocks: the points.
        seen: int64 ``[blocks]``: value of ``next_id`` when a write last saw or extended the block.
        next_id: first unused id of generated points. Each frame that is written reserves one id per cell of its grid,
            so that ``id = GENERATED + frame * cells + cell`` on a fixed grid.
        next_observed: first unused id of observed points, which begin at 0.
        block_size: minimum edge of a block in metres.
        channels: number of latent channels ``C``.
        compact: features are stored with 8 bits per channel, coordinates with 16 bits relative to their block.
    """

    blocks: Blocks
    seen: PersistentArray
    next_id: int
    block_size: float
    channels: int
    compact: bool = False
    next_observed: int = 0

    @classmethod
    def empty(cls, channels: int, block_size: float = 2.0, compact: bool = False) -> "LatentMap":
        """Return an empty map.

        Raises:
            ValueError: if an argument is not positive.
        """
        if channels < 1:
            raise ValueError(f"channels: expected at least 1, got {channels}")
        if not 0.0 < block_size < float("inf"):
            raise ValueError(f"block_size: expected a positive length in metres, got {block_size}")
        return cls(Blocks.empty(), PersistentArray.of(np.zeros(0, np.int64)), GENERATED, block_size, channels, compact)

    @property
    def points(self) -> int:
        """Number of points."""
        return self.blocks.points

    @property
    def nbytes(self) -> int:
        """Bytes of the points and the tables."""
        return self.blocks.nbytes + self.seen.nbytes

    @cached_property
    def device(self) -> torch.device:
        """Device of the points."""
        return self.blocks[0].xyz.device if len(self.blocks) else torch.device("cpu")

    @property
    def boxes(self) -> Tensor:
        """Minimum and maximum corner of each block's points, float32 ``[blocks, 6]``, metres, on the host."""
        return torch.from_numpy(self.blocks.extents.array()[:, :6].copy())

    def select(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``xyz [N, 3]``, ``ids [N]`` and ``footprint [N]`` of the points in some blocks."""
        if not len(rows):
            nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
            return torch.zeros(0, 3, device=self.device), nothing, torch.zeros(0, device=self.device)
        chosen = [self.blocks[row] for row in rows]
        xyz = torch.cat([block.xyz for block in chosen])
        return (
            self._decoded(xyz, *self.blocks.table.array()[np.array(rows), :2].T),
            torch.cat([block.ids for block in chosen]),
            torch.cat([block.footprint for block in chosen]),
        )

    def _decoded(self, xyz: Tensor, keys: np.ndarray, lengths: np.ndarray) -> Tensor:
        """Return the coordinates of stored points, which come in runs of one key each."""
        if not self.compact:
            return xyz
        return xyz_of(xyz, self._cells(keys, lengths, xyz.device))

    def _cells(self, keys: np.ndarray, lengths: np.ndarray, device: torch.device) -> Tensor:
        """Return the spatial cell of each point; points come in runs of one key each."""
        return torch.from_numpy(cells_of_keys(keys, self.block_size).repeat(lengths, axis=0)).to(device)

    def xyz(self) -> Tensor:
        """Return all points ``[N, 3]``, metres, world frame."""
        return self.select(range(len(self.blocks)))[0]

    def ids(self) -> Tensor:
        """Return all ids, int64 ``[N]``, in the order of :meth:`xyz`."""
        return self.select(range(len(self.blocks)))[1]

    def footprint(self) -> Tensor:
        """Return the width in metres of the cell each point was written from, ``[N]``, in the order of :meth:`xyz`."""
        return self.select(range(len(self.blocks)))[2]

    def features(self) -> Tensor:
        """Return all features ``[N, C]``, in the order of :meth:`xyz`."""
        return self.decoded(self._stored("features"))

    def decoded(self, features: Tensor) -> Tensor:
        """Return the features ``[n, C]`` of stored (possibly quantised) features."""
        return decoded_features(features) if self.compact else features

    def _stored(self, name: str) -> Tensor:
        """Return one column of all blocks as stored."""
        return torch.cat([getattr(block, name) for block in self.blocks] or [self.empty_column(name)])

    def empty_column(self, name: str) -> Tensor:
        """Return a stored column without rows."""
        f32, i64 = torch.float32, torch.int64
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "xyz": ((0, 3), torch.int16 if self.compact else f32),
            "features": ((0, self.channels + 2), torch.uint8) if self.compact else ((0, self.channels), f32),
            "ids": ((0,), i64),
            "footprint": ((0,), f32),
        }
        shape, dtype = shapes[name]
        return torch.zeros(shape, dtype=dtype)

    def to(self, device: torch.device | str) -> "LatentMap":
        """Return the map on another device."""
        blocks = [Block(block.key, *(tensor.to(device) for tensor in block[1:])) for block in self.blocks]
        boxes = self.blocks.extents.array()[:, :6]
        moved = Blocks.empty().replace(np.arange(len(blocks)), blocks, boxes, self.block_size)
        return replace(self, blocks=moved)

    def cull(self, camera: Camera) -> InView:
        """Return the blocks that may have points in the image of one camera; conservative under rounding."""
        view = view_of(camera).astype(np.float64)
        return InView(*kernels.in_view(self.blocks.extents.array(), view, *camera.size))

    def features_of(self, rows: Sequence[int], index: Tensor) -> Tensor:
        """Return the features ``[n, C]`` of points by their index in ``select(rows)``; reads only the blocks needed.

        Args:
            rows: of the selected blocks.
            index: int64 ``[n]``.
        """
        if not len(index):
            return self.decoded(self.empty_column("features").to(index.device))
        ends = self._ends(rows).to(index.device)
        owners, compact = torch.unique(torch.searchsorted(ends, index, right=True), return_inverse=True)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        sizes = (ends - starts)[owners]
        at = index - starts[owners][compact] + (sizes.cumsum(0) - sizes)[compact]
        return self.decoded(torch.cat([self.blocks[rows[i]].features for i in owners.tolist()])[at])

    def rows_of(self, rows: Sequence[int], index: Tensor) -> np.ndarray:
        """Return the rows of the blocks that contain points with an index in ``select(rows)``; unique, ascending."""
        owners = torch.unique(torch.searchsorted(self._ends(rows).to(index.device), index, right=True))
        return np.unique(np.array(rows, np.int64)[owners.cpu().numpy()])

    def _ends(self, rows: Sequence[int]) -> Tensor:
        """Return the index in ``select(rows)`` at which each block ends, int64 ``[blocks]``."""
        return torch.tensor([len(self.blocks[row].ids) for row in rows], dtype=torch.int64).cumsum(0)

    def add(self, new: Points, seen_rows: np.ndarray, cells: int, observed: bool = False) -> "LatentMap":
        """Return a map with additional points.

        New points start new blocks, unless the newest block of their cell is small; that one is then replaced. A write
        therefore copies little, and the number of blocks stays low.

        Args:
            new: the points, not quantised; ids in ``[next_id, next_id + cells)``, or from ``next_observed``.
            seen_rows: int64, rows of the blocks that the frame shows; unique, ascending.
            cells: number of ids that the frame reserves.
            observed: whether the frame was observed, not generated.
        """
        existing = len(self.blocks)
        next_id, next_observed = self.next_id + cells * (not observed), self.next_observed + cells * observed
        if not len(new.ids):
            return replace(self, seen=self._seen(seen_rows), next_id=next_id, next_observed=next_observed)
        keys, order = torch.sort(block_keys(new.xyz, new.footprint, self.block_size), stable=True)
        unique, counts = (part.cpu().numpy() for part in torch.unique_consecutive(keys, return_counts=True))
        if counts.max() > BLOCK_POINTS:  # sorts along a curve, so that each block of a cell is compact
            along = curve(new.xyz[order], self._cells(unique, counts, order.device)).argsort(stable=True)
            order = order[along[keys[along].argsort(stable=True)]]
        sizes = [min(BLOCK_POINTS, n - start) for n in counts.tolist() for start in range(0, n, BLOCK_POINTS)]
        keys_of_pieces = np.repeat(unique, -(-counts // BLOCK_POINTS))
        columns = self._coded(Points(*(column[order].contiguous() for column in new)), unique, counts)
        boxes = boxes_of(self._decoded(columns.xyz, unique, counts), sizes)
        rows = self._rows_for(keys_of_pieces, np.array(sizes))
        joined = rows < existing
        before = self.blocks.extents.array()[rows[joined]]
        boxes[joined, :3] = np.minimum(boxes[joined, :3], before[:, :3])
        boxes[joined, 3:] = np.maximum(boxes[joined, 3:], before[:, 3:6])
        blocks = []
        for row, key, *piece in zip(
            rows.tolist(), keys_of_pieces.tolist(), *(c.split(sizes) for c in columns), strict=True
        ):
            if row < existing:
                blocks.append(Block(key, *map(torch.cat, zip(self.blocks[row][1:], piece, strict=True))))
            else:
                blocks.append(
                    Block(key, *(column.clone() for column in piece))
                )  # a slice would keep the whole tensor alive
        ascending = np.argsort(rows)
        rows = rows[ascending]
        return replace(
            self,
            blocks=self.blocks.replace(rows, [blocks[i] for i in ascending], boxes[ascending], self.block_size),
            seen=self._seen(np.union1d(seen_rows, rows)),
            next_id=next_id,
            next_observed=next_observed,
        )

    def without(self, rows: Sequence[int], gone: Tensor) -> "LatentMap":
        """A map that lacks some points; only blocks that hold one of them are made anew.

        Args:
            rows: blocks, ascending.
            gone: bool ``[N]``, for each point of ``select(rows)``.
        """
        touched, blocks, pieces = [], [], gone.split([len(self.blocks[row].ids) for row in rows])
        for row, own in zip(rows, pieces, strict=True):
            if own.any():
                key, *columns = self.blocks[row]
                touched.append(row)
                blocks.append(Block(key, *(column[~own] for column in columns)))
        if not touched:
            return self
        at, lengths = np.array(touched), [len(block.ids) for block in blocks]
        keys = self.blocks.table.array()[at, KEY]
        xyz = self._decoded(torch.cat([block.xyz for block in blocks]), keys, np.array(lengths))
        changed = replace(self, blocks=self.blocks.replace(at, blocks, boxes_of(xyz, lengths), self.block_size))
        empty = at[np.array(lengths) == 0]
        if not len(empty):
            return changed
        kept = np.setdiff1d(np.arange(len(self.blocks)), empty)
        return replace(changed, blocks=changed.blocks.take(kept), seen=PersistentArray.of(self.seen.array()[kept]))

    def _seen(self, rows: np.ndarray) -> PersistentArray:
        """Return :attr:`seen` after the next frame has seen some blocks; rows ascend."""
        return self.seen.replace(rows, np.full(len(rows), self.next_id))

    def _coded(self, new: Points, keys: np.ndarray, lengths: np.ndarray) -> Points:
        """Return points as blocks store them; points come in runs of one key each."""
        if not self.compact:
            return new
        cells = self._cells(keys, lengths, new.xyz.device)
        return new._replace(xyz=codes_of(new.xyz, cells), features=coded_features(new.features))

    def _rows_for(self, keys: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Return the row of each piece: the newest block of its key if that is small, else a new row.

        Args:
            keys: int64 ``[n]``, ascending.
            sizes: int64 ``[n]``, number of points of each piece.
        """
        table = self.blocks.table.array()
        newest = np.full(len(keys), -1)
        at = np.searchsorted(keys, table[:, KEY]).clip(max=len(keys) - 1)  # first piece of each key
        known = np.flatnonzero(keys[at] == table[:, KEY])
        np.maximum.at(newest, at[known], known)
        held = np.append(table[:, LENGTH], BLOCK_POINTS)[newest]  # -1 reads the last entry: no block, no room
        joins = (held + sizes <= BLOCK_POINTS) & (held <= np.maximum(sizes, _FEW))
        rows = len(self.blocks) + np.cumsum(~joins) - 1
        return np.where(joins, newest, rows)

    def evict(self, max_points: int) -> "LatentMap":
        """Return a map of at most ``max_points`` by removing whole blocks, least recently seen or written first.

        Among blocks last seen by the same frame the oldest is removed first, so the result depends on the map alone.
        """
        if self.points <= max_points:
            return self
        seen = self.seen.array()
        oldest = np.argsort(seen, kind="stable")
        gone = np.cumsum(self.blocks.table.array()[oldest, LENGTH])
        enough = int(np.searchsorted(gone, self.points - max_points)) + 1
        kept = np.sort(oldest[enough:])
        return replace(self, blocks=self.blocks.take(kept), seen=PersistentArray.of(seen[kept]))

    def tensors(self) -> dict[str, Tensor]:
        """Return the map as named tensors for storage; :meth:`from_tensors` is the inverse."""
        table = self.blocks.table.array()
        return {
            **{name: self._stored(name) for name in Points._fields},
            "lengths": torch.from_numpy(table[:, LENGTH].copy()),
            "keys": torch.from_numpy(table[:, KEY].copy()),
            "seen": torch.from_numpy(self.seen.array().copy()),
            "next_id": torch.tensor([self.next_id]),
            "next_observed": torch.tensor([self.next_observed]),
            "block_size": torch.tensor([self.block_size], dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "LatentMap":
        """Restore a map from the result of :meth:`tensors`.

        Raises:
            ValueError: if a tensor is missing or has a wrong type, shape or value.
        """
        if "next_observed" not in tensors:  # files of version 1, which did not tell observed points from others
            former = tensors.get("next_id", torch.zeros(1, dtype=torch.int64))
            tensors = tensors | {"next_observed": former, "next_id": torch.full_like(former, GENERATED)}
        check_tensors(tensors)
        compact = tensors["xyz"].dtype == torch.int16
        channels, block_size = tensors["features"].shape[1] - 2 * compact, float(tensors["block_size"])
        empty = cls.empty(channels, block_size, compact)
        keys, lengths = tensors["keys"].tolist(), tensors["lengths"].tolist()
        columns = zip(*(tensors[name].split(lengths) for name in Points._fields), strict=True)
        blocks = [
            Block(key, *(t.clone(memory_format=torch.contiguous_format) for t in column))
            for key, column in zip(keys, columns, strict=True)
        ]
        boxes = boxes_of(empty._decoded(tensors["xyz"], np.array(keys, np.int64), np.array(lengths, np.int64)), lengths)
        return replace(
            empty,
            blocks=empty.blocks.replace(np.arange(len(blocks)), blocks, boxes, block_size),
            seen=PersistentArray.of(tensors["seen"].cpu().numpy()),
            next_id=int(tensors["next_id"]),
            next_observed=int(tensors["next_observed"]),
        )
