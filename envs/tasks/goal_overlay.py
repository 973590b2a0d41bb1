"""Drawing of goals into frames."""

import numpy as np

from mirage_sim.geometry import NEAR, Camera

COLOUR = (255, 0, 255)
BALL = 0.25  # metres, radius of the ball
INSET = 3  # the inset image is this many times smaller than the frame


def with_ball(frame: np.ndarray, position: np.ndarray, camera: Camera) -> np.ndarray:
    """Draw a ball at a position, or at the edge of the frame if the position is out of view.

    Args:
        frame: uint8 ``[H, W, 3]``.
        position: ``[3]`` metres, in camera axes.
        camera: of the frame.

    Returns:
        A new frame. The radius of the ball is clipped to between 1/32 and 1/4 of the frame's height.
    """
    height, width = frame.shape[:2]
    K = camera.K.double().numpy()
    right, down, forward = position
    if forward > NEAR:
        column, row = K[0, 0] * right / forward + K[0, 2], K[1, 1] * down / forward + K[1, 2]
        radius = K[0, 0] * BALL / forward
    else:
        column, row, radius = np.copysign(np.inf, right), K[1, 2], 0.0
    column, row = np.clip(column, 0, width), np.clip(row, 0, height)
    radius = np.clip(radius, height / 32, height / 4)
    rows, columns = np.ogrid[:height, :width]
    drawn = frame.copy()
    drawn[(columns + 0.5 - column) ** 2 + (rows + 0.5 - row) ** 2 <= radius**2] = COLOUR
    return drawn


def with_inset(frame: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Draw a small copy of an image of the frame's size into the upper left corner, with a white border."""
    height, width = (side // INSET for side in image.shape[:2])
    blocks = image[: height * INSET, : width * INSET].reshape(height, INSET, width, INSET, 3)
    shown = frame.copy()
    shown[: height + 1, : width + 1] = 255
    shown[:height, :width] = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    return shown
