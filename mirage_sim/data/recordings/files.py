"""Untrusted files of recordings: sizes are checked before anything is decoded, and no path leaves its folder."""

import json
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mirage_sim.world.images import MAX_SIDE, MIN_SIDE

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_TEXT = 64 * 2**20  # bytes of a JSON or text file
MAX_IMAGE = 256 * 2**20  # bytes of an image file
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises for damaged files


def check_file(path: Path, limit: int) -> None:
    """Check that a path is that of a file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is larger, or no file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a file, got none of that name")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, got something else")
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"{path}: expected at most {limit >> 20} MB, got {size / 2**20:.0f} MB")


def read_bytes(path: Path, limit: int) -> bytes:
    """A file's content; raises what :func:`check_file` raises."""
    check_file(path, limit)
    return path.read_bytes()


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is larger than 64 MB or not UTF-8.
    """
    try:
        return read_bytes(path, MAX_TEXT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is larger than 64 MB or holds anything else.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # integers of thousands of digits are no JSONDecodeError
        raise ValueError(f"{path}: expected JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def number(path: Path, name: str, value: Any) -> float:
    """A finite number that JSON held under ``name``.

    Raises:
        ValueError: if it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise ValueError(f"{path}: expected a number {name!r}, got {str(value)[:40]!r}")
    return float(value)


def inside(source: Path, folder: Path, name: Any) -> Path:
    """The existing file of this name, relative to ``folder``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the name is no text or leads out of the folder, by links too.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{source}: expected the path of a file, got {name!r}")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{source}: expected files inside {folder}, got {name!r}")
    if not path.is_file():
        raise FileNotFoundError(f"{source}: expected a file {name!r} in {folder}, got none of that name")
    return path


def decode_image(name: Any, data: bytes) -> NDArray[np.uint8]:
    """An image, uint8 RGB ``[H, W, 3]``, of a PNG, JPEG or WebP file; EXIF orientation is left out, as in intrinsics.

    Args:
        name: for errors.
        data: the file's content.

    Raises:
        ValueError: if it is damaged, has more than 8 bits per channel or a side outside 16 to 8192 pixels.
    """
    image = _decode(name, data)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{name}: expected an image of 8 bits per channel, got pixels of kind {image.mode!r}")
    return np.array(image.convert("RGB"))


def decode_depth(name: Any, data: bytes, units_per_metre: float) -> NDArray[np.float32]:
    """Depth, float32 ``[H, W]`` metres, 0 where unknown, of a PNG file of 16 bits.

    Args:
        name: for errors.
        data: the file's content.
        units_per_metre: of the pixels.

    Raises:
        ValueError: if it is damaged, has other pixels or a side outside 16 to 8192 pixels.
    """
    image = _decode(name, data)
    if not image.mode.startswith("I"):
        raise ValueError(f"{name}: expected depth in 16 bits per pixel, got pixels of kind {image.mode!r}")
    return np.asarray(image).astype(np.float32) / np.float32(units_per_metre)


def size_of(path: Path) -> tuple[int, int]:
    """``(height, width)`` of an image file, from its header.

    Raises:
        ValueError: if it is no image.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except (*_DAMAGED, UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path}: expected an image ({', '.join(FORMATS)}): {error}") from error


def _decode(name: Any, data: bytes) -> Image.Image:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if not (MIN_SIDE <= min(image.size) and max(image.size) <= MAX_SIDE):
                raise ValueError(f"sides of {MIN_SIDE} to {MAX_SIDE} pixels, got {image.height} x {image.width}")
            image.load()
            return image
    except (*_DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name}: expected a whole image ({', '.join(FORMATS)}): {error}") from error
