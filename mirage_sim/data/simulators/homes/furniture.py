"""Furniture: meshes with a name, a category and a size."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mirage_sim.data.simulators.homes.scene import Mesh
from mirage_sim.paths import user_cache

_ONE_SURFACE = 0.02  # metres of height
HELD_OUT_REMAINDER = 9  # pieces whose index leaves it when divided by 10 are in no training scene


@dataclass(frozen=True)
class Piece:
    """A piece of furniture, a door or a window.

    Attributes:
        name: unique, such as ``"Scopia#chair_1"``.
        index: number in its catalogue (``9`` of ``id#9``).
        category: one of :data:`CATEGORIES <mirage_sim.data.simulators.homes.furniture_kinds.CATEGORIES>`.
        size: width (x), height (y), depth (z), metres.
        elevation: of its bottom above the floor, metres.
        mesh: in the piece's own frame: x to the right of somebody who faces it, y up, its front towards +z; the origin
            lies below the centre of its footprint, at its bottom. ``mesh.layer`` counts ``textures`` from 0.
        textures: uint8 ``[L, TEXTURE_SIZE, TEXTURE_SIZE, 4]``; layer 0 is white.
        credit: author and licence.
    """

    name: str
    index: int
    category: str
    size: tuple[float, float, float]
    elevation: float
    mesh: Mesh
    textures: np.ndarray
    credit: str

    @property
    def held_out(self) -> bool:
        """Whether no training scene may show it."""
        return self.index % 10 == HELD_OUT_REMAINDER

    def extent(self, yaw: float) -> tuple[float, float]:
        """Sides along x and z of the box around the footprint of the piece turned by ``yaw``, metres."""
        cos, sin = abs(float(np.cos(yaw))), abs(float(np.sin(yaw)))
        width, _, depth = self.size
        return width * cos + depth * sin, width * sin + depth * cos

    @cached_property
    def table_top(self) -> float:
        """Height above the bottom of the highest large level surface, metres: taps and backs may reach higher."""
        corners = self.mesh.positions[self.mesh.faces].astype(np.float64)
        height = corners[..., 1].max(axis=1)
        level = height - corners[..., 1].min(axis=1) < 0.01
        area = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 1]) / 2
        bins = np.round(height / _ONE_SURFACE).astype(np.int64).clip(0)
        areas = np.bincount(bins[level], weights=area[level], minlength=1)
        large = np.flatnonzero(areas > 0.3 * self.size[0] * self.size[2])
        return float(height[level & (bins == large[-1])].max()) if len(large) else self.size[1]


class Placement(NamedTuple):
    """A piece at its place.

    Attributes:
        piece: what stands there.
        room: number of the room.
        x, z: centre of its footprint, metres.
        yaw: radians about y; 0 shows its front towards +z, pi / 2 towards +x.
        elevation: of its bottom above the floor, metres.
        scale: by which its size is multiplied: width, height, depth.
    """

    piece: Piece
    room: int
    x: float
    z: float
    yaw: float
    elevation: float
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Furniture:
    """Prepared furniture.

    Attributes:
        pieces: all of it, in the order of the catalogues.
        digest: SHA-256 of its contents, in hexadecimal.
    """

    pieces: tuple[Piece, ...]
    digest: str

    def of(self, category: str) -> tuple[Piece, ...]:
        """The pieces of a category."""
        return tuple(piece for piece in self.pieces if piece.category == category)


def load_furniture(folder: str | Path | None = None) -> Furniture:
    """Read what ``mirage prepare furniture`` made.

    Args:
        folder: that holds it; None for the user's cache.

    Raises:
        ValueError: if it is missing, damaged, or of another version.
    """
    from mirage_sim.data.simulators.homes.furniture_cache import load_pieces

    return Furniture(*load_pieces(user_cache("furniture") if folder is None else Path(folder)))


def procedural_pieces() -> tuple[Piece, ...]:
    """Pieces made in code, several of every category that rooms need. The same call gives the same pieces."""
    from mirage_sim.data.simulators.homes.procedural import procedural_pieces as make

    return make()
