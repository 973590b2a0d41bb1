"""Models of furniture: reading OBJ files, reducing their triangles, and converting them to meshes."""

import io
import posixpath
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from mirage_sim.data.simulators.homes.furniture.catalogue import Archive, Entry
from mirage_sim.data.simulators.homes.furniture.thinning import collapse_edges
from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, Mesh, face_normals, unit
from mirage_sim.models.pretrained import require

MAX_MODEL_FACES = 300_000
MAX_IMAGE_SIDE = 8192
MAX_MATERIALS = 256
MAX_REPEATS = 64  # repeats of a texture over a surface
CREASE_DEG = 50.0  # faces that meet at a smaller angle form one smooth surface
_EXTRA = "'mirage_sim[homes]'"


@dataclass(frozen=True)
class Material:
    """Colour (sRGB, 0 to 1), opacity (0 to 1) and texture (uint8 ``[S, S, 4]``, or None for white) of a surface."""

    colour: tuple[float, float, float]
    opacity: float
    texture: np.ndarray | None


@dataclass(frozen=True)
class Model:
    """A triangle mesh with attributes at the corners of its faces.

    Attributes:
        positions: float64 ``[V, 3]`` of the vertices, all different.
        faces: int64 ``[F, 3]``, indices of vertices.
        normals: float64 ``[F, 3, 3]`` of the corners.
        uv: float64 ``[F, 3, 2]`` of the corners.
        material: int64 ``[F]``, indices into ``materials``.
        materials: the materials.
    """

    positions: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    materials: tuple[Material, ...]


class _Files:
    """A resolver for trimesh that reads only files of an archive, relative to one folder of it.

    Some models name files of their author's machine; trimesh then leaves the texture out. It also hides errors, so the
    last one is kept in ``error``.
    """

    def __init__(self, archive: Archive, folder: str) -> None:
        self.archive, self.folder = archive, folder
        self.error: ValueError | None = None

    def get(self, name: str) -> bytes:
        path = posixpath.normpath(f"{self.folder}/{name}")
        if path not in self.archive:
            raise FileNotFoundError(path)
        try:
            return self.archive.read(path)
        except ValueError as error:
            self.error = error
            raise

    __getitem__ = get


def read_model(archive: Archive, path: str) -> Model:
    """Read an OBJ file and its materials.

    Args:
        archive: the archive that holds the file.
        path: of the file in the archive.

    Raises:
        ValueError: if the file is not a valid OBJ file or is too large.
    """
    obj = require("trimesh.exchange.obj", _EXTRA)
    data = archive.read(path)
    if (count := data.count(b"\nf ")) > MAX_MODEL_FACES:
        raise ValueError(f"{path}: expected at most {MAX_MODEL_FACES} faces, got {count}")
    files = _Files(archive, path.rpartition("/")[0])
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            parts = obj.load_obj(io.BytesIO(data), resolver=files, group_material=True)["geometry"]
    except Exception as error:  # trimesh raises all kinds of errors for invalid files
        raise ValueError(f"{path}: expected an OBJ file: {type(error).__name__} {error}") from error
    if files.error:
        raise files.error
    if not parts:
        raise ValueError(f"{path}: expected triangles, got none")
    corners = [_corners(path, part) for _, part in sorted(parts.items())]
    materials = tuple(_material(path, part["visual"]) for _, part in sorted(parts.items()))
    material = np.repeat(np.arange(len(corners)), [len(part[0]) for part in corners])
    positions, normals, uv = (np.concatenate(values) for values in zip(*corners, strict=True))
    return _weld(path, positions, normals, uv, material, materials)


