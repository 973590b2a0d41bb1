"""Models of furniture: read from OBJ files, thinned, and made into meshes."""

import io
import posixpath
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, Mesh
from mirage_sim.data.simulators.homes.sh3f import Archive, Entry
from mirage_sim.data.simulators.homes.thinning import collapse_edges
from mirage_sim.models.pretrained import require

MAX_MODEL_FACES = 300_000
MAX_IMAGE_SIDE = 8192
MAX_MATERIALS = 256
MAX_REPEATS = 64  # of a texture over a surface
CREASE_DEG = 50.0  # faces that meet at a smaller angle are one smooth surface


@dataclass(frozen=True)
class Material:
    """Colour (sRGB, 0 to 1), opacity (0 to 1) and texture (uint8 ``[S, S, 4]``, None: white) of a surface."""

    colour: tuple[float, float, float]
    opacity: float
    texture: np.ndarray | None


@dataclass(frozen=True)
class Model:
    """Triangles with values at their corners.

    Attributes:
        positions: float64 ``[V, 3]``, all different.
        faces: int64 ``[F, 3]``.
        normals: float64 ``[F, 3, 3]`` of the corners.
        uv: float64 ``[F, 3, 2]`` of the corners.
        material: int64 ``[F]``.
        materials: what ``material`` counts.
    """

    positions: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    materials: tuple[Material, ...]


class _Files:
    """What trimesh may read: files of an archive, seen from one folder. Keeps the last error, which trimesh hides.

    Some models name files of their author's machine. Their materials have a colour only.
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
        archive: what holds it.
        path: inside the archive.

    Raises:
        ValueError: if it is no such file, is too large, or its numbers make no sense.
    """
    obj = require("trimesh.exchange.obj", "'mirage_sim[homes]'")
    data = archive.read(path)
    if (count := data.count(b"\nf ")) > MAX_MODEL_FACES:
        raise ValueError(f"{path}: expected at most {MAX_MODEL_FACES} faces, got {count}")
    files = _Files(archive, path.rpartition("/")[0])
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            parts = obj.load_obj(io.BytesIO(data), resolver=files, group_material=True)["geometry"]
    except Exception as error:  # whatever a foreign file does to a foreign reader
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
    """Positions, normals and texture coordinates of a part's corners; normals are 0 where the file has none."""
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
    # a grey that dims a texture is an exporter's default; a colour is meant
    dimmed = max(colour) - min(colour) < 0.02
    return Material((1.0, 1.0, 1.0) if dimmed else colour, opacity, _texture(path, image))


def _texture(path: str, image: Image.Image) -> np.ndarray:
    """An image as a texture: uint8 ``[TEXTURE_SIZE, TEXTURE_SIZE, 4]``."""
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
    """Join corners that lie at one place, drop faces without an area, and find normals where there are none."""
    if len(corners) > MAX_MODEL_FACES:
        raise ValueError(f"{path}: expected at most {MAX_MODEL_FACES} triangles, got {len(corners)}")
    if not np.isfinite(corners).all() or not np.isfinite(uv).all():
        raise ValueError(f"{path}: expected finite positions and texture coordinates")
    low, extent = corners.min((0, 1)), np.ptp(corners, axis=(0, 1)).max()
    grid = np.round((corners - low) / max(extent, 1e-12) * 2**20).astype(np.int64)
    _, first, inverse = np.unique(grid @ [1 << 42, 1 << 21, 1], return_index=True, return_inverse=True)
    faces = inverse.reshape(-1, 3)
    key = np.sort(faces, 1) @ [len(first) ** 2, len(first), 1]
    _, once = np.unique(key, return_index=True)  # some models show both sides by two faces
    whole = np.sort(once)
    positions = corners.reshape(-1, 3)[first]
    whole = whole[_solid(positions, faces[whole])]
    model = Model(positions, faces[whole], normals[whole], uv[whole], material[whole], materials)
    if not len(model.faces):
        raise ValueError(f"{path}: expected triangles, got none")
    return _with_normals(model)


