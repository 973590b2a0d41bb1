"""Reading a recording: images per second, from its files to a world's size."""

import time
from typing import Any

import cv2
import torch

from mirage_sim.data.recordings import open_recording, to_size
from mirage_sim.settings.recordings import RecordingsBenchSettings


def bench_recordings(settings: RecordingsBenchSettings) -> dict[str, Any]:
    """Open a recording and read all of it on one core.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``images_per_s`` and ``open_s``, the seconds that opening took.

    Raises:
        FileNotFoundError: for missing files.
        ValueError: for recordings that cannot be read.
    """
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        began = time.perf_counter()
        recording = open_recording(settings.source)
        opened = time.perf_counter()
        for frame in recording.frames():
            to_size(frame, settings.size)
        done = time.perf_counter()
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    return {"marks": {"images_per_s": len(recording) / (done - opened), "open_s": opened - began}}
