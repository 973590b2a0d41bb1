"""Scenes: the meshes, textures, lights and portals that the renderer draws."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

TEXTURE_SIZE = 64  # pixels of a texture's side


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        positions: float32 ``[V, 3]``, metres, y up.
        normals: float32 ``[V, 3]``, unit length.
        uv: float32 ``[V, 2]``, in repeats of the texture; (0, 0) is its lower left corner, as in OBJ files.
        layer: int32 ``[V]``, index of the texture; the three vertices of a triangle share it.
        colour: uint8 ``[V, 3]``, sRGB; it multiplies the texture.
        faces: int32 ``[F, 3]``, counter-clockwise seen from outside; both sides are drawn.
    """

    positions: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    layer: np.ndarray
    colour: np.ndarray
    faces: np.ndarray

    @classmethod
    def from_rows(cls, rows: np.ndarray, faces: np.ndarray) -> "Mesh":
        """Make a mesh of a table with a row per vertex: position, normal, uv, layer and colour, ``[V, 12]``."""
        return cls(
            rows[:, :3].astype(np.float32),
            rows[:, 3:6].astype(np.float32),
            rows[:, 6:8].astype(np.float32),
            rows[:, 8].astype(np.int32),
            rows[:, 9:].astype(np.uint8),
            faces.astype(np.int32),
        )

    @cached_property
    def is_flat(self) -> bool:
        """Whether all vertices lie in one plane and share its normal."""
        normal = self.normals[0]
        return bool(np.abs(self.normals - normal).max() < 1e-4 and np.ptp(self.positions @ normal) < 1e-3)


@dataclass(frozen=True)
class Lamp:
    """A point light. Surfaces nearer than 0.35 m, such as its shade, cast no shadow.

    Attributes:
        position: ``[x, y, z]``, metres.
        colour: linear RGB; at 1, a white surface that faces the lamp at 1 m has radiance 1.
    """

    position: tuple[float, float, float]
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Portal:
    """An opening in a wall, such as a doorway, through which one room is visible from another.

    Attributes:
        rooms: numbers of the two rooms.
        corners: float ``[4, 3]`` of the opening, in the plane of the wall, metres.
    """

    rooms: tuple[int, int]
    corners: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A home that can be rendered.

    Attributes:
        parts: meshes of walls, floors, ceilings and furniture. The renderer draws or culls each part as a whole, so
            parts should be small. A flat part (see :attr:`Mesh.is_flat`) gets a light map, so each face of a wall, each
            floor and each ceiling should be a separate part. Other parts are lit at their vertices.
        rooms: for each part, the number of its room; -1 for parts that several rooms share, such as doors.
        textures: uint8 ``[L, TEXTURE_SIZE, TEXTURE_SIZE, 4]``, sRGB and alpha, top row first. Texels with an alpha
            below one half are holes. Layer 0 is white.
        lamps: point lights.
        portals: openings between rooms. A camera in one room sees parts of another room only through portals.
        daylight: linear RGB radiance of the sky.
        movers: meshes in their own frames; every call to render them takes their poses.
    """

    parts: tuple[Mesh, ...]
    rooms: tuple[int, ...]
    textures: np.ndarray
    lamps: tuple[Lamp, ...]
    portals: tuple[Portal, ...] = ()
    daylight: tuple[float, float, float] = (1.6, 1.8, 2.0)
    movers: tuple[Mesh, ...] = ()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors ``[..., 3]`` to length 1; vectors of length 0 are left as they are."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def face_normals(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the normals of triangles, with lengths of twice their areas: ``[F, 3]``."""
    a, b, c = (positions[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def opaque(image: np.ndarray) -> np.ndarray:
    """Convert an image ``[H, W, 3]`` of numbers from 0 to 255 to a texture uint8 ``[H, W, 4]`` without holes."""
    alpha = np.full((*image.shape[:2], 1), 255, dtype=np.uint8)
    return np.ascontiguousarray(np.concatenate([np.clip(image, 0, 255).astype(np.uint8), alpha], axis=2))
