"""Recorded frames at the size of a world's images."""

import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.recordings.recording import RecordedFrame
from mirage_sim.geometry import Camera
from mirage_sim.world.images import fit


def to_size(frame: RecordedFrame, size: tuple[int, int]) -> RecordedFrame:
    """A frame cut to the middle of ``size``'s aspect ratio and resized, with its depth and camera.

    Colours are averaged; depth takes the nearest pixel, so that no value mixes two surfaces, or metres with unknown 0.

    Args:
        frame: of a recording.
        size: ``(height, width)`` wanted.
    """
    image, camera = fit(frame.image, frame.camera, size)
    depth = None
    if frame.depth is not None:
        rows, columns = _pixels(frame.camera, camera, 1), _pixels(frame.camera, camera, 0)
        depth = np.ascontiguousarray(frame.depth[rows[:, None], columns])
    return RecordedFrame(image, depth, camera, frame.stamp)


def _pixels(before: Camera, after: Camera, axis: int) -> NDArray[np.intp]:
    """Rows (axis 1) or columns (0) of the pixels of one camera that hold the centres of the pixels of another."""
    side = 1 - axis
    focal, centre = (before.K[axis, at].double().item() for at in (axis, 2))
    new_focal, new_centre = (after.K[axis, at].double().item() for at in (axis, 2))
    at = (np.arange(after.size[side]) + 0.5 - new_centre) / new_focal * focal + centre
    return np.clip(np.floor(at + 1e-4), 0, before.size[side] - 1).astype(np.intp)
