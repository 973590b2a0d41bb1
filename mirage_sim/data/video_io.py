"""Readers of video files, folders of images, and numbered tables in ``.npz`` files."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def video_facts(path: Path) -> tuple[float, int, tuple[int, int]]:
    """Return the frame rate, the number of frames and the ``(height, width)`` of a video.

    Raises:
        ValueError: if it cannot be read.
    """
    properties = cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH
    with _opened(path) as video:
        rate, frames, height, width = (video.get(name) for name in properties)
    if min(rate, frames, height, width) <= 0:
        raise ValueError(f"{path}: expected a readable video")
    return rate, int(frames), (int(height), int(width))


def read_video(path: Path, numbers: Sequence[int]) -> Iterator[Image]:
    """Decode the frames with these ascending numbers one by one, uint8 RGB ``[H, W, 3]``.

    Raises:
        ValueError: if the video is too short or cannot be read.
    """
    with _opened(path) as video:
        position = 0
        for number in numbers:
            while position < number and video.grab():
                position += 1
            found, frame = video.read()
            if position < number or not found:
                raise ValueError(f"{path}: expected a readable video with a frame {number}, got {position} frames")
            position += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def decode_frames(path: Path, numbers: Sequence[int], rate: float, pixels: str) -> Iterator[NDArray[Any]]:
    """Decode the frames with these ascending numbers one by one, from the nearest key frame before the first of them.

    Args:
        path: the file.
        numbers: of the frames.
        rate: frames per second, constant.
        pixels: ``"rgb24"`` for uint8 ``[H, W, 3]``, ``"gray12le"`` for uint16 ``[H, W]``.

    Raises:
        ValueError: if the video is too short or cannot be read.
    """
    import imageio_ffmpeg

    if not numbers:
        return

    bits, dtype, shape = {"rgb24": (24, np.uint8, (3,)), "gray12le": (16, np.uint16, ())}[pixels]
    start = ["-ss", f"{max(numbers[0] - 0.5, 0.0) / rate:.6f}"]  # half a frame early, so that rounding skips none
    every = ["-fps_mode", "passthrough"]
    frames = imageio_ffmpeg.read_frames(
        str(path.absolute()), pixels, bits_per_pixel=bits, input_params=start, output_params=every
    )
    with closing(frames):
        position = numbers[0] - 1
        try:
            width, height = next(frames)["size"]
            for wanted in numbers:
                while position < wanted:
                    data = next(frames)
                    position += 1
                yield np.frombuffer(data, dtype).reshape(height, width, *shape).copy()
        except (StopIteration, OSError, RuntimeError) as error:
            raise ValueError(f"{path}: expected a readable video with a frame {numbers[-1]}") from error


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    video = cv2.VideoCapture(str(path.absolute()))  # OpenCV takes a relative path such as "a:b.mp4" for a protocol
    try:
        yield video
    finally:
        video.release()


def image_files(folder: Path) -> dict[int, Path]:
    """Return the image files of a folder by the numbers that are their names.

    Raises:
        ValueError: if there are none, or one has another name.
    """
    files = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise ValueError(f"{folder}: expected images ({', '.join(SUFFIXES)})")
    if named := [path for path in files if not path.stem.isdecimal()]:
        raise ValueError(f"{named[0]}: expected a number as its name")
    return {int(path.stem): path for path in files}


def read_table(path: Path, shape: tuple[int | None, ...]) -> dict[int, NDArray[np.floating]]:
    """Read the arrays ``data [n, *shape]`` and ``inds [n]`` of an ``.npz`` file and return the rows by number.

    Args:
        path: the file.
        shape: of a row; None allows any length.

    Raises:
        ValueError: if the file is missing or damaged, or holds pickles or arrays of other shapes.
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