def face_normals(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals of triangles, as long as twice their areas."""
    a, b, c = (positions[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def _solid(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Whether triangles have an area: bool ``[F]``."""
    return (faces != np.roll(faces, 1, 1)).all(1) & (face_normals(positions, faces) != 0).any(1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; those of no length stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _with_normals(model: Model) -> Model:
    """The model with normals at all corners, of length 1 and on the side that its faces show."""
    flat = face_normals(model.positions, model.faces)
    normals, sides = unit(np.where(np.isfinite(model.normals), model.normals, 0)), unit(flat)
    if (missing := (normals == 0).all(-1)).any():
        first, second, pairs = _edges(model.faces)
        smooth = (sides[first] * sides[second]).sum(1) > np.cos(np.radians(CREASE_DEG))
        label = components(model.faces.size, pairs[smooth].reshape(-1, 2))
        total = np.zeros((model.faces.size, 3))
        np.add.at(total, label, np.repeat(flat, 3, 0))
        normals = np.where(missing[..., None], unit(total[label]).reshape(-1, 3, 3), normals)
    normals = np.where((normals == 0).all(-1, keepdims=True), sides[:, None], normals)
    away = (normals * flat[:, None]).sum(-1, keepdims=True) < 0
    return replace(model, normals=np.where(away, -normals, normals))


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of faces that share an edge.

    Returns:
        The first and the second faces, int64 ``[E]``, and the numbers of their corners at the edge's ends, int64
        ``[E, 2 ends, 2 faces]``; corner ``i`` of face ``f`` has number ``3 f + i``.
    """
    start = np.arange(faces.size)
    end = start.reshape(-1, 3)[:, [1, 2, 0]].ravel()
    at = faces.ravel()
    turned = at[start] > at[end]
    low, high = np.where(turned, end, start), np.where(turned, start, end)
    order = np.lexsort((at[high], at[low]))
    low, high = low[order], high[order]
    same = (at[low[1:]] == at[low[:-1]]) & (at[high[1:]] == at[high[:-1]])
    pairs = np.stack([np.stack([low[:-1], low[1:]], 1), np.stack([high[:-1], high[1:]], 1)], 1)[same]
    return pairs[:, 0, 0] // 3, pairs[:, 0, 1] // 3, pairs


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """The least member of each node's connected component.

    Args:
        count: of nodes.
        pairs: int64 ``[P, 2]``, nodes that are joined.

    Returns:
        int64 ``[count]``.
    """
    label = np.arange(count)
    while True:
        ends = label[pairs]
        lowest = ends.min(1)
        if (ends == lowest[:, None]).all():
            return label
        for end in ends.T:
            np.minimum.at(label, end, lowest)
        while (label != label[label]).any():
            label = label[label]


def charts(model: Model) -> np.ndarray:
    """For each face, the number of the evenly textured surface that it is part of."""
    first, second, pairs = _edges(model.faces)
    uv = model.uv.reshape(-1, 2)
    joined = (model.material[first] == model.material[second]) & (
        np.abs(uv[pairs[..., 0]] - uv[pairs[..., 1]]).max((1, 2)) < 1e-4
    )
    return components(len(model.faces), np.stack([first, second], 1)[joined])


def thin(model: Model, limit: int) -> Model:
    """The model with at most about ``limit`` triangles.

    A triangle that is left keeps its material. The texture coordinates at its corners come from the nearest of the
    collapsed triangles of its own chart, so that textures neither stretch nor jump to another part of their image.
    """
    if len(model.faces) <= limit:
        return model
    root = collapse_edges(model.positions, model.faces, model.material, limit)
    ends = root[model.faces]
    left = np.flatnonzero(_solid(model.positions, ends))
    if any(material.texture is not None for material in model.materials):
        uv = _transfer_uv(model, ends, left)
    else:
        uv = model.uv[left]
    normals = np.zeros((len(left), 3, 3))  # those of the new shape: the old ones bend large, flat triangles
    return _with_normals(Model(model.positions, ends[left], normals, uv, model.material[left], model.materials))


def _transfer_uv(model: Model, ends: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Texture coordinates at the corners of the triangles that are left.

    Args:
        model: before.
        ends: int64 ``[F, 3]``, the vertices that those of its faces collapsed into.
        left: int64 ``[L]``, the faces that are left.
    """
    chart, corners = charts(model), model.positions[ends[left].ravel()]
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
    """Barycentric weights ``[N, 3]`` of points of triangles ``[N, 3, 3]`` near to points ``[N, 3]``, and distances."""
    a, b, c = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0], points - triangles[:, 0]
    aa, ab, bb, ac, bc = (np.einsum("ni,ni->n", x, y) for x, y in ((a, a), (a, b), (b, b), (a, c), (b, c)))
    area = np.maximum(aa * bb - ab * ab, 1e-18)
    v, w = (bb * ac - ab * bc) / area, (aa * bc - ab * ac) / area
    weights = np.stack([1 - v - w, v, w], 1).clip(0)
    weights /= weights.sum(1, keepdims=True)
    return weights, np.linalg.norm(points - (weights[..., None] * triangles).sum(1), axis=1)


def to_mesh(model: Model, entry: Entry) -> tuple[Mesh, np.ndarray]:
    """The mesh of a piece and its textures: turned, brought to its size, and put on its origin.

    Glass of doors, windows and showers is left out, so that one sees through; other glass is drawn as if opaque.

    Raises:
        ValueError: if nothing is left, or there are more materials than a cache can number.
    """
    clear = np.array([material.opacity < 0.6 for material in model.materials])[model.material]
    shown = ~clear if entry.category in ("door", "window", "shower") else np.ones_like(clear)
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
    of_face, uv = model.material[shown], model.uv[shown]
    shift = np.full((len(model.materials), 2), np.inf)
    np.minimum.at(shift, np.repeat(of_face, 3), uv.reshape(-1, 2))
    uv = np.where((layers[of_face] > 0)[:, None, None], uv - np.floor(shift)[of_face][:, None], 0)
    far = (uv > MAX_REPEATS).any((1, 2), keepdims=True)  # few and small, as a cache of half precision wants them
    uv = np.where(far, uv - np.floor(uv.min(1, keepdims=True)), uv).clip(max=MAX_REPEATS)
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
    mesh = Mesh(
        vertices[:, :3].astype(np.float32),
        unit(vertices[:, 3:6]).astype(np.float32),
        vertices[:, 6:8].astype(np.float32),
        vertices[:, 8].astype(np.int32),
        vertices[:, 9:].astype(np.uint8),
        faces.reshape(-1, 3).astype(np.int32),
    )
    return mesh, np.stack(textures)
