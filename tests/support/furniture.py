"""Toy furniture: catalogues in the format of Sweet Home 3D, and a mesh to simplify."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# a seat with its back at -x, which modelRotation turns to -z; the catalogue sets its size
CHAIR = """mtllib chair.mtl
v 0 0 0
v 4 0 0
v 4 0 2
v 0 0 2
v 0 4 0
v 0 4 2
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl cloth
f 1/1 2/2 3/3 4/4
usemtl steel
f 1 4 6 5
"""
MATERIALS = """newmtl cloth
Kd 0.64 0.64 0.64
map_Kd cloth.png
newmtl steel
Kd 0.2 0.4 0.6
"""
TO_FRONT = "0 0 1 0 1 0 1 0 0"
HEADER = "id=Toys\nlicense=CC0\n"


def png(colour: tuple[int, int, int] = (200, 100, 50)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (96, 80), colour).save(file, "PNG")
    return file.getvalue()


def entry(number: int = 9, **fields: object) -> str:
    """Return the lines that describe a chair in a catalogue."""
    values = {
        "id": f"Toys#chair{number}",
        "name": "Chair",
        "model": "/toys/chair.obj",
        "width": 50,
        "depth": 60,
        "height": 90,
        "elevation": 10,
        "modelRotation": TO_FRONT,
        "creator": "Ann",
    } | fields
    return "".join(f"{key}#{number}={value}\n" for key, value in values.items() if value is not None)


def write_sh3f(path: Path, catalogue: str | None = None, **files: str | bytes) -> Path:
    """Write an archive with a chair. ``files`` replaces its files: ``chair_obj=...`` sets ``toys/chair.obj``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = {"chair_obj": CHAIR, "chair_mtl": MATERIALS, "cloth_png": png()} | files
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("PluginFurnitureCatalog.properties", HEADER + (entry() if catalogue is None else catalogue))
        for name, data in contents.items():
            archive.writestr(f"toys/{name.replace('_', '.')}", data)
    return path


def sphere(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and faces of a unit sphere of about ``4 · rows²`` triangles."""
    height, angle = np.meshgrid(np.linspace(0, np.pi, rows + 1), np.arange(2 * rows) / rows * np.pi, indexing="ij")
    positions = np.stack([np.sin(height) * np.cos(angle), np.cos(height), np.sin(height) * np.sin(angle)], -1)
    start = np.arange(rows * 2 * rows).reshape(rows, 2 * rows)
    right, below = np.roll(start, -1, 1), start + 2 * rows
    diagonal = np.roll(below, -1, 1)
    faces = np.concatenate([np.stack([start, right, diagonal], -1), np.stack([start, diagonal, below], -1)])
    return positions.reshape(-1, 3), faces.reshape(-1, 3)
