"""What a recording of a place is: images with poses, and depth where there is some, in time order."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.data.recordings.lens import Lens, undistort
from mirage_sim.data.recordings.poses import check_poses
from mirage_sim.geometry import Camera

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]
Array = NDArray[np.float64]

DEPTH_RANGE = (0.05, 200.0)  # metres in which the median of a depth image can lie
_SAMPLE = 3  # images that are decoded when a recording is opened
_ASPECT = 0.02  # relative difference of the aspect ratios of image and depth


@dataclass(frozen=True)
class RecordedFrame:
    """One image of a recording, without lens distortion.

    Attributes:
        image: uint8 RGB ``[H, W, 3]``.
        depth: z-depth, float32 ``[H, W]``, metres, 0 where unknown; None if the recording has none for this image.
        camera: batch shape ``()``, size ``(H, W)``; its pose is in the recording's own world frame.
        stamp: seconds, as recorded.
    """

    image: Image
    depth: Depth | None
    camera: Camera
    stamp: float


@dataclass(frozen=True)
class RecordingInfo:
    """What is known about a recording before it is read.

    Attributes:
        layout: name of the layout, see :data:`mirage_sim.data.recordings.LAYOUTS`.
        images: number of images with a pose.
        duration_s: from the first image to the last.
        size: ``(height, width)`` of the first image, in pixels.
        rate_hz: images per second, from the median interval; None where the recording has no times.
        largest_gap_s: longest time between successive images.
        path_m: length of the camera's path, metres (in the recording's unit where it has no metric scale).
        depth: number of images with depth.
        sources: files or topics used, by role.
        notes: what a user should know: assumptions made, images left out.
    """

    layout: str
    images: int
    duration_s: float
    size: tuple[int, int]
    rate_hz: float | None
    largest_gap_s: float
    path_m: float
    depth: int
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)


class Recording(ABC):
    """A recording that was opened and checked: stamps and poses are in memory, images and depth stay in their files.

    A layout is a subclass: a ``layout`` name, :meth:`matches`, a constructor of ``source`` that ends with this one, and
    :meth:`_load`.

    Args:
        source: file or folder.
        stamps: of the images, ``[N]`` seconds, ascending.
        c2w: camera-to-world poses ``[N, 4, 4]``, OpenCV axes.
        lenses: one for all images, or one for each.
        has_depth: ``[N]`` bool, which images have depth.
        sources: files or topics used, by role.
        notes: for :class:`RecordingInfo`.
        timed: False if the stamps only count the images.

    Raises:
        ValueError: if there are no images, stamps do not ascend, or a pose is not rigid or jumps.
    """

    layout: ClassVar[str]

    def __init__(
        self,
        source: Path,
        stamps: Array,
        c2w: Array,
        lenses: Sequence[Lens],
        has_depth: NDArray[np.bool_],
        sources: Mapping[str, str],
        notes: Sequence[str] = (),
        timed: bool = True,
    ):
        if not len(stamps):
            raise ValueError(f"{source}: expected images with poses, got none")
        intervals = np.diff(stamps)
        if not np.isfinite(stamps).all() or not (intervals > 0).all():
            raise ValueError(f"{source}: expected finite stamps that ascend, got {_first_wrong(stamps)}")
        check_poses(source, stamps, c2w, timed)
        self.source, self.stamps, self.c2w = source, stamps, c2w
        self._lenses, self._has_depth = lenses, has_depth
        self.info = RecordingInfo(
            layout=self.layout,
            images=len(stamps),
            duration_s=round(float(stamps[-1] - stamps[0]), 6),
            size=lenses[0].size,
            rate_hz=round(float(1 / np.median(intervals)), 3) if timed and len(intervals) else None,
            largest_gap_s=round(float(intervals.max(initial=0.0)), 6),
            path_m=round(float(np.linalg.norm(np.diff(c2w[:, :3, 3], axis=0), axis=1).sum()), 3),
            depth=int(has_depth.sum()),
            sources=dict(sources),
            notes=tuple(notes),
        )

    @classmethod
    @abstractmethod
    def matches(cls, source: Path) -> bool:
        """Whether an existing file or folder has this layout, from names alone."""

    @abstractmethod
    def _load(self, numbers: Sequence[int]) -> Iterator[tuple[Image, Depth | None]]:
        """Image and depth of these ascending numbers, as recorded, each decoded when it is asked for."""

    def __len__(self) -> int:
        return len(self.stamps)

    def frames(self, numbers: Sequence[int] | None = None) -> Iterator[RecordedFrame]:
        """Frames in time order, each read when it is asked for.

        Args:
            numbers: ascending, in ``[0, len(self))``; None for all.

        Raises:
            ValueError: for wrong numbers (at once), and for files that are damaged (when they are read).
        """
        wanted = np.arange(len(self)) if numbers is None else np.array(numbers, dtype=np.int64)
        if (wanted < 0).any() or (wanted >= len(self)).any() or (np.diff(wanted) <= 0).any():
            raise ValueError(f"numbers: expected ascending numbers in [0, {len(self)}), got {wanted.tolist()}")
        return self._frames(wanted.tolist())

    def _frames(self, numbers: Sequence[int]) -> Iterator[RecordedFrame]:
        for number, (image, depth) in zip(numbers, self._load(numbers), strict=True):
            lens = self._lenses[number if len(self._lenses) > 1 else 0]
            if image.shape[:2] != lens.size:
                raise ValueError(
                    f"{self.source}: expected image {number} of the size of its intrinsics, {list(lens.size)}, "
                    f"got {list(image.shape[:2])}"
                )
            if depth is not None:
                depth = _on_grid(self.source, depth, lens.size)
            image, depth, K = undistort(self.source, lens, image, depth)
            c2w = torch.from_numpy(self.c2w[number]).float()
            yield RecordedFrame(
                image, depth, Camera(c2w, torch.from_numpy(K).float(), lens.size), float(self.stamps[number])
            )

    def validate(self) -> "Recording":
        """Decode a few images and their depth, and return self if they are as the rest of the recording says.

        Raises:
            ValueError: if a file is damaged or of another size than its intrinsics, or depth is in a wrong unit.
        """
        among = np.flatnonzero(self._has_depth) if self._has_depth.any() else np.arange(len(self))
        sample = among[np.unique(np.linspace(0, len(among) - 1, _SAMPLE).astype(int))]
        maps = [frame.depth for frame in self.frames(sample.tolist()) if frame.depth is not None]
        known = np.concatenate([depth[depth > 0] for depth in maps]) if maps else np.empty(0)
        if len(known) and not DEPTH_RANGE[0] <= (median := float(np.median(known))) <= DEPTH_RANGE[1]:
            raise ValueError(
                f"{self.source}: expected depth in metres with a median in {DEPTH_RANGE[0]} to {DEPTH_RANGE[1]:g} m, "
                f"got a median of {median:g} m; is its unit another than this layout's?"
            )
        return self


def _first_wrong(stamps: Array) -> str:
    wrong = int(np.argmin(np.append(True, np.diff(stamps) > 0) & np.isfinite(stamps)))
    return f"{stamps[wrong]} s after {stamps[wrong - 1]} s" if wrong else f"{stamps[0]} s"


def _on_grid(source: Path, depth: Depth, size: tuple[int, int]) -> Depth:
    """Depth on the image's pixel grid: the nearest value, where a depth camera of a phone has fewer pixels."""
    if depth.shape == size:
        return depth
    aspect = depth.shape[1] * size[0] / (depth.shape[0] * size[1])
    if abs(aspect - 1) > _ASPECT:
        raise ValueError(f"{source}: expected depth that shows what the image {list(size)} shows, got {depth.shape}")
    return np.asarray(cv2.resize(depth, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.float32)
