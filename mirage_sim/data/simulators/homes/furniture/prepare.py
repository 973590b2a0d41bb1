"""``mirage prepare furniture``: convert the models of a Debian package to pieces in the user's cache folder."""

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mirage_sim.data.debian_packages import files_of_package
from mirage_sim.data.simulators.homes.furniture.cache import FILE, save_pieces
from mirage_sim.data.simulators.homes.furniture.catalogue import MAX_ARCHIVE, Archive, Entry
from mirage_sim.data.simulators.homes.furniture.models import read_model, thin, to_mesh
from mirage_sim.data.simulators.homes.furniture.pieces import Piece
from mirage_sim.paths import user_cache
from mirage_sim.settings import FurnitureSettings

logger = logging.getLogger(__name__)

PACKAGE = "sweethome3d-furniture"
TRIANGLES = 1500  # limit for a piece of a metre or more
FOLIAGE = 3500  # limit for a plant of that size, which would lose its leaves with fewer


def prepare_furniture(settings: FurnitureSettings) -> dict[str, Any]:
    """Convert all models of use in a home and replace the cache by them.

    Args:
        settings: ``source`` is a folder with ``.sh3f`` files or the package's ``.deb`` file; None downloads it.

    Returns:
        Number of ``pieces``, the ``digest`` of their contents, the ``output`` folder and the ``bytes`` written to it.

    Raises:
        ValueError: if the source holds no valid catalogues.
        OSError: if the package cannot be downloaded.
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
    """Convert one entry of a catalogue to a piece of about ``TRIANGLES`` triangles or fewer, by its size."""
    model = read_model(archive, entry.model)
    most = FOLIAGE if entry.category == "plant" else TRIANGLES
    limit = int(np.clip(most * max(entry.size), most / 5, most))
    mesh, textures = to_mesh(thin(model, limit), entry)
    return Piece(entry.name, entry.index, entry.category, entry.size, entry.elevation, mesh, textures, entry.credit)


@contextmanager
def _archives(source: str | None) -> Iterator[list[Path]]:
    """Provide the package's ``.sh3f`` files, sorted by name."""
    cache = user_cache("furniture")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="partial-", dir=cache) as scratch:
        path = _download(Path(scratch)) if source is None else Path(source)
        if path.is_file():
            for name, content in files_of_package(path, lambda file: file.name.endswith(".sh3f"), MAX_ARCHIVE):
                (Path(scratch) / Path(name).name).write_bytes(content)
            path = Path(scratch)
        found = sorted(path.rglob("*.sh3f"), key=lambda file: file.name)
        if not found:
            raise ValueError(f"{source or path}: expected a folder or a .deb file that holds .sh3f files, got none")
        yield found


def _download(folder: Path) -> Path:
    """Download the Debian package into a folder."""
    if shutil.which("apt-get") is None:
        raise OSError(f"source: expected a folder or the file {PACKAGE}_*.deb, because apt-get is not available")
    logger.info("downloading %s (120 MB)", PACKAGE)
    done = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.deb"))
    if done.returncode or not found:
        raise OSError(f"{PACKAGE}: apt-get could not download it; set source=FILE.deb: {done.stderr.strip()[-300:]}")
    return found[0]
