"""Furniture catalogues of Sweet Home 3D: zip archives of OBJ models with a table of contents."""

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirage_sim.data.simulators.homes.furniture.categories import category_of

CATALOGUE = "PluginFurnitureCatalog.properties"
MAX_ENTRIES = 20_000  # files in an archive
MAX_FILE = 64 << 20  # unpacked bytes of one file
MAX_ARCHIVE = 512 << 20  # unpacked bytes of all files
MAX_RATIO = 200  # unpacked over packed bytes of one file
MAX_METRES = 6.0  # side of a piece; the cache stores positions of up to 6.5 m


@dataclass(frozen=True)
class Entry:
    """Description of a piece of furniture in a catalogue.

    Attributes:
        name: unique, such as ``"Scopia#bed1"``.
        index: number in the catalogue.
        category: one of ``CATEGORIES``.
        model: path of the OBJ file in the archive.
        size: width (x), height (y) and depth (z) of the rotated model, metres.
        elevation: height of the bottom above the floor, metres.
        rotation: float64 ``[3, 3]``; it turns the model upright with its front towards +z.
        credit: author and licence.
    """

    name: str
    index: int
    category: str
    model: str
    size: tuple[float, float, float]
    elevation: float
    rotation: np.ndarray
    credit: str


class Archive:
    """A ``.sh3f`` file that is open for reading. The sizes of its files are checked before any of them is read.

    Args:
        path: the file.

    Raises:
        ValueError: if the file is no such archive, or holds too many or too large files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path.name}: expected a zip archive: {error}") from error
        infos = self._zip.infolist()
        if len(infos) > MAX_ENTRIES or sum(info.file_size for info in infos) > MAX_ARCHIVE:
            raise ValueError(
                f"{path.name}: expected at most {MAX_ENTRIES} files of {MAX_ARCHIVE} bytes in all, got more"
            )
        for info in infos:
            if info.file_size > max(1 << 20, MAX_RATIO * info.compress_size) or info.file_size > MAX_FILE:
                raise ValueError(f"{path.name}: expected files of at most {MAX_FILE} bytes, got {info.filename!r}")

    def __contains__(self, name: str) -> bool:
        """Whether the archive holds a file of this name; the file system is never searched."""
        return name in self._zip.NameToInfo

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            ValueError: if it is missing or damaged.
        """
        try:
            return self._zip.read(name)
        except KeyError as error:
            raise ValueError(f"{self.path.name}: expected the file {name!r}, got none") from error
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{self.path.name}: {name!r} is damaged: {error}") from error

    def catalogue(self) -> list[Entry]:
        """Return the pieces that have a category, in the order of the catalogue.

        Raises:
            ValueError: if an entry has a missing or invalid field.
        """
        header: dict[str, str] = {}
        entries: dict[int, dict[str, str]] = {}
        for line in self.read(CATALOGUE).decode("latin-1").splitlines():
            if match := re.match(r"(\w+)(?:#(\d{1,6}))?\s*=\s*(.*)", line):
                key, number, value = match.groups()
                (entries.setdefault(int(number), {}) if number else header)[key] = value.strip()
        return [
            _entry(self.path.name, number, fields, header)
            for number, fields in sorted(entries.items())
            if category_of(fields.get("id", ""), fields.get("name", ""))
        ]


def _entry(archive: str, number: int, fields: dict[str, str], header: dict[str, str]) -> Entry:
    def metres(key: str, default: str | None = None) -> float:
        return float(fields[key] if default is None else fields.get(key, default)) / 100

    try:
        size = metres("width"), metres("height"), metres("depth")
        elevation = metres("elevation", "0")
        rotation = np.array(fields.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), np.float64).reshape(3, 3)
        name, model = fields["id"], fields["model"].lstrip("/")
        credit = f"{fields.get('creator', 'unknown')}, {header.get('license', 'unknown licence')}"
    except (KeyError, ValueError) as error:
        raise ValueError(f"{archive}: expected a complete entry, got number {number}: {error}") from error
    if not all(0 < length <= MAX_METRES for length in size) or not 0 <= elevation <= MAX_METRES:
        raise ValueError(f"{archive}: expected sizes of up to {MAX_METRES:g} m, got {size} of {name}")
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=0.01):
        raise ValueError(f"{archive}: expected a rotation, got {rotation.tolist()} of {name}")
    return Entry(
        name, number, category_of(name, fields["name"]), model, size, elevation, rotation, " ".join(credit.split())
    )
