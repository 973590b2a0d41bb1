"""``mirage prepare photographs``: crop real photographs as training images for a codec.

``photographs.json`` lists the photographs with their authors, licences and locations in Debian (bookworm). They come
from wallpaper packages, have a named author and are licensed under CC0, CC-BY, CC-BY-SA, LGPL or GPL; drawings and
renderings are left out. Files are identified by their SHA-256 alone, so unknown content is never decoded.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from tqdm import tqdm

from mirage_sim.data.debian_packages import files_of_package
from mirage_sim.data.samples import IN_OPENCV_DOC, IN_SCIKIT_IMAGE
from mirage_sim.io import atomic_write
from mirage_sim.settings import PhotographsSettings

NAME = "photographs"  # stem of the output files
SIZE = (96, 128)  # height and width of a crop, pixels
MIN_SCALE = 2.0  # pixels of the photograph per pixel of the crop; averaging keeps crops sharp
TRIES = 4  # candidates for a crop; the one with most detail is kept, because much of a photograph is sky or blurred
UNPACKED = 1 << 30  # bytes that a package may unpack to


@dataclass(frozen=True)
class Photograph:
    """A photograph that training may use.

    Attributes:
        name: short, unique.
        author: as stated in its package.
        licence: SPDX identifier.
        package: name of the Debian package.
        path: in the package.
        bytes: size of the file.
        sha256: of the file, in hexadecimal.
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
    """Return all photographs that training may use, in the order of ``photographs.json``."""
    content = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return tuple(Photograph(**entry) for entry in content)


def prepare_photographs(settings: PhotographsSettings) -> dict[str, Any]:
    """Write ``photographs.safetensors`` and ``photographs.json`` to a folder, both or neither.

    The tensors are ``images`` uint8 ``[N, 96, 128, 3]`` and ``photograph`` int64 ``[N]``, the number of the photograph
    that each image is a crop of, so that some photographs can be held out. The JSON file, which is also the metadata
    of the tensors, lists the photographs. The same photographs give the same crops.

    Args:
        settings: ``source`` holds Debian packages or their unpacked files at any depth.

    Returns:
        Numbers of ``photographs`` and ``images``, and ``output``.

    Raises:
        ValueError: for a missing folder, a damaged package or a missing photograph.
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
            f"on Debian bookworm, get them with: apt-get download {packages}"
        )
    images = np.zeros((count, *SIZE, 3), np.uint8)
    for number, photograph in enumerate(tqdm(wanted, unit="photograph", disable=None)):
        rows = range(number, count, len(wanted))
        images[rows] = crops(decode(found[photograph.sha256]), len(rows), number)
    numbers = np.arange(count) % len(wanted)
    description = {
        "images": count,
        "photographs": [asdict(each) | {"crops": int((numbers == i).sum())} for i, each in enumerate(wanted)],
    }
    _write(output, images, numbers, description)
    return {"photographs": len(wanted), "images": count, "output": settings.output}


def find_photographs(folder: Path, wanted: Sequence[Photograph]) -> dict[str, bytes]:
    """Search a folder and the packages in it; return the contents of the wanted photographs by SHA-256.

    Raises:
        ValueError: if a package is damaged, or an image of the evaluation is wanted.
    """
    sizes, hashes = {each.bytes for each in wanted}, {each.sha256 for each in wanted}
    evaluated = {*IN_SCIKIT_IMAGE.values(), *IN_OPENCV_DOC.values()}
    if hashes & evaluated:
        raise ValueError("wanted: expected no image that is evaluated")
    found: dict[str, bytes] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        if path.suffix == ".deb":
            files = files_of_package(path, lambda file: file.size in sizes, UNPACKED)
        else:
            files = iter([(path.name, path.read_bytes())] if path.stat().st_size in sizes else [])
        for _, content in files:
            digest = hashlib.sha256(content).hexdigest()
            if digest in hashes:
                found[digest] = content
    return found


def decode(content: bytes) -> Image.Image:
    """Decode a JPEG file to RGB and apply its EXIF orientation."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def crops(photograph: Image.Image, count: int, seed: int) -> NDArray[np.uint8]:
    """Crop a photograph at random scales and average the crops to 96 x 128, as sharp as rendered frames.

    The logarithm of the scale is uniform between ``MIN_SCALE`` and the largest scale that fits. Each crop is the one
    with most detail of ``TRIES`` random positions.

    Args:
        photograph: RGB.
        count: number of crops.
        seed: of scales and positions.

    Returns:
        uint8 ``[count, 96, 128, 3]``.

    Raises:
        ValueError: if the photograph is too small for the smallest scale.
    """
    height, width = SIZE
    largest = min(photograph.height / height, photograph.width / width)
    if largest < MIN_SCALE:
        raise ValueError(f"photograph: expected {MIN_SCALE} times {list(SIZE)} pixels or more, got {photograph.size}")
    rng = np.random.default_rng(seed)
    chosen = np.zeros((count, height, width, 3), np.uint8)
    for i in range(count):
        scale = np.exp(rng.uniform(np.log(MIN_SCALE), np.log(largest)))
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
    """Return the mean squared difference of neighbouring pixels."""
    values = image.astype(np.float64)
    return float(sum((np.diff(values, axis=axis) ** 2).mean() for axis in (0, 1)))


def _write(output: Path, images: NDArray[np.uint8], numbers: NDArray[np.int64], description: Mapping[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    tensors, text = output / f"{NAME}.safetensors", output / f"{NAME}.json"
    content = json.dumps(description, ensure_ascii=False, indent=1)
    with atomic_write(tensors) as partial, atomic_write(text) as partial_text:
        partial_text.write_text(content + "\n", encoding="utf-8")
        save_file({"images": images, "photograph": numbers}, partial, metadata={"description": content})
