"""The furniture cache: prepared pieces in one safetensors file of quantised arrays."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mirage_sim.data.simulators.homes.furniture.categories import CATEGORIES
from mirage_sim.data.simulators.homes.furniture.pieces import Piece
from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, Mesh, unit
from mirage_sim.io import atomic_write
from mirage_sim.paths import user_cache

VERSION = 1
FILE = "furniture.safetensors"
UNIT = 5000  # steps per metre of a position
MAX_BYTES = 64 << 20

# dtype and shape without the first axis
ARRAYS: dict[str, tuple[type, tuple[int, ...]]] = {
    "positions": (np.int16, (3,)),  # 1/UNIT m
    "normals": (np.int8, (3,)),  # 1/127
    "uv": (np.float16, (2,)),
    "layer": (np.uint8, ()),
    "colour": (np.uint8, (3,)),
    "faces": (np.uint16, (3,)),  # indices of vertices within the piece
    "textures": (np.uint8, (TEXTURE_SIZE, TEXTURE_SIZE, 4)),  # the distinct textures of all pieces
    "layers": (np.uint16, ()),  # for each texture of each piece, its index in ``textures``
}
PIECE_ARRAYS = ("positions", "faces", "layers")  # the header stores their lengths for each piece


@dataclass(frozen=True)
class Furniture:
    """Prepared furniture.

    Attributes:
        pieces: all pieces, in the order of the catalogues.
        digest: SHA-256 of their contents, in hexadecimal.
    """

    pieces: tuple[Piece, ...]
    digest: str


def save_pieces(pieces: Sequence[Piece], folder: Path) -> str:
    """Write pieces to the cache file of a folder and replace what it held.

    Args:
        pieces: with different names.
        folder: created if it does not exist.

    Returns:
        The digest of their contents.
    """
    textures: dict[bytes, int] = {}
    packed: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    listed = []
    for piece in pieces:
        mesh = piece.mesh
        for name, values in {
            "positions": np.round(mesh.positions * UNIT),
            "normals": np.round(mesh.normals * 127),
            "uv": mesh.uv,
            "layer": mesh.layer,
            "colour": mesh.colour,
            "faces": mesh.faces,
            "layers": np.array([textures.setdefault(image.tobytes(), len(textures)) for image in piece.textures]),
        }.items():
            packed[name].append(values.astype(ARRAYS[name][0]))
        listed.append(
            {
                "name": piece.name,
                "index": piece.index,
                "category": piece.category,
                "size": piece.size,
                "elevation": piece.elevation,
                "credit": piece.credit,
                "lengths": [len(packed[name][-1]) for name in PIECE_ARRAYS],
            }
        )
    packed["textures"] = [np.frombuffer(data, np.uint8).reshape(1, *ARRAYS["textures"][1]) for data in textures]
    arrays = {name: np.concatenate(values) for name, values in packed.items()}
    digest = _digest(listed, arrays)
    folder.mkdir(parents=True, exist_ok=True)
    # a single key, because safetensors does not keep the order of several
    header = json.dumps({"version": VERSION, "digest": digest, "pieces": listed})
    with atomic_write(folder / FILE) as partial:
        save_file(arrays, partial, metadata={"furniture": header})
    return digest


def load_furniture(folder: Path | None = None) -> Furniture:
    """Read prepared furniture.

    Args:
        folder: where :func:`save_pieces` wrote it; None for the user's cache folder.

    Raises:
        ValueError: if the file is missing, damaged, or of another version.
    """
    path = (user_cache("furniture") if folder is None else folder) / FILE
    advice = "create it with `mirage prepare furniture`"
    if not path.is_file():
        raise ValueError(f"{path}: expected prepared furniture, got no such file ({advice})")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["furniture"])
            if header["version"] != VERSION:
                raise ValueError(f"version {header['version']!r} instead of {VERSION}")
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
        return Furniture(_unpack(header["pieces"], arrays, header["digest"]), header["digest"])
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: expected furniture of this version, got {error} ({advice})") from error


def _digest(listed: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> str:
    sha = hashlib.sha256(json.dumps([VERSION, listed], sort_keys=True).encode())
    for name in ARRAYS:
        sha.update(np.ascontiguousarray(arrays[name]).data)
    return sha.hexdigest()


def _unpack(listed: list[dict[str, Any]], arrays: dict[str, np.ndarray], digest: str) -> tuple[Piece, ...]:
    for name, (dtype, shape) in ARRAYS.items():
        if arrays[name].dtype != dtype or arrays[name].shape[1:] != shape:
            raise ValueError(f"{name} {arrays[name].dtype} {list(arrays[name].shape)}")
    if _digest(listed, arrays) != digest:
        raise ValueError("contents that do not match their digest")
    values = {
        "positions": arrays["positions"].astype(np.float32) / UNIT,
        "normals": unit(arrays["normals"].astype(np.float32)),
        "uv": arrays["uv"].astype(np.float32),
        "layer": arrays["layer"].astype(np.int32),
        "colour": arrays["colour"],
        "faces": arrays["faces"].astype(np.int32),
    }
    starts = dict.fromkeys(PIECE_ARRAYS, 0)
    pieces = []
    for entry in listed:
        ends = {name: starts[name] + int(n) for name, n in zip(PIECE_ARRAYS, entry["lengths"], strict=True)}
        if any(ends[name] > len(arrays[name]) or ends[name] < starts[name] for name in ends):
            raise ValueError(f"lengths {entry['lengths']} of {entry['name']}")
        cut = {name: slice(starts[name], ends[name]) for name in PIECE_ARRAYS}
        mesh = Mesh(**{name: array[cut["faces" if name == "faces" else "positions"]] for name, array in values.items()})
        layers = arrays["layers"][cut["layers"]]
        if mesh.faces.max(initial=0) >= max(len(mesh.positions), 1) or mesh.layer.max(initial=0) >= len(layers):
            raise ValueError(f"faces or layers out of range in {entry['name']}")
        pieces.append(_piece(entry, mesh, arrays["textures"][layers]))
        starts = ends
    return tuple(pieces)


def _piece(entry: dict[str, Any], mesh: Mesh, textures: np.ndarray) -> Piece:
    size, elevation = tuple(map(float, entry["size"])), float(entry["elevation"])
    if len(size) != 3 or not all(0 < length < math.inf for length in size) or not 0 <= elevation < math.inf:
        raise ValueError(f"size {size} of {entry['name']}")
    if entry["category"] not in CATEGORIES:
        raise ValueError(f"category {entry['category']!r}")
    return Piece(
        str(entry["name"]),
        int(entry["index"]),
        entry["category"],
        size,
        elevation,
        mesh,
        textures,
        str(entry["credit"]),
    )
