"""``mirage prepare photographs``: crops of real photographs for a codec to learn from, in one file.

``photographs.json`` names the photographs, with author, licence and where Debian (bookworm) has them. They are those of
some wallpaper packages that are photographs, under CC0, CC-BY, CC-BY-SA, LGPL or GPL, with a named author; drawings and
renderings are left out. A file counts by its SHA-256 alone, so that nothing unknown is ever decoded, and no path of an
archive is ever followed.
"""

import hashlib
import io
import json
import lzma
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from tqdm import tqdm

from mirage_sim.data.samples import IN_OPENCV_DOC, IN_SCIKIT_IMAGE
from mirage_sim.io import atomic_write
from mirage_sim.settings import PhotographsSettings

NAME = "photographs"  # of the files that are written
SIZE = (96, 128)  # height, width of a crop in pixels
SMALLEST = 2.0  # pixels of the photograph to one of the crop, at least: averaged, they are sharp
TRIES = 4  # places of which the one with most detail becomes a crop: much of a photograph is sky, or out of focus
UNPACKED = 1 << 30  # bytes that a package may hold


@dataclass(frozen=True)
class Photograph:
    """A photograph that may be learned from.

    Attributes:
        name: short, unique.
        author: as its package names them.
        licence: SPDX identifier.
        package: of Debian.
        path: within the package.
        bytes: of the file.
        sha256: of the file, hex.
    """

    name: str
    author: str
    licence: str
    package: str
    path: str
    bytes: int
    sha256: str


@cache
def known_photographs() -> tuple[Photograph, ...]:
    """All photographs that may be learned from, in the order in which they are used."""
    content = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return tuple(Photograph(**entry) for entry in content)


def prepare_photographs(settings: PhotographsSettings) -> dict[str, Any]:
    """Write ``photographs.safetensors`` and ``photographs.json`` into a folder, both or none.

    The one holds ``images`` uint8 ``[N, 96, 128, 3]`` and ``photograph`` int64 ``[N]``, the number of the photograph
    that each is a crop of, so that some photographs can be held out; the other, which is also the first one's metadata,
    names the photographs. The same photographs give the same crops.

    Args:
        settings: ``source`` holds Debian's packages, ``.deb``, or their contents at any depth.

    Returns:
        Numbers of ``photographs`` and ``images``, and ``output``.

    Raises:
        ValueError: for unusable settings, a damaged package, or if a photograph is not there.
    """
    source, output, count = Path(settings.source), Path(settings.output), settings.images
    wanted = known_photographs()
    if not source.is_dir():
        raise ValueError(f"source: expected a folder with packages or photographs, got {source}")
    found = find_photographs(source, wanted)
    if missing := [each for each in wanted if each.sha256 not in found]:
        packages = " ".join(sorted({each.package for each in missing}))
        raise ValueError(
            f"{source}: expected {len(wanted)} photographs, {len(missing)} are missing, such as {missing[0].path}; "
            f"on Debian bookworm, apt-get download {packages} brings them"
        )
    images = np.zeros((count, *SIZE, 3), np.uint8)
    for number, photograph in enumerate(tqdm(wanted, unit="photograph", disable=None)):
        own = range(number, count, len(wanted))
        images[own] = crops(decode(found[photograph.sha256]), len(own), number)
    numbers = np.arange(count) % len(wanted)
    description = {
        "images": count,
        "photographs": [asdict(each) | {"crops": int((numbers == i).sum())} for i, each in enumerate(wanted)],
    }
    _write(output, images, numbers, description)
    return {"photographs": len(wanted), "images": count, "output": settings.output}


def find_photographs(folder: Path, wanted: Sequence[Photograph]) -> dict[str, bytes]:
    """The content of those that are in a folder or in packages in it, by SHA-256.

    Raises:
        ValueError: naming a package that is damaged.
    """
    sizes, hashes = {each.bytes for each in wanted}, {each.sha256 for each in wanted}
    evaluated = {*IN_SCIKIT_IMAGE.values(), *IN_OPENCV_DOC.values()}
    if hashes & evaluated:
        raise ValueError("wanted: expected no image that is evaluated")
    found: dict[str, bytes] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        if path.suffix == ".deb":
            contents = files_of_package(path, sizes)
        else:
            contents = iter([path.read_bytes()] if path.stat().st_size in sizes else [])
        for content in contents:
            digest = hashlib.sha256(content).hexdigest()
            if digest in hashes:
                found[digest] = content
    return found


