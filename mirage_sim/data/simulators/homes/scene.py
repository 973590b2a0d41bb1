"""What a renderer draws: triangles with textures, and the light that falls on them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

TEXTURE_SIZE = 64  # pixels of a texture's side


@dataclass(frozen=True)
class Mesh:
    """Triangles.

    Attributes:
        positions: float32 ``[V, 3]``, metres, y up.
        normals: float32 ``[V, 3]``, unit length.
        uv: float32 ``[V, 2]``, in repeats of the texture, (0, 0) at its lower left corner as in OBJ files.
        layer: int32 ``[V]``, number of the texture; the vertices of a triangle share it.
        colour: uint8 ``[V, 3]``, sRGB; multiplies the texture.
        faces: int32 ``[F, 3]``, counter-clockwise seen from outside; both sides are drawn.
    """

    positions: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    layer: np.ndarray
    colour: np.ndarray
    faces: np.ndarray

    @cached_property
    def is_flat(self) -> bool:
        """Whether all vertices lie in one plane and share its normal."""
        normal = self.normals[0]
        return bool(np.abs(self.normals - normal).max() < 1e-4 and np.ptp(self.positions @ normal) < 1e-3)


@dataclass(frozen=True)
class Lamp:
    """A light that shines to all sides from a point, through doorways too. What is nearer than 0.35 m casts no shadow.

    Attributes:
        position: ``[x, y, z]``, metres.
        colour: linear RGB; 1 lights a white surface that faces it at 1 m fully.
    """

    position: tuple[float, float, float]
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Portal:
    """An opening in a wall, such as a doorway, through which one room is seen from another.

    Attributes:
        rooms: the numbers of the two rooms.
        corners: float ``[4, 3]``, metres; the whole opening, in the plane of the wall.
    """

    rooms: tuple[int, int]
    corners: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A home, ready to be drawn.

    Attributes:
        parts: meshes of walls, floors, ceilings and furniture. Each is drawn or culled as a whole: keep them small.
            A flat part, whose vertices share one plane, gets a light map: make each face of a wall, each floor and each
            ceiling a part of its own. The light of other parts is computed at their vertices.
        rooms: for each part, the number of the room that it stands in; -1 for what several rooms share, such as doors.
        textures: uint8 ``[L, TEXTURE_SIZE, TEXTURE_SIZE, 4]``, sRGB and alpha, row 0 on top. Below an alpha of half
            nothing is drawn. Layer 0 is white.
        lamps: lights.
        portals: openings between rooms. A camera in one room sees the parts of another only through these.
        daylight: linear RGB radiance of the sky that is seen, and shines, through windows.
        movers: meshes in frames of their own, drawn at poses given to every rendering.
    """

    parts: tuple[Mesh, ...]
    rooms: tuple[int, ...]
    textures: np.ndarray
    lamps: tuple[Lamp, ...]
    portals: tuple[Portal, ...] = ()
    daylight: tuple[float, float, float] = (1.6, 1.8, 2.0)
    movers: tuple[Mesh, ...] = ()
