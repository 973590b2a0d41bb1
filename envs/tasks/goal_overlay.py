"""Goals drawn into frames, for agents that see nothing else."""

import numpy as np

from mirage_sim.geometry import NEAR, Camera

COLOUR = (255, 0, 255)
BALL = 0.25  # metres, its radius
INSET = 3  # the picture's sides are divided by this


def with_mark(frame: np.ndarray, place: np.ndarray, camera: Camera) -> np.ndarray:
    """The frame with a ball at a place; where that is out of view, at the edge on its side.

    Args:
        frame: uint8 ``[H, W, 3]``.
        place: ``[3]`` metres, in camera axes.
        camera: that took the frame.

    Returns:
        A new frame. The ball's radius on it is limited to between 1/32 and 1/4 of the frame's height.
    """
    height, width = frame.shape[:2]
    K = camera.K.double().numpy()
    right, down, forward = place
    if forward > NEAR:
        column, row = K[0, 0] * right / forward + K[0, 2], K[1, 1] * down / forward + K[1, 2]
        radius = K[0, 0] * BALL / forward
    else:
        column, row, radius = np.copysign(np.inf, right), K[1, 2], 0.0
    column, row = np.clip(column, 0, width), np.clip(row, 0, height)
    radius = np.clip(radius, height / 32, height / 4)
    rows, columns = np.ogrid[:height, :width]
    marked = frame.copy()
    marked[(columns + 0.5 - column) ** 2 + (rows + 0.5 - row) ** 2 <= radius**2] = COLOUR
    return marked


def with_inset(frame: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The frame with a small copy of a picture of the same size in its upper left corner, a white line around it."""
    height, width = (side // INSET for side in image.shape[:2])
    blocks = image[: height * INSET, : width * INSET].reshape(height, INSET, width, INSET, 3)
    shown = frame.copy()
    shown[: height + 1, : width + 1] = 255
    shown[:height, :width] = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    return shown