def _corners(path: str, part: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions, normals and texture coordinates of a part's corners; normals missing in the file are 0."""
    polygons, vertices = part["faces"], np.asarray(part["vertices"], np.float64)
    faces = np.concatenate([polygons[:, [0, i, i + 1]] for i in range(1, polygons.shape[1] - 1)])
    if faces.min(initial=0) < 0 or faces.max(initial=-1) >= len(vertices):
        raise ValueError(f"{path}: expected faces of {len(vertices)} vertices, got {faces.min()} to {faces.max()}")
    normals = np.asarray(part.get("vertex_normals", np.zeros_like(vertices)), np.float64)
    uv = getattr(part["visual"], "uv", None)
    uv = np.zeros((len(vertices), 2)) if uv is None or len(uv) != len(vertices) else np.asarray(uv, np.float64)[:, :2]
    return vertices[faces], normals[faces], uv[faces]


def _material(path: str, visual: Any) -> Material:
    source = getattr(visual, "material", None)
    values = getattr(source, "kwargs", {})
    kd = values.get("kd")
    colour = tuple(kd) if isinstance(kd, list) and len(kd) == 3 else (0.8, 0.8, 0.8)
    opacity = float(values.get("d", ["1"])[0])
    if not all(0 <= value <= 1 for value in (*colour, opacity)):
        raise ValueError(f"{path}: expected colours and opacities from 0 to 1, got {colour} and {opacity}")
    image = getattr(source, "image", None)
    if image is None:
        return Material(colour, opacity, None)
    # a grey beside a texture is an exporter's default and would darken it; other colours are intended
    is_grey = max(colour) - min(colour) < 0.02
    return Material((1.0, 1.0, 1.0) if is_grey else colour, opacity, _texture(path, image))


def _texture(path: str, image: Image.Image) -> np.ndarray:
    """Convert an image to a texture: uint8 ``[TEXTURE_SIZE, TEXTURE_SIZE, 4]``."""
    if max(image.size) > MAX_IMAGE_SIDE:
        raise ValueError(f"{path}: expected images of at most {MAX_IMAGE_SIDE} pixels a side, got {image.size}")
    try:
        small = image.convert("RGBA").resize((TEXTURE_SIZE, TEXTURE_SIZE), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: expected whole images: {error}") from error
    return np.asarray(small)


def _weld(
    path: str,
    corners: np.ndarray,
    normals: np.ndarray,
    uv: np.ndarray,
    material: np.ndarray,
    materials: tuple[Material, ...],
) -> Model:
    """Merge corners at the same place, drop duplicate faces and faces without area, and compute missing normals."""
    if len(corners) > MAX_MODEL_FACES:
        raise ValueError(f"{path}: expected at most {MAX_MODEL_FACES} triangles, got {len(corners)}")
    if not np.isfinite(corners).all() or not np.isfinite(uv).all():
        raise ValueError(f"{path}: expected finite positions and texture coordinates")
    low, extent = corners.min((0, 1)), np.ptp(corners, axis=(0, 1)).max()
    grid = np.round((corners - low) / max(extent, 1e-12) * 2**20).astype(np.int64)
    _, first, inverse = np.unique(grid @ [1 << 42, 1 << 21, 1], return_index=True, return_inverse=True)
    faces = inverse.reshape(-1, 3)
    key = np.sort(faces, 1) @ [len(first) ** 2, len(first), 1]
    _, distinct = np.unique(key, return_index=True)  # some models have a second face for the other side
    kept = np.sort(distinct)
    positions = corners.reshape(-1, 3)[first]
    kept = kept[_has_area(positions, faces[kept])]
    model = Model(positions, faces[kept], normals[kept], uv[kept], material[kept], materials)
    if not len(model.faces):
        raise ValueError(f"{path}: expected triangles, got none")
    return _with_normals(model)


def _has_area(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return which triangles have an area: bool ``[F]``."""
    return (faces != np.roll(faces, 1, 1)).all(1) & (face_normals(positions, faces) != 0).any(1)


def _with_normals(model: Model) -> Model:
    """Return the model with unit normals at all corners, on the front side of their faces."""
    flat = face_normals(model.positions, model.faces)
    normals, sides = unit(np.where(np.isfinite(model.normals), model.normals, 0)), unit(flat)
    if (missing := (normals == 0).all(-1)).any():
        first, second, pairs = _edges(model.faces)
        smooth = (sides[first] * sides[second]).sum(1) > np.cos(np.radians(CREASE_DEG))
        label = _components(model.faces.size, pairs[smooth].reshape(-1, 2))
        total = np.zeros((model.faces.size, 3))
        np.add.at(total, label, np.repeat(flat, 3, 0))
        normals = np.where(missing[..., None], unit(total[label]).reshape(-1, 3, 3), normals)
    normals = np.where((normals == 0).all(-1, keepdims=True), sides[:, None], normals)
    away = (normals * flat[:, None]).sum(-1, keepdims=True) < 0
    return replace(model, normals=np.where(away, -normals, normals))


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pairs of faces that share an edge.

    Returns:
        The first and the second faces, int64 ``[E]``, and the numbers of their corners at the edge's ends, int64
        ``[E, 2 ends, 2 faces]``. Corner ``i`` of face ``f`` has number ``3 f + i``.
    """
    start = np.arange(faces.size)
    end = start.reshape(-1, 3)[:, [1, 2, 0]].ravel()
    vertex = faces.ravel()
    swap = vertex[start] > vertex[end]
    low, high = np.where(swap, end, start), np.where(swap, start, end)
    order = np.lexsort((vertex[high], vertex[low]))
    low, high = low[order], high[order]
    same = (vertex[low[1:]] == vertex[low[:-1]]) & (vertex[high[1:]] == vertex[high[:-1]])
    pairs = np.stack([np.stack([low[:-1], low[1:]], 1), np.stack([high[:-1], high[1:]], 1)], 1)[same]
    return pairs[:, 0, 0] // 3, pairs[:, 0, 1] // 3, pairs


def _components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Number the connected components of a graph of ``count`` nodes with these edges ``[P, 2]``: ``[count]``."""
    csgraph, sparse = require("scipy.sparse.csgraph", _EXTRA), require("scipy.sparse", _EXTRA)
    graph = sparse.coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), (count, count))
    label: np.ndarray = csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
    return label


def _charts(model: Model) -> np.ndarray:
    """Number the charts, connected surfaces of one material and continuous texture, of the faces: int64 ``[F]``."""
    first, second, pairs = _edges(model.faces)
    uv = model.uv.reshape(-1, 2)
    joined = (model.material[first] == model.material[second]) & (
        np.abs(uv[pairs[..., 0]] - uv[pairs[..., 1]]).max((1, 2)) < 1e-4
    )
    return _components(len(model.faces), np.stack([first, second], 1)[joined])


def thin(model: Model, limit: int) -> Model:
    """Reduce a model to about ``limit`` triangles or fewer.

    The remaining triangles keep their materials. The texture coordinates of a corner come from the nearest of the
    collapsed triangles in the same chart, so that textures neither stretch nor jump to another part of their image.
    """
    if len(model.faces) <= limit:
        return model
    root = collapse_edges(model.positions, model.faces, model.material, limit)
    ends = root[model.faces]
    left = np.flatnonzero(_has_area(model.positions, ends))
    if any(material.texture is not None for material in model.materials):
        uv = _transfer_uv(model, ends, left)
    else:
        uv = model.uv[left]
    normals = np.zeros((len(left), 3, 3))  # computed anew: the old ones would bend large, flat triangles
    return _with_normals(Model(model.positions, ends[left], normals, uv, model.material[left], model.materials))


def _transfer_uv(model: Model, ends: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return texture coordinates ``[L, 3, 2]`` at the corners of the remaining triangles.

    Args:
        model: the original model.
        ends: int64 ``[F, 3]``, the vertices that the vertices of its faces collapsed into.
        left: int64 ``[L]``, the remaining faces.
    """
    chart, corners = _charts(model), model.positions[ends[left].ravel()]
    key = chart[:, None] * len(model.positions) + ends
    order = np.argsort(key, axis=None, kind="stable")
    sorted_keys, wanted = key.ravel()[order], key[left].ravel()
    first, last = np.searchsorted(sorted_keys, wanted), np.searchsorted(sorted_keys, wanted, side="right")
    query = np.repeat(np.arange(len(wanted)), last - first)
    face = order[np.arange(len(query)) - np.repeat(np.cumsum(last - first) - last, last - first)] // 3
    weights, distance = _nearest(corners[query], model.positions[model.faces[face]])
    best = np.lexsort((face, distance, query))[np.searchsorted(query, np.arange(len(wanted)))]
    return (weights[best, :, None] * model.uv[face[best]]).sum(1).reshape(-1, 3, 2)


def _nearest(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the point of each triangle ``[N, 3, 3]`` near a point ``[N, 3]``: barycentric weights and distance."""
    a, b, c = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0], points - triangles[:, 0]
    aa, ab, bb, ac, bc = (np.einsum("ni,ni->n", x, y) for x, y in ((a, a), (a, b), (b, b), (a, c), (b, c)))
    area = np.maximum(aa * bb - ab * ab, 1e-18)
    v, w = (bb * ac - ab * bc) / area, (aa * bc - ab * ac) / area
    weights = np.stack([1 - v - w, v, w], 1).clip(0)
    weights /= weights.sum(1, keepdims=True)
    return weights, np.linalg.norm(points - (weights[..., None] * triangles).sum(1), axis=1)


def to_mesh(model: Model, entry: Entry) -> tuple[Mesh, np.ndarray]:
    """Rotate a model, scale it to the size in the catalogue and move it to the frame of a :class:`Piece`.

    Glass of doors, windows and showers is left out; all other glass is opaque.

    Returns:
        The mesh and its textures.

    Raises:
        ValueError: if no triangle is left, or there are more materials than the cache can number.
    """
    transparent = np.array([material.opacity < 0.6 for material in model.materials])[model.material]
    shown = ~transparent if entry.category in ("door", "window", "shower") else np.ones_like(transparent)
    if not shown.any() or len(model.materials) >= MAX_MATERIALS:
        raise ValueError(f"{entry.model}: expected something to show, of fewer than {MAX_MATERIALS} materials")
    positions = model.positions @ entry.rotation.T
    low, high = positions.min(0), positions.max(0)
    scale = np.array(entry.size) / np.maximum(high - low, 1e-9)
    positions = (positions - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]) * scale
    normals = unit(model.normals @ entry.rotation.T / scale)
    textures = [np.full((TEXTURE_SIZE, TEXTURE_SIZE, 4), 255, np.uint8)]
    layers = np.zeros(len(model.materials), np.int64)
    for number, material in enumerate(model.materials):
        if material.texture is not None and (shown & (model.material == number)).any():
            layers[number] = len(textures)
            textures.append(material.texture)
    colours = np.round(np.array([material.colour for material in model.materials]) * 255)
    of_face = model.material[shown]
    uv = _small_uv(model.uv[shown], of_face, layers)
    corners = np.concatenate(
        [
            np.round(positions[model.faces[shown]].reshape(-1, 3), 5),
            np.round(normals[shown].reshape(-1, 3) * 127) / 127,
            np.round(uv.reshape(-1, 2), 3),
            np.repeat(np.column_stack([layers, colours])[of_face], 3, 0),
        ],
        1,
    )
    vertices, faces = np.unique(corners, axis=0, return_inverse=True)
    vertices[:, 3:6] = unit(vertices[:, 3:6])
    return Mesh.from_rows(vertices, faces.reshape(-1, 3)), np.stack(textures)


def _small_uv(uv: np.ndarray, material: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Shift texture coordinates ``[F, 3, 2]`` by whole repeats so that they are small; untextured faces get 0."""
    lowest = np.full((len(layers), 2), np.inf)
    np.minimum.at(lowest, np.repeat(material, 3), uv.reshape(-1, 2))
    uv = np.where((layers[material] > 0)[:, None, None], uv - np.floor(lowest)[material][:, None], 0)
    far = (uv > MAX_REPEATS).any((1, 2), keepdims=True)  # the half precision of the cache is too coarse for these
    return np.where(far, uv - np.floor(uv.min(1, keepdims=True)), uv).clip(max=MAX_REPEATS)
