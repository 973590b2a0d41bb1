"""Catalogues of furniture in Sweet Home 3D's format: zip archives of OBJ models with a list of what they hold."""

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirage_sim.data.simulators.homes.furniture_kinds import category_of

CATALOGUE = "PluginFurnitureCatalog.properties"
MAX_ENTRIES = 20_000  # files of an archive
MAX_FILE = 64 << 20  # bytes of a file in an archive
MAX_ARCHIVE = 512 << 20  # bytes of an archive, and of all that it holds
MAX_RATIO = 200  # what a file may grow to, in multiples of its packed size
MAX_METRES = 6.0  # of a size; kept positions reach 6.5 m


@dataclass(frozen=True)
class Entry:
    """A piece of furniture as a catalogue describes it.

    Attributes:
        name: unique, such as ``"Scopia#bed1"``.
        index: number in the catalogue.
        category: one of ``CATEGORIES``.
        model: path of the OBJ file inside the archive.
        size: width (x), height (y), depth (z) of the model after its rotation, metres.
        elevation: of its bottom above the floor, metres.
        rotation: float64 ``[3, 3]``, turns the model upright with its front towards +z.
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
    """A ``.sh3f`` file; reads nothing that is larger than it should be.

    Args:
        path: of the file.

    Raises:
        ValueError: if it is not such an archive, or holds too many or too large files.
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
        """Whether it holds a file. Nothing outside the archive is ever looked at."""
        return name in self._zip.NameToInfo

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            ValueError: if it is not there or is damaged.
        """
        try:
            return self._zip.read(name)
        except KeyError as error:
            raise ValueError(f"{self.path.name}: expected the file {name!r}, got none") from error
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{self.path.name}: {name!r} is damaged: {error}") from error

    def catalogue(self) -> list[Entry]:
        """The pieces of use in a home, in the catalogue's order.

        Raises:
            ValueError: if an entry lacks a field or has a bad one.
        """
        header, listed = self._lines()
        return [
            _entry(self.path.name, number, fields, header)
            for number, fields in sorted(listed.items())
            if category_of(fields.get("id", ""), fields.get("name", ""))
        ]

    def _lines(self) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
        header: dict[str, str] = {}
        listed: dict[int, dict[str, str]] = {}
        for line in self.read(CATALOGUE).decode("latin-1").splitlines():
            if match := re.match(r"(\w+)(?:#(\d{1,6}))?\s*=\s*(.*)", line):
                key, number, value = match.groups()
                (listed.setdefault(int(number), {}) if number else header)[key] = value.strip()
        return header, listed


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
        raise ValueError(f"{archive}: expected a whole entry, got a bad number {number}: {error}") from error
    if not all(0 < length <= MAX_METRES for length in size) or not 0 <= elevation <= MAX_METRES:
        raise ValueError(f"{archive}: expected sizes of up to {MAX_METRES:g} m, got {size} of {name}")
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=0.01):
        raise ValueError(f"{archive}: expected a rotation, got {rotation.tolist()} of {name}")
    return Entry(
        name, number, category_of(name, fields["name"]), model, size, elevation, rotation, " ".join(credit.split())
    )
