"""How the world is doing: what the diagnostics report."""

import threading
import time
from dataclasses import dataclass

from mirage_sim.ros.simulation import Frame


@dataclass(frozen=True)
class Report:
    """What happened since the last report.

    Attributes:
        frames_per_second: shown, of wall clock.
        publish_seconds: of wall clock that showing a frame took, on average.
        latency: seconds of wall clock from the arrival of a command to the moment at which the first picture made with
            it was published, the longest; None without commands.
        frame: the last one.
    """

    frames_per_second: float
    publish_seconds: float
    latency: float | None
    frame: Frame | None


class Statistics:
    """Counts frames; may be told by one thread and asked by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = time.perf_counter()
        self._frames = 0
        self._publishing = 0.0
        self._latency: float | None = None
        self._frame: Frame | None = None

    def shown(self, frame: Frame, seconds: float, commanded: float | None = None) -> None:
        """Tell that a frame was published.

        Args:
            frame: which.
            seconds: of wall clock that it took.
            commanded: ``time.perf_counter()`` when the new command that it was made with arrived, if there was one.
        """
        now = time.perf_counter()
        with self._lock:
            self._frame = frame
            self._frames += 1
            self._publishing += seconds
            if commanded is not None:
                self._latency = max(self._latency or 0.0, now - commanded)

    def report(self) -> Report:
        """What happened since the last call."""
        now = time.perf_counter()
        with self._lock:
            elapsed = max(now - self._since, 1e-9)
            average = self._publishing / max(self._frames, 1)
            report = Report(self._frames / elapsed, average, self._latency, self._frame)
            self._since, self._frames, self._publishing, self._latency = now, 0, 0.0, None
        return report
