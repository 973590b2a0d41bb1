"""The map: points that carry latents, as a persistent value made of blocks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.geometry import NEAR, Camera

BLOCK_POINTS = 1024  # points in a full block
_CELLS_PER_EDGE = 32  # a block is at least this many written cells wide: a surface facing the camera just fills one
_LEVELS = 64
_REACH = 1 << 18  # blocks on either side of the origin, per axis; farther points share the outermost
_FORMAT = "mirage_sim.latent_map.1"


class Block(NamedTuple):
    """Up to :data:`BLOCK_POINTS` points that lie close together. Never changed once made.

    Attributes:
        key: the spatial cell (level and integer coordinates, packed); several blocks share it where one overflowed.
        xyz: float32 ``[n, 3]`` metres, world frame.
        features: ``[n, C]``.
        ids: int64 ``[n]``, unique in the map; smaller is older.
        footprint: float32 ``[n]``, width in metres of the cell each point was written from.
    """

    key: int
    xyz: Tensor
    features: Tensor
    ids: Tensor
    footprint: Tensor


class Points(NamedTuple):
    """Points side by side, as :class:`Block` describes them."""

    xyz: Tensor
    features: Tensor
    ids: Tensor
    footprint: Tensor


def block_keys(xyz: Tensor, footprint: Tensor, block_size: float) -> Tensor:
    """The spatial cell of each point as one int64.

    The edge is ``block_size`` times a power of two, the smallest that is at least 32 footprints: a distant sky, written
    with huge footprints, falls into few large blocks.

    Args:
        xyz: ``[n, 3]`` metres.
        footprint: ``[n]`` metres, positive.
        block_size: smallest edge in metres.
    """
    level = torch.frexp(footprint * (_CELLS_PER_EDGE / block_size)).exponent.clamp(0, _LEVELS - 1)
    edge = torch.ldexp(torch.full_like(footprint, block_size), level)
    index = (xyz / edge[:, None]).floor().clamp(-_REACH, _REACH - 1).long() + _REACH
    return ((level.long() * 2 * _REACH + index[:, 0]) * 2 * _REACH + index[:, 1]) * 2 * _REACH + index[:, 2]


def _box(xyz: Tensor) -> Tensor:
    """Lowest and highest corner ``[6]`` of points ``[n, 3]``."""
    return torch.cat([xyz.amin(0), xyz.amax(0)])


@dataclass(frozen=True)
class LatentMap:
    """Everything remembered. A value: its tensors are never written to, so keeping it is a snapshot.

    Attributes:
        blocks: the points.
        boxes: float32 ``[blocks, 6]``, lowest and highest corner of each block's points, metres.
        seen: int64 ``[blocks]``: the value of ``next_id`` when a write last added to or saw the block.
        next_id: ids from here on are free. Every frame written takes as many as the grid has cells, used or not, so
            that on one grid ``id = write number * cells + cell``.
        block_size: smallest edge of a block in metres.
        channels: ``C``.
    """

    blocks: tuple[Block, ...]
    boxes: Tensor
    seen: Tensor
    next_id: int
    block_size: float
    channels: int

    @classmethod
    def empty(cls, channels: int, block_size: float = 2.0) -> "LatentMap":
        """The map that remembers nothing.

        Raises:
            ValueError: if an argument is not positive.
        """
        if channels < 1:
            raise ValueError(f"channels: expected at least 1, got {channels}")
        if not 0.0 < block_size < float("inf"):
            raise ValueError(f"block_size: expected a positive length in metres, got {block_size}")
        return cls((), torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), 0, block_size, channels)

    @cached_property
    def points(self) -> int:
        """How many points there are."""
        return sum(len(block.ids) for block in self.blocks)

    @cached_property
    def nbytes(self) -> int:
        """Bytes held by the points and the tables over them."""
        tables = self.boxes.nbytes + self.seen.nbytes
        return tables + sum(tensor.nbytes for block in self.blocks for tensor in block[1:])

    def select(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """``xyz [N, 3]``, ``ids [N]`` and ``footprint [N]`` of some blocks, one after the other."""
        if not rows:
            device = self.boxes.device
            nothing = torch.zeros(0, dtype=torch.int64, device=device)
            return torch.zeros(0, 3, device=device), nothing, torch.zeros(0, device=device)
        chosen = [self.blocks[row] for row in rows]
        return (
            torch.cat([block.xyz for block in chosen]),
            torch.cat([block.ids for block in chosen]),
            torch.cat([block.footprint for block in chosen]),
        )

    def xyz(self) -> Tensor:
        """All points ``[N, 3]``, metres, world frame."""
        return self.select(range(len(self.blocks)))[0]

    def ids(self) -> Tensor:
        """All ids, int64 ``[N]``, in the order of :meth:`xyz`."""
        return self.select(range(len(self.blocks)))[1]

    def footprint(self) -> Tensor:
        """Width in metres of the cell each point was written from, ``[N]``, in the order of :meth:`xyz`."""
        return self.select(range(len(self.blocks)))[2]

    def features(self) -> Tensor:
        """All features ``[N, C]``, in the order of :meth:`xyz`."""
        if not self.blocks:
            return self._no_features(self.boxes.device)
        return torch.cat([block.features for block in self.blocks])

    def _no_features(self, device: torch.device) -> Tensor:
        """``[0, C]``, of the type of the features."""
        dtype = self.blocks[0].features.dtype if self.blocks else torch.float32
        return torch.zeros(0, self.channels, dtype=dtype, device=device)

    def to(self, device: torch.device | str) -> "LatentMap":
        """The same map on another device."""
        blocks = tuple(Block(block.key, *(tensor.to(device) for tensor in block[1:])) for block in self.blocks)
        boxes, seen = self.boxes.to(device), self.seen.to(device)
        return LatentMap(blocks, boxes, seen, self.next_id, self.block_size, self.channels)

    def cull(self, camera: Camera) -> list[int]:
        """Rows of the blocks that may have points in the picture of one camera.

        Conservative: a block is left out only where every corner of its box lies clearly on the outer side of one and
        the same plane of the frustum; on rounding's doubt it stays.
        """
        if not self.blocks:
            return []
        height, width = camera.size
        which = [[i, j, k] for i in (0, 3) for j in (1, 4) for k in (2, 5)]
        corners = self.boxes[:, which] - camera.c2w[:3, 3]
        x, y, z = (corners @ camera.c2w[:3, :3]).unbind(-1)
        K = camera.K
        fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
        # a point is in the picture only if all five are positive; they are linear, so a box is beyond a plane where
        # all its corners are
        sides = torch.stack(
            [z - NEAR, fx * x + cx * z, (width - cx) * z - fx * x, fy * y + cy * z, (height - cy) * z - fy * y]
        )
        scale = fx + fy + cx.abs() + cy.abs() + (1.0 + width + height)
        slack = 1e-5 * scale * corners.abs().sum(-1).amax(-1)
        inside = (sides.amax(-1) >= -slack).all(0)
        return inside.nonzero().squeeze(1).tolist()

    def features_of(self, rows: Sequence[int], index: Tensor) -> Tensor:
        """Features ``[n, C]`` of points by their position in ``select(rows)``, touching only the blocks that hold them.

        Args:
            rows: the blocks that were selected.
            index: int64 ``[n]``.
        """
        if not len(index):
            return self._no_features(index.device)
        ends = self._ends(rows).to(index.device)
        owners, compact = torch.unique(torch.searchsorted(ends, index, right=True), return_inverse=True)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        sizes = (ends - starts)[owners]
        at = index - starts[owners][compact] + (sizes.cumsum(0) - sizes)[compact]
        return torch.cat([self.blocks[rows[i]].features for i in owners.tolist()])[at]

    def rows_of(self, rows: Sequence[int], index: Tensor) -> Tensor:
        """Rows of the blocks that hold points, given by their position in ``select(rows)``; unique, ascending."""
        ends = self._ends(rows).to(index.device)
        owners = torch.unique(torch.searchsorted(ends, index, right=True))
        return torch.tensor(rows, dtype=torch.int64, device=index.device)[owners]

    def _ends(self, rows: Sequence[int]) -> Tensor:
        """Where in ``select(rows)`` each block ends, int64 ``[blocks]``."""
        return torch.tensor([len(self.blocks[row].ids) for row in rows], dtype=torch.int64).cumsum(0)

    def add(self, new: Points, seen_rows: Tensor, cells: int) -> "LatentMap":
        """A map that also holds these points; only the blocks they fall into are made anew.

        Args:
            new: the points; ids in ``[next_id, next_id + cells)``.
            seen_rows: rows of the blocks that the frame showed.
            cells: how many ids the frame takes.
        """
        device = new.xyz.device
        seen = self.seen.to(device, copy=True)
        seen[seen_rows.to(device)] = self.next_id
        boxes = self.boxes.to(device)
        next_id = self.next_id + cells
        if not len(new.ids):
            return LatentMap(self.blocks, boxes, seen, next_id, self.block_size, self.channels)
        blocks = list(self.blocks)
        last = {block.key: row for row, block in enumerate(blocks)}  # of blocks with one key only the last has room
        keys = block_keys(new.xyz, new.footprint, self.block_size)
        order = torch.argsort(keys, stable=True)
        unique, counts = torch.unique_consecutive(keys[order], return_counts=True)
        fresh: dict[int, Block] = {}
        for key, part in zip(unique.tolist(), order.split(counts.tolist()), strict=True):
            row = last.get(key)
            columns: list[Tensor] = [tensor[part] for tensor in new]
            if row is not None and len(blocks[row].ids) < BLOCK_POINTS:
                columns = [torch.cat(pair) for pair in zip(blocks[row][1:], columns, strict=True)]
            else:
                row = None
            pieces = list(zip(*(column.split(BLOCK_POINTS) for column in columns), strict=True))
            for piece in pieces:
                # a slice would keep the whole alive
                block = Block(key, *(column.clone() if len(pieces) > 1 else column for column in piece))
                if row is None:
                    row = len(blocks)
                    blocks.append(block)
                else:
                    blocks[row] = block
                fresh[row] = block
                row = None
        rows = torch.tensor(list(fresh), device=device)
        grown = len(blocks) - len(self.blocks)
        boxes = torch.cat([boxes, boxes.new_zeros(grown, 6)])
        boxes[rows] = torch.stack([_box(block.xyz) for block in fresh.values()])
        seen = torch.cat([seen, seen.new_zeros(grown)])
        seen[rows] = self.next_id
        return LatentMap(tuple(blocks), boxes, seen, next_id, self.block_size, self.channels)

    def evict(self, max_points: int) -> "LatentMap":
        """A map of at most ``max_points``: whole blocks go, those seen or written longest ago first.

        Among blocks last seen by the same frame the one made first goes first, so the choice is a function of the map.
        """
        if self.points <= max_points:
            return self
        seen = self.seen.tolist()
        excess = self.points - max_points
        gone = set()
        for row in sorted(range(len(self.blocks)), key=lambda row: (seen[row], row)):
            if excess <= 0:
                break
            gone.add(row)
            excess -= len(self.blocks[row].ids)
        kept = [row for row in range(len(self.blocks)) if row not in gone]
        rows = torch.tensor(kept, dtype=torch.int64, device=self.boxes.device)
        blocks = tuple(self.blocks[row] for row in kept)
        return LatentMap(blocks, self.boxes[rows], self.seen[rows], self.next_id, self.block_size, self.channels)

    def tensors(self) -> dict[str, Tensor]:
        """The whole map as named tensors, to be stored; :meth:`from_tensors` is the inverse."""
        xyz, ids, footprint = self.select(range(len(self.blocks)))
        return {
            "xyz": xyz,
            "features": self.features(),
            "ids": ids,
            "footprint": footprint,
            "lengths": torch.tensor([len(block.ids) for block in self.blocks], dtype=torch.int64),
            "keys": torch.tensor([block.key for block in self.blocks], dtype=torch.int64),
            "seen": self.seen,
            "next_id": torch.tensor([self.next_id]),
            "block_size": torch.tensor([self.block_size], dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "LatentMap":
        """The map that :meth:`tensors` described.

        Raises:
            ValueError: if a tensor is missing, or has a wrong type, size or value.
        """
        _check(tensors)
        lengths = tensors["lengths"].tolist()
        columns = zip(*(tensors[name].split(lengths) for name in Points._fields), strict=True)
        keys = tensors["keys"].tolist()
        blocks = tuple(Block(key, *(t.clone() for t in column)) for key, column in zip(keys, columns, strict=True))
        xyz = tensors["xyz"]
        boxes = torch.stack([_box(block.xyz) for block in blocks]) if blocks else xyz.new_zeros(0, 6)
        next_id, block_size = int(tensors["next_id"]), float(tensors["block_size"])
        return cls(blocks, boxes, tensors["seen"], next_id, block_size, tensors["features"].shape[1])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map to a safetensors file, which appears whole or not at all."""
        path = Path(path)
        partial = path.with_name(f"{path.name}.partial{os.getpid()}")
        save_file({name: tensor.cpu() for name, tensor in self.tensors().items()}, partial, {"format": _FORMAT})
        partial.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LatentMap":
        """Read a map that :meth:`save` wrote.

        Raises:
            ValueError: if the file is truncated, foreign or inconsistent.
        """
        try:
            with safe_open(path, framework="pt") as file:
                form = (file.metadata() or {}).get("format")
                if form != _FORMAT:
                    raise ValueError(f"{path}: expected a map of format {_FORMAT}, got {form}")
                return cls.from_tensors({name: file.get_tensor(name) for name in file.keys()})
        except SafetensorError as error:
            raise ValueError(f"{path}: not a whole safetensors file ({error})") from error


