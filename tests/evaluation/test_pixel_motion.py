import cv2
import numpy as np
import pytest

from mirage_sim.evaluation.pixel_motion import motion_from_pixels, rotation_angle

K = np.array([[83.0, 0.0, 64.0], [0.0, 83.0, 48.0], [0.0, 0.0, 1.0]])


def plane(motion: np.ndarray, depth: float = 3.0) -> np.ndarray:
    """Render a textured plane at z = depth of the first camera, from a camera that has moved."""
    texture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    texture = cv2.resize(texture, (480, 360), interpolation=cv2.INTER_CUBIC)  # 80 pixels per metre
    to_plane = np.array([[1 / 80, 0, -3.0], [0, 1 / 80, -2.25], [0, 0, depth]])
    w2c = np.linalg.inv(motion)
    pixels = K @ (w2c[:3, :3] @ to_plane + np.outer(w2c[:3, 3], [0, 0, 1]))
    half = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])  # to OpenCV's pixel centres
    return cv2.warpPerspective(texture, half @ pixels, (128, 96), flags=cv2.INTER_AREA)


def moved(right: float, forward: float, degrees: float) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(np.array([0.0, np.radians(degrees), 0.0]))[0]
    motion[:3, 3] = right, 0.0, forward
    return motion


@pytest.mark.parametrize(
    "motion", [moved(0, 0.3, 0), moved(0, 0, 6), moved(0.1, 0.2, -4)], ids=["ahead", "turn", "arc"]
)
def test_motion_of_a_textured_plane_is_recovered(motion: np.ndarray) -> None:
    depth = np.full((96, 128), 3.0, np.float32)
    found = motion_from_pixels(plane(np.eye(4)), plane(motion), depth, K)
    assert found is not None
    assert rotation_angle(found[:3, :3].T @ motion[:3, :3]) < 0.5
    assert np.linalg.norm(found[:3, 3] - motion[:3, 3]) < 0.04


def test_images_without_texture_give_no_motion() -> None:
    grey = np.full((96, 128, 3), 90, np.uint8)
    assert motion_from_pixels(grey, grey, np.full((96, 128), 3.0, np.float32), K) is None
