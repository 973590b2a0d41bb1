"""``mirage recording info``: what is in a recording, as facts and as images for people."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.data.recordings import RecordedFrame, Recording, open_recording, to_size
from mirage_sim.data.recordings.place import level_from_recording
from mirage_sim.evaluation.media import contact_sheet, save_image, top_down
from mirage_sim.geometry import unproject

_COLUMNS = 8  # of the contact sheet
_VIEWS = 48  # images whose depth is drawn into the map
_HEIGHT = 120  # pixels of an image in the sheet
_FAR = 8.0  # metres; farther points have one colour, and are not in the map


def describe_recording(config: dict[str, Any]) -> dict[str, Any]:
    """Open a recording, and draw its map and contact sheet if an output folder is named.

    Args:
        config: as ``configs/recording.yaml`` composes it.

    Returns:
        The fields of :class:`~mirage_sim.data.recordings.RecordingInfo`, and the files written.

    Raises:
        FileNotFoundError: for missing files.
        ValueError: for recordings that cannot be read.
        ImportError: if the library for bags is not installed.
    """
    topics = {role: topic for role, topic in config["topics"].items() if topic}
    recording = open_recording(config["source"], topics)
    result = recording.info.as_dict()
    if config["output"]:
        folder = Path(config["output"])
        drawn = {"map": (folder / "map.png", path_map(recording)), "sheet": (folder / "sheet.png", sheet(recording))}
        folder.mkdir(parents=True, exist_ok=True)
        for name, (path, image) in drawn.items():
            save_image(image, path)
            result[name] = str(path)
    return result


def sheet(recording: Recording) -> Any:
    """Contact sheet of images and depth at equal distances in time, as an image of Pillow."""
    frames = [_small(frame) for frame in recording.frames(_spread(recording, _COLUMNS))]
    rows = {"image": [frame.image for frame in frames]}
    if recording.info.depth:
        unknown = np.zeros(frames[0].image.shape[:2], dtype=np.float32)
        rows["depth"] = [coloured(unknown if frame.depth is None else frame.depth) for frame in frames]
    return contact_sheet(rows, [f"{frame.stamp - recording.stamps[0]:.1f} s" for frame in frames], scale=1)


def path_map(recording: Recording) -> Any:
    """The camera's path from above, over what its depth shows, as an image of Pillow."""
    level = level_from_recording(recording)
    points, colours = [np.empty((0, 3))], [np.empty((0, 3), dtype=np.uint8)]
    for frame in recording.frames(_spread(recording, _VIEWS)) if recording.info.depth else ():
        frame = _small(frame)
        if frame.depth is not None:
            known = (frame.depth > 0) & (frame.depth < _FAR)
            points.append(unproject(torch.from_numpy(frame.depth), frame.camera).numpy()[known])
            colours.append(frame.image[known])
    cameras = level @ recording.c2w
    return top_down(
        np.concatenate(points) @ level[:3, :3].T + level[:3, 3],
        np.concatenate(colours),
        cameras[:, :3, 3],
        cameras[:, :3, 2],
    )


def coloured(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth ``[H, W]`` as colours, uint8 ``[H, W, 3]``: near is red, unknown is black."""
    code = np.clip(255 - depth / _FAR * 255, 0, 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(code, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return np.where(depth[..., None] > 0, colours, 0).astype(np.uint8)


def _spread(recording: Recording, count: int) -> list[int]:
    return np.unique(np.linspace(0, len(recording) - 1, count).astype(int)).tolist()


def _small(frame: RecordedFrame) -> RecordedFrame:
    height, width = frame.image.shape[:2]
    return to_size(frame, (_HEIGHT, round(width * _HEIGHT / height)))
