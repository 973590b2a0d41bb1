"""RealEstate10K's camera files beside their frames."""

from pathlib import Path

import numpy as np

from mirage_sim.data.recordings.files import MAX_TEXT, check_file, size_of
from mirage_sim.data.recordings.image_files import FileRecording, ImageFiles
from mirage_sim.data.recordings.lens import Lens
from mirage_sim.data.video_datasets import pose_lines
from mirage_sim.data.video_io import image_files


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
        rows = np.asarray(pose_lines(path), dtype=np.float64)
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
