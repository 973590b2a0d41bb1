"""Recordings whose images are files of their own: what those layouts share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.recordings.files import MAX_IMAGE, decode_depth, decode_image, read_bytes
from mirage_sim.data.recordings.lens import Lens
from mirage_sim.data.recordings.recording import Array, Depth, Image, Recording


@dataclass(frozen=True)
class ImageFiles:
    """Images of a recording, one entry per image.

    Attributes:
        stamps: ``[N]`` seconds, ascending.
        c2w: ``[N, 4, 4]``.
        images: files.
        depths: files of 16-bit PNGs, or None.
    """

    stamps: Array
    c2w: Array
    images: Sequence[Path]
    depths: Sequence[Path | None]


class FileRecording(Recording):
    """A recording of image files.

    Args:
        source: file or folder.
        files: images with their stamps and poses.
        lenses: one for all images, or one for each.
        units_per_metre: of the pixels of depth files.
        sources: files used, by role.
        notes: for :class:`~mirage_sim.data.recordings.recording.RecordingInfo`.
        timed: False if the stamps only count the images.
    """

    def __init__(
        self,
        source: Path,
        files: ImageFiles,
        lenses: Sequence[Lens],
        units_per_metre: float,
        sources: Mapping[str, str],
        notes: Sequence[str] = (),
        timed: bool = True,
    ):
        self._images, self._depths, self._units = files.images, files.depths, units_per_metre
        has_depth: NDArray[np.bool_] = np.array([path is not None for path in files.depths], dtype=bool)
        super().__init__(source, files.stamps, files.c2w, lenses, has_depth, sources, notes, timed)

    def _load(self, numbers: Sequence[int]) -> Iterator[tuple[Image, Depth | None]]:
        for number in numbers:
            image, depth = self._images[number], self._depths[number]
            yield (
                decode_image(image, read_bytes(image, MAX_IMAGE)),
                None if depth is None else decode_depth(depth, read_bytes(depth, MAX_IMAGE), self._units),
            )
