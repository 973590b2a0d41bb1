"""nerfstudio's ``transforms.json``, which Polycam, Record3D and other apps of phones export."""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mirage_sim.data.recordings.files import inside, number, read_json, size_of
from mirage_sim.data.recordings.image_files import FileRecording, ImageFiles
from mirage_sim.data.recordings.lens import BROWN, FISHEYE, Lens

UNITS_PER_METRE = 1000.0
#: Camera axes of OpenGL (+x right, +y up, +z backward) from OpenCV's (+x right, +y down, +z forward).
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_DISTORTION = {
    "OPENCV": (BROWN, ("k1", "k2", "p1", "p2", "k3")),
    "PINHOLE": (BROWN, ()),
    "SIMPLE_PINHOLE": (BROWN, ()),
    "OPENCV_FISHEYE": (FISHEYE, ("k1", "k2", "k3", "k4")),
}


class NerfstudioRecording(FileRecording):
    """A folder with ``transforms.json``, or that file.

    Images are in the order of their ``timestamp`` (seconds) if every frame states one, else of their names, one per
    second.

    Raises:
        FileNotFoundError: for missing files.
        ValueError: for damaged ones.
    """

    layout = "nerfstudio"

    def __init__(self, source: Path):
        path = _file(source)
        content, folder = read_json(path), path.parent
        frames = content.get("frames")
        if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
            raise ValueError(f"{path}: expected a list 'frames' of objects, got {type(frames).__name__}")
        timed = all("timestamp" in frame for frame in frames)
        frames.sort(key=partial(_stamp, path) if timed else _natural)
        images = [inside(path, folder, frame.get("file_path")) for frame in frames]
        depths = [
            inside(path, folder, frame["depth_file_path"]) if frame.get("depth_file_path") else None for frame in frames
        ]
        stamps = [_stamp(path, frame) for frame in frames] if timed else range(len(frames))
        files = ImageFiles(
            stamps=np.array(stamps, dtype=np.float64),
            c2w=np.stack([_pose(path, frame) for frame in frames]) @ OPENGL_FROM_OPENCV,
            images=images,
            depths=depths,
        )
        lenses = [_lens(path, content | frame, image) for frame, image in zip(frames, images, strict=True)]
        sources = {"image": "frames[].file_path", "poses": path.name, "intrinsics": path.name}
        if any(depths):
            sources["depth"] = "frames[].depth_file_path"
        notes = [] if timed else ["the file states no times: images count as one per second"]
        super().__init__(source, files, lenses, UNITS_PER_METRE, sources, notes, timed)

    @classmethod
    def matches(cls, source: Path) -> bool:
        """Whether this is a JSON file, or a folder with ``transforms.json``."""
        return _file(source).suffix == ".json" and _file(source).is_file()


def _file(source: Path) -> Path:
    return source / "transforms.json" if source.is_dir() else source


def _natural(frame: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Sorts frame_9 before frame_10."""
    words = re.split(r"(\d+)", str(frame.get("file_path")))
    return [(int(word) if word.isdecimal() else 0, word) for word in words]


def _stamp(path: Path, frame: Mapping[str, Any]) -> float:
    return number(path, "timestamp", frame["timestamp"])


def _pose(path: Path, frame: Mapping[str, Any]) -> np.ndarray:
    try:
        pose = np.array(frame.get("transform_matrix"), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        pose = np.empty(0)
    if pose.shape != (4, 4):
        raise ValueError(f"{path}: expected 'transform_matrix' [4, 4] of {frame.get('file_path')!r}, got another")
    return pose


def _lens(path: Path, facts: Mapping[str, Any], image: Path) -> Lens:
    """The lens of a frame, whose own intrinsics come before those of the file."""
    read = partial(number, path)
    if (model := facts.get("camera_model", "OPENCV")) not in _DISTORTION:
        raise ValueError(f"{path}: expected a camera_model among {[*_DISTORTION]}, got {model!r}")
    size = (read("h", facts["h"]), read("w", facts["w"])) if {"h", "w"} <= facts.keys() else size_of(image)
    height, width = size
    if "fl_x" not in facts and "camera_angle_x" in facts:
        fx = width / 2 / math.tan(read("camera_angle_x", facts["camera_angle_x"]) / 2)
    else:
        fx = read("fl_x", facts.get("fl_x"))
    fy = read("fl_y", facts.get("fl_y", fx))
    centre = read("cx", facts.get("cx", width / 2)), read("cy", facts.get("cy", height / 2))
    distortion, names = _DISTORTION[model]
    coefficients = tuple(read(name, facts.get(name, 0.0)) for name in names)
    return Lens((fx, fy), centre, (int(height), int(width)), coefficients, distortion).validate(path)
