"""Pieces of furniture and where they stand."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mirage_sim.data.simulators.homes.scene import Mesh

_SAME_LEVEL = 0.02  # metres: surfaces whose heights differ by less count as one
HELD_OUT_REMAINDER = 9  # pieces whose index leaves this remainder when divided by 10 never appear in training


@dataclass(frozen=True)
class Piece:
    """A piece of furniture, a door or a window.

    Attributes:
        name: unique, such as ``"Scopia#chair_1"``.
        index: number in its catalogue (``9`` of ``id#9``).
        category: one of
            :data:`CATEGORIES <mirage_sim.data.simulators.homes.furniture.categories.CATEGORIES>`.
        size: width (x), height (y) and depth (z) in metres.
        elevation: height of its bottom above the floor, metres.
        mesh: in the frame of the piece: y is up, the front faces +z, x points right for an observer who faces the
            front, and the origin is at the bottom, below the centre of the footprint. ``mesh.layer`` indexes
            ``textures``.
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
        """Whether training never shows this piece."""
        return self.index % 10 == HELD_OUT_REMAINDER

    def extent(self, yaw: float) -> tuple[float, float]:
        """Return the sides along x and z of the footprint's bounding box after a turn by ``yaw``, metres."""
        cos, sin = abs(float(np.cos(yaw))), abs(float(np.sin(yaw)))
        width, _, depth = self.size
        return width * cos + depth * sin, width * sin + depth * cos

    @cached_property
    def table_top(self) -> float:
        """Height above the bottom of the highest large level surface, metres; taps and backs may reach higher."""
        corners = self.mesh.positions[self.mesh.faces].astype(np.float64)
        height = corners[..., 1].max(axis=1)
        level = height - corners[..., 1].min(axis=1) < 0.01
        area = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 1]) / 2
        bins = np.round(height / _SAME_LEVEL).astype(np.int64).clip(0)
        areas = np.bincount(bins[level], weights=area[level], minlength=1)
        large = np.flatnonzero(areas > 0.3 * self.size[0] * self.size[2])
        return float(height[level & (bins == large[-1])].max()) if len(large) else self.size[1]


class Placement(NamedTuple):
    """A piece and its pose in a home.

    Attributes:
        piece: the piece.
        room: number of the room, or ``OUTSIDE`` for doors and windows, which belong to two rooms.
        x, z: centre of the footprint, metres.
        yaw: radians about y; at 0 the front faces +z, at pi / 2 it faces +x.
        elevation: height of the bottom above the floor, metres.
        scale: factors of width, height and depth.
    """

    piece: Piece
    room: int
    x: float
    z: float
    yaw: float
    elevation: float
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def point(self, right: float, front: float) -> tuple[float, float]:
        """Return the place ``(x, z)`` at these offsets, metres, along the width and the depth of the piece."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return float(self.x + cos * right + sin * front), float(self.z - sin * right + cos * front)
