"""Reading what films are made of: videos, folders of pictures, and numbered tables in NumPy's archives, no pickles."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from mirage_sim.world.images import read_image

Picture = NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def video_facts(path: Path) -> tuple[float, int, tuple[int, int]]:
    """Frames per second, number of frames and (height, width) of a video.

    Raises:
        ValueError: if it cannot be read.
    """
    video = cv2.VideoCapture(str(path.absolute()))  # else a: in its name is a protocol
    try:
        rate, frames, height, width = (
            video.get(fact)
            for fact in (
                cv2.CAP_PROP_FPS,
                cv2.CAP_PROP_FRAME_COUNT,
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FRAME_WIDTH,
            )
        )
    finally:
        video.release()
    if min(rate, frames, height, width) <= 0:
        raise ValueError(f"{path}: expected a readable video")
    return rate, int(frames), (int(height), int(width))


def read_video(path: Path, numbers: Sequence[int]) -> Iterator[Picture]:
    """The frames of these ascending numbers, uint8 RGB ``[H, W, 3]``, each decoded when it is asked for.

    Raises:
        ValueError: if the video ends before, or cannot be read.
    """
    video = cv2.VideoCapture(str(path.absolute()))  # else a: in its name is a protocol
    try:
        position = 0
        for number in numbers:
            while position < number and video.grab():
                position += 1
            found, frame = video.read()
            if position < number or not found:
                raise ValueError(f"{path}: expected a readable video with a frame {number}, got {position} frames")
            position += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    finally:
        video.release()


def picture_files(folder: Path) -> dict[int, Path]:
    """The pictures of a folder by their numbers, which are their names.

    Raises:
        ValueError: if there are none, or one has another name.
    """
    files = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise ValueError(f"{folder}: expected pictures ({', '.join(SUFFIXES)})")
    if named := [path for path in files if not path.stem.isdecimal()]:
        raise ValueError(f"{named[0]}: expected a number as its name")
    return {int(path.stem): path for path in files}


def read_pictures(files: Sequence[Path]) -> Iterator[Picture]:
    """Pictures, uint8 RGB ``[H, W, 3]``, each read when it is asked for."""
    return (read_image(path) for path in files)


def read_table(path: Path, shape: tuple[int | None, ...]) -> dict[int, NDArray[np.floating]]:
    """Rows by number: ``data [n, *shape]`` and ``inds [n]`` of an ``.npz`` file.

    Args:
        path: of the file.
        shape: of a row; None stands for any length.

    Raises:
        ValueError: if the file is missing, damaged, holds pickles or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            data, numbers = file["data"], file["inds"]
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected an .npz file with arrays 'data' and 'inds', no pickles: {reason}"
        ) from error
    fits = data.ndim == 1 + len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, data.shape[1:], strict=True)
    )
    if not fits or not np.issubdtype(data.dtype, np.floating) or numbers.shape != data.shape[:1]:
        row = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(
            f"{path}: expected floating point data [n, {row}] and inds [n], "
            f"got {data.dtype} {list(data.shape)} and {list(numbers.shape)}"
        )
    return dict(zip(numbers.tolist(), data, strict=True))
