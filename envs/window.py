"""The window of ``render_mode="human"``. Only this module needs OpenCV and a display."""

import os
import sys
from types import ModuleType

import numpy as np
from gymnasium.error import DependencyNotInstalled


def frames_per_second(dt: float) -> int | float:
    """Return the rate of frames that are ``dt`` seconds apart, as an int if whole: some video tools require one."""
    rate = round(1 / dt)
    return rate if abs(rate * dt - 1) < 1e-9 else 1 / dt


class Window:
    """A window that opens with the first frame.

    Args:
        title: of the window; OpenCV shares windows of the same title.
    """

    def __init__(self, title: str):
        self.title = title
        self._open = False

    def show(self, frame: np.ndarray) -> None:
        """Show a frame, uint8 RGB ``[H, W, 3]``.

        Raises:
            gymnasium.error.DependencyNotInstalled: if there is no display or OpenCV is not installed.
        """
        cv2 = _opencv()
        if not self._open:
            # Checked first, because Qt ends the process if it finds no display.
            if sys.platform.startswith("linux") and not (
                os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            ):
                raise DependencyNotInstalled(
                    'render_mode "human" needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; '
                    'use render_mode="rgb_array"'
                )
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL)
            self._open = True
        cv2.imshow(self.title, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        cv2.waitKey(1)

    def close(self) -> None:
        """Close the window if it is open."""
        if self._open:
            _opencv().destroyWindow(self.title)
            self._open = False


def _opencv() -> ModuleType:
    """Import OpenCV late: its wheel needs system libraries that headless machines may lack.

    Raises:
        gymnasium.error.DependencyNotInstalled: if it cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyNotInstalled(
            f'render_mode "human" needs OpenCV, which cannot be imported ({error}); on Debian and Ubuntu, '
            '`apt-get install libgl1 libglib2.0-0` installs what it needs; or use render_mode="rgb_array"'
        ) from error
    return cv2
