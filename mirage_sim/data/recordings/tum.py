"""Folders in the layout of the TUM RGB-D benchmark."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from mirage_sim.data.recordings.files import inside, number, read_json, read_text, size_of
from mirage_sim.data.recordings.image_files import FileRecording, ImageFiles
from mirage_sim.data.recordings.lens import BROWN, Lens
from mirage_sim.data.recordings.poses import Track, nearest
from mirage_sim.data.recordings.recording import Array

UNITS_PER_METRE = 5000.0
TOLERANCE = 0.02  # seconds between an image and its depth or pose
_LOG = logging.getLogger(__name__)

#: fx, fy, cx, cy (OpenCV's, the first pixel's centre at 0) and distortion of the colour cameras, as the benchmark's
#: page on file formats publishes them, and the default of ROS's driver that it recommends elsewhere.
PUBLISHED = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), ()),
}
ROS_DEFAULT = (525.0, 525.0, 319.5, 239.5)


class TumRecording(FileRecording):
    """A folder with ``rgb.txt``, ``groundtruth.txt`` and, if there is depth, ``depth.txt``.

    Raises:
        FileNotFoundError: for missing files.
        ValueError: for damaged ones, and if no image has a pose within 0.02 s.
    """

    layout = "tum"

    def __init__(self, source: Path):
        stamps, images = _listed(source, "rgb.txt")
        poses = _rows(source / "groundtruth.txt", 8)
        track = Track(poses[:, 0], poses[:, 1:4], poses[:, 4:8])
        inner = np.clip(stamps, track.stamps[0], track.stamps[-1])  # an image may be 0.02 s before the first pose
        c2w, _ = track.at(source, inner)
        posed = np.flatnonzero(nearest(track.stamps, stamps, TOLERANCE) >= 0)
        if not len(posed):
            raise ValueError(
                f"{source}: expected stamps of rgb.txt within {TOLERANCE} s of those of groundtruth.txt, got "
                f"{stamps[0]} to {stamps[-1]} s and {track.stamps[0]} to {track.stamps[-1]} s"
            )
        depth_stamps, depths = _listed(source, "depth.txt") if (source / "depth.txt").exists() else (np.empty(0), [])
        of_image = nearest(depth_stamps, stamps[posed], TOLERANCE)
        if len(depths) and (of_image < 0).all():
            raise ValueError(
                f"{source}: expected stamps of rgb.txt within {TOLERANCE} s of those of depth.txt, got "
                f"{stamps[0]} to {stamps[-1]} s and {depth_stamps[0]} to {depth_stamps[-1]} s"
            )
        lens, intrinsics, notes = _lens(source, size_of(images[0]))
        if len(posed) < len(stamps):
            notes.append(f"{len(stamps) - len(posed)} images without a pose within {TOLERANCE} s were left out")
        files = ImageFiles(
            stamps=stamps[posed],
            c2w=c2w[posed],
            images=[images[i] for i in posed],
            depths=[depths[i] if i >= 0 else None for i in of_image],
        )
        sources = {"image": "rgb.txt", "poses": "groundtruth.txt", "intrinsics": intrinsics}
        super().__init__(
            source, files, [lens], UNITS_PER_METRE, sources | ({"depth": "depth.txt"} if depths else {}), notes
        )

    @classmethod
    def matches(cls, source: Path) -> bool:
        """Whether ``rgb.txt`` is in the folder."""
        return (source / "rgb.txt").is_file()


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Numbered lines of a text file as words, without comments."""
    lines = enumerate(read_text(path).splitlines(), 1)
    return [(number, line.split()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


def _number(path: Path, line: int, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"{path}: line {line}: expected a number, got {word[:40]!r}")
    return value


def _rows(path: Path, width: int) -> Array:
    """Rows of numbers ``[N, width]``, sorted by their stamps, one of each stamp."""
    lines = _lines(path)
    for line, words in lines:
        if len(words) != width:
            raise ValueError(f"{path}: line {line}: expected {width} numbers, got {len(words)} words")
    if not lines:
        raise ValueError(f"{path}: expected lines of {width} numbers, got none")
    rows = np.array([[_number(path, line, word) for word in words] for line, words in lines])
    return rows[np.unique(rows[:, 0], return_index=True)[1]]


def _listed(folder: Path, name: str) -> tuple[Array, list[Path]]:
    """Stamps, ascending, and files of a list of images; a path may hold spaces."""
    path, found = folder / name, {}
    for line, (stamp, *words) in _lines(path):
        found[_number(path, line, stamp)] = inside(path, folder, " ".join(words))
    if not found:
        raise ValueError(f"{path}: expected lines of a stamp and a file, got none")
    stamps = sorted(found)
    return np.array(stamps), [found[stamp] for stamp in stamps]


def _lens(source: Path, size: tuple[int, int]) -> tuple[Lens, str, list[str]]:
    """The lens, where its intrinsics are from, and notes about that."""
    distortion: tuple[float, ...] = ()
    if (path := source / "camera.json").exists():
        content = read_json(path)
        numbers = [number(path, key, content.get(key)) for key in ("fx", "fy", "cx", "cy")]
        stated = content.get("h", size[0]), content.get("w", size[1])
    elif (path := source / "calibration.txt").exists():
        words = [_number(path, line, word) for line, words in _lines(path) for word in words]
        numbers, stated = words[:4], (words[5], words[4]) if len(words) == 6 else size
        if len(words) not in (4, 6):
            raise ValueError(f"{path}: expected fx fy cx cy [w h], got {len(words)} numbers")
    else:
        known = [name for name in PUBLISHED if name in source.resolve().name]
        numbers, distortion = PUBLISHED[known[0]] if known else (ROS_DEFAULT, ())  # type: ignore[assignment]
        name, stated = known[0] if known else "ROS default", (480, 640)
        note = f"intrinsics of {name} are assumed ({' '.join(map(str, numbers))}); state yours in camera.json"
        _LOG.warning("%s: %s", source, note)
        return _checked(source, numbers, stated, size, distortion), name, [note]
    return _checked(path, numbers, stated, size, distortion), path.name, []


def _checked(path: Path, numbers: Any, stated: Any, size: tuple[int, int], distortion: tuple[float, ...]) -> Lens:
    if tuple(stated) != size:
        raise ValueError(f"{path}: expected intrinsics of images of {list(size)} pixels, got of {list(stated)}")
    fx, fy, cx, cy = numbers
    return Lens((fx, fy), (cx + 0.5, cy + 0.5), size, distortion, BROWN).validate(path)
