"""Recorded frames at the size of a world's images."""

from mirage_sim.data.recordings.recording import RecordedFrame
from mirage_sim.world.images import fit, fit_depth


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
        depth = fit_depth(frame.depth, frame.camera, camera)
    return RecordedFrame(image, depth, camera, frame.stamp)