def _check(tensors: dict[str, Tensor]) -> None:
    """Raise ValueError unless these tensors make a map."""
    i64, f32 = torch.int64, torch.float32
    dtypes = {"xyz": f32, "ids": i64, "footprint": f32, "lengths": i64, "keys": i64, "seen": i64, "next_id": i64}
    expected = {*dtypes, "features", "block_size"}
    if set(tensors) != expected:
        raise ValueError(f"map: expected tensors {sorted(expected)}, got {sorted(tensors)}")
    for name, dtype in dtypes.items():
        if tensors[name].dtype != dtype:
            raise ValueError(f"map: expected {name} of {dtype}, got {tensors[name].dtype}")
    n, blocks = tensors["ids"].numel(), tensors["lengths"].numel()
    channels = tensors["features"].shape[-1] if tensors["features"].dim() == 2 else 0
    shapes: dict[str, list[int]] = {"xyz": [n, 3], "features": [n, channels], "ids": [n], "footprint": [n]}
    shapes |= {"lengths": [blocks], "keys": [blocks], "seen": [blocks], "next_id": [1], "block_size": [1]}
    for name, shape in shapes.items():
        if list(tensors[name].shape) != shape:
            raise ValueError(f"map: expected {name} of shape {shape}, got {list(tensors[name].shape)}")
    lengths, ids, next_id = tensors["lengths"], tensors["ids"], int(tensors["next_id"])
    if channels < 1 or not 0 < float(tensors["block_size"]) < float("inf") or not 0 <= next_id < 1 << 62:
        raise ValueError("map: expected channels and block_size to be positive and next_id in [0, 2^62)")
    if int(lengths.sum()) != n or bool(((lengths < 1) | (lengths > BLOCK_POINTS)).any()):
        raise ValueError(f"map: expected block lengths in [1, {BLOCK_POINTS}] that add up to {n} points")
    if not bool(torch.isfinite(tensors["xyz"]).all()) or not bool((tensors["footprint"] > 0).all()):
        raise ValueError("map: expected finite points with positive footprints")
    if bool(((ids < 0) | (ids >= next_id)).any()) or len(ids.unique()) != n:
        raise ValueError(f"map: expected unique ids in [0, {next_id})")
