"""RealEstate10K's camera files beside their frames."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.recordings.files import MAX_TEXT, check_file, size_of
from mirage_sim.data.recordings.image_files import FileRecording, ImageFiles
from mirage_sim.data.recordings.lens import Lens
from mirage_sim.data.video_io import image_files


def pose_lines(path: Path) -> NDArray[np.float64]:
    """Read the lines of a pose file of RealEstate10K, ``[n, 19]``."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a readable text file: {error}") from error
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if line.strip() and (len(row) != 19 or not np.isfinite(row).all()):
            raise ValueError(f"{path}: line {number}: expected 19 finite numbers, got {line[:60]!r}")
        if line.strip():
            rows.append(row)
    if not rows:
        raise ValueError(f"{path}: expected the address of a video and a line per frame, got {len(lines)} lines")
    return np.array(rows)


class RealEstate10kRecording(FileRecording):
    """``NAME.txt`` beside a folder ``NAME`` of frames that are named by their microseconds; or the folder of both.

    Raises:
        FileNotFoundError: for missing frames.
        ValueError: for damaged files, and frames that the camera file does not list.
    """

    layout = "realestate10k"

    def __init__(self, source: Path):
        path = _camera_file(source)
        if path is None:
            raise ValueError(f"{source}: expected one camera file NAME.txt beside its folder of frames NAME")
        folder = path.with_suffix("")
        check_file(path, MAX_TEXT)
        rows = pose_lines(path)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        files = image_files(folder)
        images = [files.get(int(row[0])) for row in rows]
        if missing := [int(row[0]) for row, image in zip(rows, images, strict=True) if image is None]:
            raise FileNotFoundError(
                f"{path}: expected a frame for each of {len(rows)} lines in {folder}, "
                f"got none named {missing[0]} ({len(missing)} missing)"
            )
        found = [image for image in images if image is not None]
        height, width = size_of(found[0])
        w2c = np.tile(np.eye(4), (len(rows), 1, 1))
        w2c[:, :3] = rows[:, 7:].reshape(-1, 3, 4)
        c2w = np.tile(np.eye(4), (len(rows), 1, 1))
        c2w[:, :3, :3] = w2c[:, :3, :3].transpose(0, 2, 1)  # if it is no rotation, neither is its transpose
        c2w[:, :3, 3:] = -c2w[:, :3, :3] @ w2c[:, :3, 3:]
        lenses = [
            Lens((fx * width, fy * height), (cx * width, cy * height), (height, width)).validate(path)
            for fx, fy, cx, cy in rows[:, 1:5].tolist()
        ]
        super().__init__(
            source,
            ImageFiles(rows[:, 0] / 1e6, c2w, found, [None] * len(found)),
            lenses,
            1.0,
            {"image": f"{folder.name}/", "poses": path.name, "intrinsics": path.name},
            ["lengths are in the unit of this recording, which is arbitrary"],
        )

    @classmethod
    def matches(cls, source: Path) -> bool:
        """Whether one text file has a folder of its name beside it."""
        return _camera_file(source) is not None


def _camera_file(source: Path) -> Path | None:
    paths = sorted(source.glob("*.txt")) if source.is_dir() else [source]
    paths = [path for path in paths if path.suffix == ".txt" and path.with_suffix("").is_dir()]
    return paths[0] if len(paths) == 1 else None
