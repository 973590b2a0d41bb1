"""Checks of what users pass to a world."""

from typing import Any

import numpy as np

from mirage_sim.geometry import Camera


def check_seed(seed: Any) -> None:
    """Check that ``seed`` is an integer in [0, 2^63).

    Raises:
        ValueError: otherwise.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise ValueError(f"seed: expected an integer in [0, 2^63), got {seed!r}")


def number(name: str, value: Any) -> float:
    """Check that the argument of this name is a number, and return it as a float.

    Raises:
        ValueError: otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise ValueError(f"{name}: expected a number, got {value!r}")
    return float(value)


def single_camera(camera: Any, size: tuple[int, int]) -> Camera:
    """Check that ``camera`` is one valid camera of the expected size, and return it.

    Raises:
        ValueError: otherwise.
    """
    if not isinstance(camera, Camera):
        raise ValueError(f"camera: expected a Camera, got {type(camera).__name__}")
    camera.validate()
    if tuple(camera.batch_shape) != () or tuple(camera.size) != tuple(size):
        raise ValueError(
            f"camera: expected one camera, batch shape [], of size {tuple(size)}, "
            f"got batch shape {list(camera.batch_shape)} and size {tuple(camera.size)}"
        )
    return camera
