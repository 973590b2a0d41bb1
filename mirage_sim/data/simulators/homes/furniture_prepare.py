"""``mirage prepare furniture``: the furniture of a Debian package, thinned and kept in the user's cache."""

import logging
import lzma
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from mirage_sim.data.simulators.homes.furniture import Piece
from mirage_sim.data.simulators.homes.furniture_cache import FILE, save_pieces
from mirage_sim.data.simulators.homes.models3d import read_model, thin, to_mesh
from mirage_sim.data.simulators.homes.sh3f import MAX_ARCHIVE, Archive, Entry
from mirage_sim.paths import user_cache
from mirage_sim.settings import FurnitureSettings

logger = logging.getLogger(__name__)

PACKAGE = "sweethome3d-furniture"
TRIANGLES = 1500  # of a piece of a metre or more
FOLIAGE = 3500  # of such a plant, which would lose its leaves with fewer


def prepare_furniture(settings: FurnitureSettings) -> dict[str, Any]:
    """Make the furniture of the homes out of the package's.

    Args:
        settings: ``source`` is a folder with ``.sh3f`` files or the package's ``.deb`` file; None fetches it.

    Returns:
        Number of ``pieces``, the ``digest`` of their contents, and the ``output`` folder and its ``bytes``.

    Raises:
        ValueError: if the source is not the furniture.
        OSError: if the package cannot be fetched.
    """
    folder = user_cache("furniture")
    with _archives(settings.source) as paths:
        archives = [Archive(path) for path in paths]
        entries = [(archive, entry) for archive in archives for entry in archive.catalogue()]
        if not entries:
            raise ValueError(f"source: expected catalogues with furniture for homes, got none in {len(paths)} files")
        names = [entry.name for _, entry in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"source: expected different names, got {twice[0]} twice")
        pieces = [make_piece(archive, entry) for archive, entry in tqdm(entries, unit="piece", disable=None)]
    digest = save_pieces(pieces, folder)
    return {"pieces": len(pieces), "digest": digest, "bytes": (folder / FILE).stat().st_size, "output": str(folder)}


def make_piece(archive: Archive, entry: Entry) -> Piece:
    """A piece as a catalogue describes it, of at most about ``TRIANGLES`` triangles; small ones have fewer."""
    model = read_model(archive, entry.model)
    most = FOLIAGE if entry.category == "plant" else TRIANGLES
    limit = int(np.clip(most * max(entry.size), most / 5, most))
    mesh, textures = to_mesh(thin(model, limit), entry)
    return Piece(entry.name, entry.index, entry.category, entry.size, entry.elevation, mesh, textures, entry.credit)


@contextmanager
def _archives(source: str | None) -> Iterator[list[Path]]:
    """The package's ``.sh3f`` files, in the order of their names."""
    cache = user_cache("furniture")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="partial-", dir=cache) as scratch:
        path = _fetch(Path(scratch)) if source is None else Path(source)
        if path.is_file():
            unpack(path, Path(scratch))
            path = Path(scratch)
        found = sorted(path.rglob("*.sh3f"), key=lambda file: file.name)
        if not found:
            raise ValueError(f"{source or path}: expected a folder or a .deb file that holds .sh3f files, got none")
        yield found


def _fetch(folder: Path) -> Path:
    """Download the Debian package into a folder."""
    if shutil.which("apt-get") is None:
        raise OSError(f"source: expected a folder or the file {PACKAGE}_*.deb, as there is no apt-get here to fetch it")
    logger.info("fetching %s (120 MB)", PACKAGE)
    done = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.deb"))
    if done.returncode or not found:
        raise OSError(f"{PACKAGE}: apt-get could not fetch it; give source=FILE.deb: {done.stderr.strip()[-300:]}")
    return found[0]


def unpack(package: Path, folder: Path) -> None:
    """Copy the ``.sh3f`` files of a Debian package into a folder, by name alone; nothing else leaves the package.

    Raises:
        ValueError: if it is no such package.
    """
    try:
        with package.open("rb") as file, tarfile.open(fileobj=_data_of(file), mode="r|*") as tar:
            left = MAX_ARCHIVE
            for member in tar:
                name = Path(member.name).name
                source = tar.extractfile(member) if member.isreg() and name.endswith(".sh3f") else None
                if source is None:
                    continue
                left -= member.size
                if left < 0:
                    raise ValueError(f"more than {MAX_ARCHIVE} bytes")
                with (folder / name).open("xb") as copy:
                    shutil.copyfileobj(source, copy)
    except (tarfile.TarError, ValueError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{package}: expected the Debian package {PACKAGE}: {error}") from error


def _data_of(file: IO[bytes]) -> IO[bytes]:
    """The package's file ``data.tar.*``: a package is an archive of ``ar``, whose headers are 60 bytes of text."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("no Debian package")
    while len(header := file.read(60)) == 60:
        name, size = header[:16].strip(), int(header[48:58])
        if name.startswith(b"data.tar"):
            return file
        file.seek(size + size % 2, 1)
    raise ValueError("no data in it")
