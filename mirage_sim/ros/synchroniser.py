"""Images of a robot with the depth, the lens and the pose that belong to them, by their stamps. Needs no ROS."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.data.recordings.bag_messages import depth_of, image_of, lens_of_message
from mirage_sim.data.recordings.lens import undistort
from mirage_sim.data.recordings.recording import RecordedFrame
from mirage_sim.data.recordings.transform_tree import TransformTree
from mirage_sim.geometry import Camera
from mirage_sim.ros import conversions
from mirage_sim.ros.frames import Array, base_from_camera, inverse

TOLERANCE = 0.05  # seconds between an image and its depth
DEPTH_WAIT, POSE_WAIT = 0.5, 1.0  # seconds of wall clock that an image waits for depth and for a pose
SILENCE = 2.0  # seconds of wall clock without an image after which the camera counts as stopped
MAX_JUMP, MAX_SPEED = 1.0, 10.0  # metres between two images, metres per second: both at once are no motion
_CLOCK_JUMP = 10.0  # seconds between two images that did not pass on the wall clock
_HISTORY = 10.0  # seconds of transforms that are kept
_IMAGES, _DEPTHS = 32, 64  # messages that are kept
_ASPECT = 0.02  # relative difference of the aspect ratios of image and depth
_SOURCE = Path("robot")  # named in errors

logger = logging.getLogger(__name__)


class Problems:
    """The latest problem of each kind since the last report. Thread-safe.

    Args:
        log: called with the text of a problem that the previous report did not contain.
    """

    def __init__(self, log: Callable[[str], Any] = logger.warning):
        self._log = log
        self._lock = threading.Lock()
        self._found: dict[str, str] = {}
        self._reported: dict[str, str] = {}

    def add(self, kind: str, text: str) -> None:
        """Add a problem; it replaces the previous one of its kind."""
        with self._lock:
            new = kind not in self._found and kind not in self._reported
            self._found[kind] = text
        if new:
            self._log(f"{kind}: {text}")

    def take(self) -> dict[str, str]:
        """Return the problems by kind, and forget them."""
        with self._lock:
            self._reported, self._found = self._found, {}
            return self._reported


@dataclass(frozen=True)
class _Arrived:
    """A message with its stamp in seconds and its time of arrival on the wall clock."""

    stamp: float
    arrived: float
    message: Any


class Synchroniser:
    """Collects the messages of a robot, and makes observations of them. Thread-safe.

    The newest image for which everything has arrived is observed; older ones are left out. An image waits at most
    0.5 s for its depth, and is then observed without; it waits at most 1 s for its pose, and is then left out.

    Poses are those of the image's frame in the root of the transforms. `map` of this package coincides with that root.

    Args:
        problems: receives what is wrong with the messages.
        camera_height: metres from ``base_link`` to the camera.
        mounted: whether transforms tell where the camera is mounted. If False, the camera is assumed to look ahead,
            `camera_height` above the frame whose motion odometry reports.
        rectified: whether the images have no distortion, whatever the coefficients of their lens are.
    """

    def __init__(self, problems: Problems, camera_height: float, mounted: bool, rectified: bool = False):
        self._problems, self._height, self._mounted, self._rectified = problems, camera_height, mounted, rectified
        self._lock = threading.Lock()
        self._images: deque[_Arrived] = deque(maxlen=_IMAGES)
        self._depths: deque[_Arrived] = deque(maxlen=_DEPTHS)
        self._tree = TransformTree()
        self._info: Any = None
        self._base = ""  # frame whose motion odometry reports
        self._last: _Arrived | None = None  # image
        self._last_pose: tuple[float, Array] | None = None
        self._depth_comes = False
        self.received = 0

    def add_image(self, message: Any, now: float) -> None:
        """Add a ``sensor_msgs/Image`` or ``CompressedImage`` that arrived at `now` on the wall clock."""
        image = _Arrived(conversions.seconds_of(message.header.stamp), now, message)
        with self._lock:
            self.received += 1
            if self._last and (jump := self._jump(self._last, image)):
                self._problems.add("clock", jump)
                self._images.clear()
                self._depths.clear()
                self._tree.forget(float("inf"))
                self._last_pose = None
            self._images.append(image)
            self._last = image

    def add_depth(self, message: Any, now: float) -> None:
        """Add a depth image that arrived at `now` on the wall clock."""
        with self._lock:
            self._depth_comes = True
            self._depths.append(_Arrived(conversions.seconds_of(message.header.stamp), now, message))

    def add_camera_info(self, message: Any) -> None:
        """Add a ``sensor_msgs/CameraInfo``."""
        with self._lock:
            self._info = message

    def add_odometry(self, message: Any) -> None:
        """Add a ``nav_msgs/Odometry``."""
        with self._lock:
            self._base = message.child_frame_id
            self._tree.add_odometry(message)
            self._forget(message.header)

    def add_transforms(self, message: Any, static: bool) -> None:
        """Add a ``tf2_msgs/TFMessage``."""
        with self._lock:
            self._tree.add(message, static)
            if message.transforms and not static:
                self._forget(message.transforms[-1].header)

    @property
    def waiting(self) -> bool:
        """Whether images wait for depth or a pose."""
        return bool(self._images)

    def silence(self, now: float) -> float:
        """Return the seconds since the last image arrived; infinite without one."""
        return now - self._last.arrived if self._last else float("inf")

    def take(self, now: float) -> RecordedFrame | None:
        """Return the newest complete observation that was not returned yet, None if there is none.

        Its camera is in the world of this package: OpenCV axes, metres.

        Args:
            now: time on the wall clock.
        """
        with self._lock:
            found = self._newest(now)
            info = self._info
        if found is None:
            return None
        image, depth, c2w = found
        try:
            return self._observation(image, depth, c2w, info)
        except ValueError as error:
            self._problems.add("image", str(error))
            return None

    def _newest(self, now: float) -> tuple[_Arrived, _Arrived | None, Array] | None:
        for number in reversed(range(len(self._images))):
            image = self._images[number]
            age = now - image.arrived
            depth = min(self._depths, key=lambda each: abs(each.stamp - image.stamp), default=None)
            if depth and abs(depth.stamp - image.stamp) > TOLERANCE:
                depth = None
            if depth is None and age < DEPTH_WAIT and (self._depth_comes or self._last_pose is None):
                continue
            if (c2w := self._pose(image, age)) is None:
                continue
            if depth is None and self._depth_comes:
                self._problems.add("depth", f"expected depth within {TOLERANCE} s of the image at {image.stamp:.3f} s")
            for _ in range(number + 1):
                self._images.popleft()
            return image, depth, c2w
        while self._images and now - self._images[0].arrived > POSE_WAIT:
            self._images.popleft()
        return None

    def _pose(self, image: _Arrived, age: float) -> Array | None:
        """Return the pose of the camera in the root of the transforms, or None if it is not known."""
        frame = image.message.header.frame_id
        if not self._mounted and self._base and not self._tree.knows(frame):
            self._tree.add(_mount(self._base, frame, self._height), static=True)
        try:
            c2w, known, chain = self._tree.camera(_SOURCE, frame, np.array([image.stamp]))
            first, last = self._tree.span(frame)
        except ValueError as error:
            if age > POSE_WAIT:
                self._problems.add("pose", str(error))
            return None
        if known[0] and first <= image.stamp <= last:
            return np.asarray(c2w[0])
        if age > POSE_WAIT:
            self._problems.add(
                "pose",
                f"expected transforms of {chain} at the image's {image.stamp:.3f} s, got {first:.3f} to {last:.3f} s",
            )
        return None

    def _observation(self, image: _Arrived, depth: _Arrived | None, c2w: Array, info: Any) -> RecordedFrame | None:
        before, self._last_pose = self._last_pose, (image.stamp, c2w)
        if before is not None:
            way = float(np.linalg.norm(c2w[:3, 3] - before[1][:3, 3]))
            seconds = max(image.stamp - before[0], 1e-9)
            if way > MAX_JUMP and way / seconds > MAX_SPEED:
                self._problems.add("jump", f"expected a pose near the last one, got {way:.2f} m after {seconds:.3f} s")
                return None
        if info is None:
            raise ValueError("expected a camera_info before the image, got none")
        lens = lens_of_message(_SOURCE, "camera_info", info, self._rectified)
        pixels = image_of(_SOURCE, "image", image.message)
        if pixels.shape[:2] != lens.size:
            raise ValueError(f"expected {lens.size} pixels as in camera_info, got {pixels.shape[:2]}")
        measured = None if depth is None else self._measured(depth.message, lens.size)
        pixels, measured, K = undistort(_SOURCE, lens, pixels, measured)
        world = torch.from_numpy(inverse(base_from_camera(self._height)) @ c2w).float()
        return RecordedFrame(pixels, measured, Camera(world, torch.from_numpy(K).float(), lens.size), image.stamp)

    def _measured(self, message: Any, size: tuple[int, int]) -> NDArray[np.float32] | None:
        """Return depth at the size of the image, or None if it is unusable."""
        try:
            depth = depth_of(_SOURCE, "depth", message)
            height, width = depth.shape
            if abs(height * size[1] / (width * size[0]) - 1) > _ASPECT:
                raise ValueError(f"expected depth with the proportions of the image {size}, got {depth.shape}")
            if not (depth > 0).any():
                raise ValueError("expected known pixels, got none")
        except ValueError as error:
            self._problems.add("depth", str(error))
            return None
        if depth.shape != size:
            depth = np.asarray(cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
        return depth

    def _forget(self, header: Any) -> None:
        self._tree.forget(conversions.seconds_of(header.stamp) - _HISTORY)

    @staticmethod
    def _jump(last: _Arrived, image: _Arrived) -> str:
        """Describe a jump of the clock between two images; empty without one."""
        passed, elapsed = image.stamp - last.stamp, image.arrived - last.arrived
        if passed < 0 or passed - elapsed > _CLOCK_JUMP:
            return f"expected stamps that follow {last.stamp:.3f} s, got {image.stamp:.3f} s after {elapsed:.1f} s"
        return ""


def _mount(base: str, frame: str, height: float) -> Any:
    """Return a ``tf2_msgs/TFMessage`` with a camera that looks ahead above `base`."""
    fields = conversions.transform(base_from_camera(height), base, frame, 0.0)
    return SimpleNamespace(transforms=[_namespace(fields)])


def _namespace(fields: Any) -> Any:
    if not isinstance(fields, dict):
        return fields
    return SimpleNamespace(**{name: _namespace(value) for name, value in fields.items()})
