"""The thread that steps the world. Other threads pass it commands and tasks, and wait for results if they need them."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from mirage_sim.ros.simulation import Simulation
from mirage_sim.ros.time_step import Frame

_IDLE_SECONDS = 1.0  # between two calls of `idle` while there are no frames


@dataclass(frozen=True)
class Report:
    """Performance since the previous report.

    Attributes:
        frames_per_second: frames published per second of wall clock.
        publish_seconds: average wall-clock time of publishing a frame.
        latency: the longest wall-clock time from the arrival of a command until the first frame made with it was
            published; None without commands.
        frame: the last frame published.
    """

    frames_per_second: float
    publish_seconds: float
    latency: float | None
    frame: Frame | None


class _Job(NamedTuple):
    """Work to do between two steps, in the order of arrival.

    Attributes:
        task: called with the simulation.
        future: of its result.
        arrived: ``time.perf_counter()`` of a command in lockstep, which nobody waits for; else None.
    """

    task: Callable[[Simulation], Any]
    future: "Future[Any]"
    arrived: float | None = None


class Worker:
    """Steps a simulation in real time or in lockstep with commands.

    *Real time*: one step every ``1 / (frame_rate * real_time_factor)`` seconds with the latest command. A world that is
    slower than that runs as fast as it can and skips what it missed.

    *Lockstep*: one step per command. Commands and tasks are handled in the order of arrival.

    While the simulation observes a robot, neither time nor commands make steps.

    Args:
        simulation: used only by the worker's thread after :meth:`start`.
        publish: called with each new frame, in that thread.
        idle: called with the last frame, in that thread, about once a second while there are no new ones.
        failed: called once in that thread if a step or task fails, after the worker has ended. Tasks may be refused
            with a ``ValueError`` or ``OSError``; that is not a failure.
    """

    def __init__(
        self,
        simulation: Simulation,
        publish: Callable[[Frame], None],
        idle: Callable[[Frame], None],
        failed: Callable[[BaseException], None],
    ):
        self.lockstep = simulation.parameters.mode == "lockstep"
        self._simulation = simulation
        self._publish_frame, self._idle, self._failed = publish, idle, failed
        self._jobs: deque[_Job] = deque()
        self._latest: tuple[float, float, float] | None = None  # command in real time and its time of arrival
        self._changed = threading.Condition()
        self._paused = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._reporting = threading.Lock()
        self._reported = time.perf_counter()
        self._frames, self._publishing = 0, 0.0  # number of frames and seconds of publishing since then
        self._latency: float | None = None
        self._last: Frame | None = None
        self._active = time.perf_counter()  # when a frame was published last, or `idle` called

    @property
    def paused(self) -> bool:
        """Whether neither time nor commands advance the world."""
        return self._paused

    @property
    def seconds(self) -> float:
        """Simulation time of the last frame."""
        return self._simulation.frame.seconds

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the present step. Waiting tasks get a ``CancelledError``."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join()
        self._cancel()

    def command(self, forward: float, turn: float) -> None:
        """Pass a velocity command (m/s, rad/s) and return at once.

        A paused worker in lockstep ignores it, and so does one that observes a robot.
        """
        arrived = time.perf_counter()

        def follow(simulation: Simulation) -> Frame:
            simulation.command(forward, turn)
            return simulation.step()

        with self._changed:
            if self._simulation.observing:
                return
            if not self.lockstep:
                self._latest = forward, turn, arrived
            elif not self._paused:
                self._jobs.append(_Job(follow, Future(), arrived))
                self._changed.notify()

    def pause(self, paused: bool) -> "Future[Any]":
        """Pause or resume. In lockstep, a pause drops waiting commands.

        Returns:
            A future that is done after the present step is published.
        """
        with self._changed:
            self._paused = paused
            if paused:
                self._jobs = deque(job for job in self._jobs if job.arrived is None)
        return self.submit(lambda simulation: None)

    def submit(self, task: Callable[[Simulation], Any]) -> "Future[Any]":
        """Run a task between two steps.

        Args:
            task: called with the simulation. A :class:`Frame` that it returns is published before the future is done.

        Returns:
            A future of its result.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._stopping:
                future.cancel()
            else:
                self._jobs.append(_Job(task, future))
                self._changed.notify()
        return future

    def step(self) -> "Future[Frame]":
        """Make one step with the latest command that has not timed out."""

        def task(simulation: Simulation) -> Frame:
            self._take_latest(simulation)
            return simulation.step()

        return self.submit(task)

    def report(self) -> Report:
        """Return the performance since the previous call."""
        now = time.perf_counter()
        with self._reporting:
            elapsed, average = max(now - self._reported, 1e-9), self._publishing / max(self._frames, 1)
            report = Report(self._frames / elapsed, average, self._latency, self._last)
            self._reported, self._frames, self._publishing, self._latency = now, 0, 0.0, None
        return report

    def _take_latest(self, simulation: Simulation) -> float | None:
        """Pass the newest command to the simulation; return when it arrived, None without a new one."""
        with self._changed:
            latest, self._latest = self._latest, None
        if latest is None:
            return None
        simulation.command(*latest[:2])
        return latest[2]

    def _run(self) -> None:
        due = time.perf_counter()
        try:
            self._publish(self._simulation.frame)
            job: _Job | None = None
            while not self._stopping:
                job, step = self._next(due, after_job=job is not None)
                if job:
                    self._do(job)
                elif step:
                    due = max(due + self._period(), time.perf_counter())
                    arrived = self._take_latest(self._simulation)
                    self._publish(self._simulation.step(), arrived)
                elif not self._stopping:
                    self._active = time.perf_counter()
                    self._idle(self._simulation.frame)
        except BaseException as error:
            self._stopping = True
            self._cancel()
            self._failed(error)

    def _next(self, due: float, after_job: bool) -> tuple[_Job | None, bool]:
        """Wait for a job or for a step that is due; return the job, and whether to step. Neither after a second.

        Jobs and steps take turns, so that a queue of jobs does not stop the world.
        """
        until = self._active + _IDLE_SECONDS
        with self._changed:
            while not self._stopping:
                now = time.perf_counter()
                free_running = not (self.lockstep or self._paused or self._simulation.observing)
                if free_running and now >= due and (after_job or not self._jobs):
                    return None, True
                if now >= until:
                    break
                if self._jobs:
                    return self._jobs.popleft(), False
                self._changed.wait(min(until, due if free_running else until) - now)
        return None, False

    def _do(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            result = job.task(self._simulation)
            if isinstance(result, Frame):
                self._publish(result, job.arrived)
        except Exception as error:
            job.future.set_exception(error)
            # a refused task concerns only its caller; anything else ends the worker
            if job.arrived is not None or not isinstance(error, (ValueError, OSError)):
                raise
        else:
            job.future.set_result(result)

    def _publish(self, frame: Frame, commanded: float | None = None) -> None:
        """Publish a frame; `commanded` is the time of arrival of a new command that it was made with."""
        began = time.perf_counter()
        self._publish_frame(frame)
        now = self._active = time.perf_counter()
        with self._reporting:
            self._last = frame
            self._frames += 1
            self._publishing += now - began
            if commanded is not None:
                self._latency = max(self._latency or 0.0, now - commanded)

    def _cancel(self) -> None:
        with self._changed:
            while self._jobs:
                self._jobs.popleft().future.cancel()

    def _period(self) -> float:
        """Return the wall-clock seconds between two steps; 0 for as fast as possible."""
        rate = self._simulation.parameters.frame_rate * self._simulation.parameters.real_time_factor
        return 1.0 / rate if rate else 0.0
