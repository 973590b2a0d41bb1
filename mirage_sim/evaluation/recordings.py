"""``mirage recording``: show what is in a recording, make a world of it, and write that world for other programs."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.build import instantiate
from mirage_sim.data.recordings import RecordedFrame, Recording, open_recording, to_size
from mirage_sim.data.recordings.place import import_place, level_from_recording
from mirage_sim.evaluation.media import contact_sheet, save_image, top_down
from mirage_sim.geometry import unproject
from mirage_sim.io import check_folder
from mirage_sim.settings import RecordingExportSettings, RecordingImportSettings, RecordingInfoSettings
from mirage_sim.world import World
from mirage_sim.world.export import point_colours, save_grid, save_ply
from mirage_sim.world.occupancy import occupancy_map

_COLUMNS = 8  # of the contact sheet
_VIEWS = 48  # images whose depth is drawn into the map
_HEIGHT = 120  # pixels of an image in the sheet
_FAR = 8.0  # metres; farther points have one colour, and are not in the map


def describe_recording(settings: RecordingInfoSettings) -> dict[str, Any]:
    """Open a recording, and draw its map and contact sheet if an output folder is named.

    Returns:
        The fields of :class:`~mirage_sim.data.recordings.RecordingInfo`, and the files written.

    Raises:
        FileNotFoundError: for missing files.
        ValueError: for recordings that cannot be read.
        ImportError: if the library for bags is not installed.
    """
    recording = open_recording(settings.source, settings.topics.chosen())
    result = recording.info.as_dict()
    if settings.output:
        folder = Path(settings.output)
        drawn = {"map": (folder / "map.png", path_map(recording)), "sheet": (folder / "sheet.png", sheet(recording))}
        folder.mkdir(parents=True, exist_ok=True)
        for name, (path, image) in drawn.items():
            save_image(image, path)
            result[name] = str(path)
    return result


def import_recording(settings: RecordingImportSettings) -> dict[str, Any]:
    """Make a world from a recording and save it.

    Returns:
        ``output``, ``images``, ``keyframes``, ``points``, ``nbytes`` of the memory and ``images_per_s``.

    Raises:
        FileNotFoundError: for missing files.
        ValueError: for recordings that cannot be read, and an output that cannot be written; nothing is written then.
        ImportError: if the library for bags is not installed.
    """
    output = Path(settings.output)
    check_folder("output", output.absolute().parent)
    recording = open_recording(settings.source, settings.topics.chosen())
    place = import_place(recording, instantiate(settings.world), seed=settings.seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    place.world.save(output)
    map = place.world.state.map
    counts = {"images": place.images, "keyframes": len(place.keyframes), "images_per_s": place.images_per_s}
    return {"output": str(output), **counts, "points": int(map.points), "nbytes": int(map.nbytes)}


def export_world(settings: RecordingExportSettings) -> dict[str, Any]:
    """Write the memory of a saved world as a point cloud and as a map.

    Returns:
        ``points`` and ``grid``: the files written, and the height of the camera over the ``floor`` that was found.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no saved world, or nothing is to be written.
    """
    if settings.points is None and settings.grid is None:
        raise ValueError("points, grid: expected at least one of them, got neither")
    for name, file in (("points", settings.points), ("grid", settings.grid)):
        if file is not None:
            check_folder(name, Path(file).absolute().parent)
    model = instantiate(settings.world)
    world = World(model)
    world.load(settings.source)
    map, result = world.state.map, dict[str, Any]()
    if settings.points is not None:
        Path(settings.points).parent.mkdir(parents=True, exist_ok=True)
        save_ply(Path(settings.points), map, point_colours(model, map))
        result["points"] = settings.points
    if settings.grid is not None:
        entries = world.state.keyframes.entries if world.state.keyframes else ()
        heights = [float(camera.c2w[1, 3]) for camera in (world.camera, *(entry.camera for entry in entries))]
        Path(settings.grid).parent.mkdir(parents=True, exist_ok=True)
        grid = occupancy_map(map, max(heights), settings.resolution)
        result["grid"] = [str(path) for path in save_grid(Path(settings.grid), grid)]
        result["camera_height"] = round(grid.floor - max(heights), 3)
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
