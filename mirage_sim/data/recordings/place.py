"""Turn a recording into a world: its images become keyframes, its depth the memory."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mirage_sim.ambient import own_torch
from mirage_sim.data.recordings.prepare import to_size
from mirage_sim.data.recordings.recording import RecordedFrame, Recording
from mirage_sim.geometry import Camera
from mirage_sim.protocols import MemoryView
from mirage_sim.world import World, WorldModel

logger = logging.getLogger(__name__)

NEW = 0.1  # share of an image's cells that the memory must lack for the image to become a keyframe
_COARSE = -1.0  # log2 of the scale below which a remembered cell counts as lacking: it was written twice too coarsely
_CHANGED = 0.2  # metres, and share of the distance, by which measured depth contradicts the memory
_UPRIGHT = 20.0  # degrees between the mean camera and an axis of the recording within which that axis is vertical


@dataclass(frozen=True)
class ImportedPlace:
    """A world made from a recording.

    Attributes:
        world: at its first keyframe, at time 0.
        keyframes: numbers of the images that became keyframes.
        images: number of images that were looked at.
        images_per_s: rate of the import.
    """

    world: World
    keyframes: tuple[int, ...]
    images: int
    images_per_s: float


def level_from_recording(recording: Recording) -> NDArray[np.float64]:
    """Return the motion ``[4, 4]`` from a recording's axes to level ones at its first camera: +y down, +z ahead.

    Recordings do not state which way is down. People and robots hold cameras roughly upright, so the mean of the
    cameras' +y axes is close to it; if an axis of the recording's frame is within 20 degrees of that mean, the frame
    was aligned with gravity, and that axis is down.
    """
    down = recording.c2w[:, :3, 1].mean(axis=0)
    down /= max(float(np.linalg.norm(down)), 1e-9)
    axis = int(np.abs(down).argmax())
    if abs(down[axis]) >= np.cos(np.radians(_UPRIGHT)):
        down = np.sign(down[axis]) * np.eye(3)[axis]
    ahead = max(recording.c2w[0, :3, 2], -recording.c2w[0, :3, 1], key=lambda axis: 1 - abs(float(axis @ down)))
    right = np.cross(down, ahead)
    right /= max(float(np.linalg.norm(right)), 1e-9)
    level = np.eye(4)
    level[:3, :3] = np.stack([right, down, np.cross(right, down)])
    level[:3, 3] = -level[:3, :3] @ recording.c2w[0, :3, 3]
    return level


def level_frame(frame: RecordedFrame, level: NDArray[np.float64], size: tuple[int, int]) -> RecordedFrame:
    """Return a frame at a world's image size, with its pose in level axes (:func:`level_from_recording`)."""
    c2w = torch.from_numpy(level @ frame.camera.c2w.double().numpy()).float()
    return to_size(replace(frame, camera=Camera(c2w, frame.camera.K, frame.camera.size)), size)


@own_torch()
def import_place(
    recording: Recording, model: WorldModel, numbers: Sequence[int] | None = None, seed: int = 0
) -> ImportedPlace:
    """Make a world from a recording, in one pass and with bounded memory.

    An image becomes a keyframe if the memory lacks at least :data:`NEW` of what it shows. Where the recording has no
    depth, the world model estimates it.

    Args:
        recording: opened by :func:`~mirage_sim.data.recordings.open_recording`.
        model: of the world.
        numbers: ascending numbers of the images to use; None for all.
        seed: decides everything that will be generated.

    Raises:
        ValueError: if a file of the recording is damaged.
    """
    world, level, images = World(model), level_from_recording(recording), 0
    keyframes: list[int] = []
    chosen = list(range(len(recording)) if numbers is None else numbers)
    started = time.perf_counter()
    for number, frame in zip(chosen, tqdm(recording.frames(chosen), "import", len(chosen), unit="image"), strict=True):
        levelled = level_frame(frame, level, model.size)
        images += 1
        if not keyframes:
            world.reset(levelled.image, camera=levelled.camera, seed=seed, depth=_measured(levelled))
        elif lacking(world, levelled) >= NEW:
            world.observe(levelled.image, levelled.camera, _measured(levelled))
        else:
            continue
        keyframes.append(number)
    world.restart(seed, 0 if world.state.keyframes else None)
    rate = images / max(time.perf_counter() - started, 1e-9)
    logger.info("%d of %d images became keyframes, %.0f images/s", len(keyframes), images, rate)
    return ImportedPlace(world, tuple(keyframes), images, round(rate, 1))


def lacking(world: World, frame: RecordedFrame) -> float:
    """Return the share of a frame's cells that the memory does not show, or shows only coarsely."""
    return _lacking(_read(world, frame), world)


def _lacking(view: MemoryView, world: World) -> float:
    view = view.resize(world.model.grid)
    shown = view.visible & (view.log_scale >= _COARSE)
    return float(1.0 - shown.float().mean())


def news(world: World, frame: RecordedFrame) -> float:
    """Return the share of an image's cells that the memory lacks, or where measured depth contradicts it."""
    view = _read(world, frame)
    share = _lacking(view, world)
    if share >= NEW or frame.depth is None:
        return share
    known = view.surface(world.model.grid)[0].cpu().numpy()
    rows, columns = (
        np.arange(cells) * side // cells + side // (2 * cells)
        for cells, side in zip(known.shape, frame.depth.shape, strict=True)
    )
    depth = frame.depth[np.ix_(rows, columns)]
    changed = (known > 0) & (depth > 0) & (np.abs(depth - known) > np.maximum(_CHANGED * known, _CHANGED))
    return share + float(changed.mean())


def _read(world: World, frame: RecordedFrame) -> MemoryView:
    """Return what the memory shows at the camera of a frame."""
    camera = frame.camera.to(world.model.device)
    with torch.inference_mode():
        return world.model.memory.read(world.state.map, Camera(camera.c2w[None], camera.K[None], camera.size))


def _measured(frame: RecordedFrame) -> NDArray[np.float32] | None:
    return frame.depth if frame.depth is not None and (frame.depth > 0).any() else None
