"""Catalogues of toy furniture, in the layout of Sweet Home 3D's, and Debian packages of them."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# a seat with its back at -x: modelRotation below turns it to -z; centimetres do not matter, sizes are the catalogue's
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


def picture(colour: tuple[int, int, int] = (200, 100, 50)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (96, 80), colour).save(file, "PNG")
    return file.getvalue()


def entry(number: int = 9, **fields: object) -> str:
    """Lines of a chair in a catalogue."""
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
    """Write a catalogue; ``files`` replace those of the chair, by what is before the dot of ``chair.obj`` and such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = {"chair_obj": CHAIR, "chair_mtl": MATERIALS, "cloth_png": picture()} | files
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("PluginFurnitureCatalog.properties", HEADER + (entry() if catalogue is None else catalogue))
        for name, data in contents.items():
            archive.writestr(f"toys/{name.replace('_', '.')}", data)
    return path


def write_deb(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    """Write a Debian package with these files, and a symbolic link to /etc/passwd if ``link`` names one."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in (
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", b"odd"),
            ("data.tar.xz", data.getvalue()),
        ):
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path


def sphere(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and faces of a unit sphere of ``4 · rows²`` triangles, about."""
    height, angle = np.meshgrid(np.linspace(0, np.pi, rows + 1), np.arange(2 * rows) / rows * np.pi, indexing="ij")
    positions = np.stack([np.sin(height) * np.cos(angle), np.cos(height), np.sin(height) * np.sin(angle)], -1)
    start = np.arange(rows * 2 * rows).reshape(rows, 2 * rows)
    right, below = np.roll(start, -1, 1), start + 2 * rows
    diagonal = np.roll(below, -1, 1)
    faces = np.concatenate([np.stack([start, right, diagonal], -1), np.stack([start, diagonal, below], -1)])
    return positions.reshape(-1, 3), faces.reshape(-1, 3)
