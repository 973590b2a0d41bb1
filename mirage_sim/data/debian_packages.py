"""Reading files of Debian packages (deb(5)) without unpacking anything to disk."""

import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


def files_of_package(path: Path, wanted: Callable[[tarfile.TarInfo], bool], limit: int) -> Iterator[tuple[str, bytes]]:
    """Yield the paths and contents of the wanted regular files in a package; links and devices are skipped.

    Args:
        path: the ``.deb`` file.
        wanted: decides by a file's metadata, such as its name or size.
        limit: bytes that the package may unpack to.

    Raises:
        ValueError: if the package is damaged, compressed with another method than xz, or larger than ``limit``.
    """
    try:
        with path.open("rb") as file:
            _seek_data(file)
            unpacked: Any = _Limited(lzma.open(file), limit)
            with tarfile.open(fileobj=unpacked, mode="r|") as archive:
                for member in archive:
                    if member.isreg() and wanted(member) and (content := archive.extractfile(member)):
                        yield member.name, content.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OverflowError, ValueError) as error:
        raise ValueError(f"{path}: expected a whole Debian package of at most {limit} bytes, got {error}") from error


def _seek_data(file: IO[bytes]) -> None:
    """Go to the content of ``data.tar.xz``. A package is an ``ar`` archive: 8 bytes, then members with 60-byte headers.

    Raises:
        ValueError: if there is no such member.
    """
    if file.read(8) == b"!<arch>\n":
        while len(header := file.read(60)) == 60 and header[58:] == b"`\n" and header[48:58].strip().isdigit():
            if header.startswith(b"data.tar.xz"):
                return
            size = int(header[48:58])
            file.seek(size + size % 2, 1)
    raise ValueError("no ar archive with data.tar.xz")


class _Limited:
    """A file that raises OverflowError once more than ``left`` bytes have been read from it."""

    def __init__(self, file: IO[bytes], left: int):
        self._file = file
        self._left = left

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise OverflowError("more")
        return content