def files_of_package(path: Path, sizes: set[int]) -> Iterator[bytes]:
    """The content of the regular files of certain sizes in a Debian package; nothing is unpacked to the disk.

    A ``.deb`` is an ``ar`` archive (deb(5)): after 8 bytes, members with a header of 60 bytes each, of which
    ``data.tar.xz`` holds the files.

    Raises:
        ValueError: if it is damaged, compressed otherwise, or larger than expected.
    """
    try:
        unpacked: Any = _Limited(lzma.open(io.BytesIO(_data_of_package(path))), UNPACKED)
        with tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                if member.isreg() and member.size in sizes and (file := archive.extractfile(member)):
                    yield file.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OverflowError) as error:
        raise ValueError(f"{path}: expected a whole Debian package of at most {UNPACKED} bytes: {error}") from error


class _Limited:
    """Reads from a file until it has read too much.

    Args:
        file: opened.
        left: bytes that may be read.

    Raises:
        OverflowError: from :meth:`read`.
    """

    def __init__(self, file: Any, left: int):
        self._file = file
        self._left = left

    def read(self, size: int) -> bytes:
        """The next bytes, as the file's own ``read``."""
        content = bytes(self._file.read(size))
        self._left -= len(content)
        if self._left < 0:
            raise OverflowError("it unpacks to more")
        return content


def _data_of_package(path: Path) -> bytes:
    """The ``data.tar.xz`` of a package."""
    with path.open("rb") as file:
        if file.read(8) == b"!<arch>\n":
            while len(header := file.read(60)) == 60 and header[58:] == b"`\n" and header[48:58].strip().isdigit():
                size = int(header[48:58])
                if header.startswith(b"data.tar.xz"):
                    return file.read(min(size, path.stat().st_size))
                file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError(f"{path}: expected a Debian package with data.tar.xz")


def decode(content: bytes) -> Image.Image:
    """A photograph in RGB, turned as its EXIF orientation says."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def crops(photograph: Image.Image, count: int, seed: int) -> NDArray[np.uint8]:
    """Crops at many scales, area-averaged to 96 x 128, so that they are as sharp as rendered frames.

    The scale is drawn evenly in its logarithm, from two pixels of the photograph to one of the crop up to the largest
    that fits; of four places, the one with most detail is taken.

    Args:
        photograph: RGB.
        count: how many.
        seed: decides scales and places.

    Returns:
        uint8 ``[count, 96, 128, 3]``.

    Raises:
        ValueError: if the photograph is too small for the smallest scale.
    """
    height, width = SIZE
    largest = min(photograph.height / height, photograph.width / width)
    if largest < SMALLEST:
        raise ValueError(f"photograph: expected {SMALLEST} times {list(SIZE)} pixels or more, got {photograph.size}")
    rng = np.random.default_rng(seed)
    chosen = np.zeros((count, height, width, 3), np.uint8)
    for i in range(count):
        scale = np.exp(rng.uniform(np.log(SMALLEST), np.log(largest)))
        tries = []
        for _ in range(TRIES):
            left, top = (
                rng.uniform(0, photograph.width - width * scale),
                rng.uniform(0, photograph.height - height * scale),
            )
            box = (left, top, left + width * scale, top + height * scale)
            tries.append(np.array(photograph.resize((width, height), Image.Resampling.BOX, box)))
        chosen[i] = max(tries, key=_detail)
    return chosen


def _detail(image: NDArray[np.uint8]) -> float:
    """Mean squared difference of neighbouring pixels."""
    values = image.astype(np.float64)
    return float(sum((np.diff(values, axis=axis) ** 2).mean() for axis in (0, 1)))


def _write(output: Path, images: NDArray[np.uint8], numbers: NDArray[np.int64], description: Mapping[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    tensors, text = output / f"{NAME}.safetensors", output / f"{NAME}.json"
    content = json.dumps(description, ensure_ascii=False, indent=1)
    with atomic_write(tensors) as partial, atomic_write(text) as partial_text:
        partial_text.write_text(content + "\n", encoding="utf-8")
        save_file({"images": images, "photograph": numbers}, partial, metadata={"description": content})
