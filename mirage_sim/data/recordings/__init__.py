"""Recordings of places that users have: images with poses, and depth where there is some.

:func:`open_recording` finds out the layout by itself. To add one, write a subclass of :class:`Recording` and name it in
:data:`LAYOUTS`.
"""

from collections.abc import Mapping
from pathlib import Path

from mirage_sim.data.recordings.bag import BagRecording
from mirage_sim.data.recordings.lerobot import LerobotRecording
from mirage_sim.data.recordings.nerfstudio import NerfstudioRecording
from mirage_sim.data.recordings.own import ClipRecording, RolloutRecording
from mirage_sim.data.recordings.prepare import to_size
from mirage_sim.data.recordings.realestate10k import RealEstate10kRecording
from mirage_sim.data.recordings.recording import RecordedFrame, Recording, RecordingInfo
from mirage_sim.data.recordings.tum import TumRecording

__all__ = ["LAYOUTS", "RecordedFrame", "Recording", "RecordingInfo", "open_recording", "to_size"]

#: Layouts, in the order in which they are tried.
LAYOUTS: tuple[type[Recording], ...] = (
    BagRecording,
    TumRecording,
    NerfstudioRecording,
    RealEstate10kRecording,
    LerobotRecording,
    ClipRecording,
    RolloutRecording,
)


def open_recording(source: Path | str, topics: Mapping[str, str] | None = None) -> Recording:
    """Open a recording, and check what can be checked before its images are read.

    Args:
        source: file or folder.
        topics: of a bag, names of topics by role (image, camera_info, depth, odometry) instead of those found.

    Raises:
        FileNotFoundError: if there is no such file or folder, or one that it names is missing.
        ValueError: in one line, if the layout is unknown, or the recording is damaged or inconsistent.
        ImportError: if the library for bags is not installed.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: expected a recording, got no file or folder of that name")
    layout = layout_of(source)
    if layout is None:
        inner = sorted(str(path) for path in source.iterdir() if layout_of(path)) if source.is_dir() else []
        found = f"several recordings, choose one: {', '.join(inner[:5])}" if inner else "none of these"
        names = ", ".join(each.layout for each in LAYOUTS)
        raise ValueError(f"{source}: expected a recording of a layout among {names} (docs/recordings.md), got {found}")
    if topics and layout is not BagRecording:
        raise ValueError(f"topics: expected none for the layout {layout.layout}, got {dict(topics)}")
    return (BagRecording(source, topics) if layout is BagRecording else layout(source)).validate()  # type: ignore[call-arg]


def layout_of(source: Path) -> type[Recording] | None:
    """The layout of an existing file or folder, from names alone; None if it is unknown."""
    return next((layout for layout in LAYOUTS if layout.matches(source)), None)
