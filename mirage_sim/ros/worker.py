"""The one thread that steps the world. All others hand it commands and tasks, and wait for answers if they must."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from mirage_sim.ros.settings import Settings
from mirage_sim.ros.simulation import Frame, Simulation
from mirage_sim.ros.statistics import Statistics

_IDLE_SECONDS = 1.0  # between two calls of `idle` while nothing happens


class _Job(NamedTuple):
    """Something to do between two steps of real time, in the order of arrival.

    Attributes:
        task: gets the simulation.
        future: of what it returns.
        arrived: ``time.perf_counter()`` if it is a command of lockstep, for which nobody waits.
    """

    task: Callable[[Simulation], Any]
    future: "Future[Any]"
    arrived: float | None = None


class Worker:
    """Steps a simulation in real time, or in lockstep with its commands.

    *Real time*: one step every ``1 / (frame_rate * real_time_factor)`` seconds, with the latest command. Where the
    world is slower than that it goes on as fast as it can; what was missed is not made up for.

    *Lockstep*: one step per command, and none otherwise. Commands and tasks are done in the order of arrival.

    Tasks run between two steps.

    Args:
        simulation: from :meth:`start` on touched by the worker's thread only.
        show: called with every new frame, in that thread.
        idle: called in that thread about once a second while there is no new frame.
        failed: called in that thread, once, if a step or a task breaks (a task may be refused, with a ``ValueError`` or
            ``OSError``); the worker has then ended.
    """

    def __init__(
        self,
        simulation: Simulation,
        show: Callable[[Frame], None],
        idle: Callable[[], None],
        failed: Callable[[BaseException], None],
    ):
        self.statistics = Statistics()
        self._simulation = simulation
        self._show, self._idle, self._failed = show, idle, failed
        self._lockstep = simulation.settings.mode == "lockstep"
        self._jobs: deque[_Job] = deque()
        self._latest: tuple[float, float, float] | None = None  # command of real time, and when it arrived
        self._changed = threading.Condition()
        self._paused = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)

    @property
    def lockstep(self) -> bool:
        """Whether it advances only when told to."""
        return self._lockstep

    @property
    def paused(self) -> bool:
        """Whether neither time nor commands advance it."""
        return self._paused

    @property
    def seconds(self) -> float:
        """Simulated, of the last frame."""
        return self._simulation.frame.seconds

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is being made; tasks that wait get a ``CancelledError``."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join()
        self._cancel()

    def command(self, forward: float, turn: float) -> None:
        """Hand over a velocity command (m/s, rad/s); returns at once. While paused, lockstep ignores it."""
        arrived = time.perf_counter()

        def follow(simulation: Simulation) -> Frame:
            simulation.command(forward, turn)
            return simulation.step()

        with self._changed:
            if not self._lockstep:
                self._latest = forward, turn, arrived
            elif not self._paused:
                self._jobs.append(_Job(follow, Future(), arrived))
                self._changed.notify()

    def pause(self, paused: bool) -> "Future[Any]":
        """Stop or go on. In lockstep, commands that wait are dropped by a pause.

        Returns:
            Done once the step that is being made has been shown.
        """
        with self._changed:
            self._paused = paused
            if paused:
                self._jobs = deque(job for job in self._jobs if job.arrived is None)
        return self.submit(lambda simulation: None)

    def submit(self, task: Callable[[Simulation], Any]) -> "Future[Any]":
        """Have something done between two steps.

        Args:
            task: gets the simulation. If it returns a :class:`Frame`, that is shown before the future is done.

        Returns:
            Its result, or what it raised.
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
        """Have one step made, in lockstep with the command that still counts, else with the latest one."""
        return self.submit(self._step)

    def _step(self, simulation: Simulation) -> Frame:
        self._take_latest(simulation)
        return simulation.step()

    def _take_latest(self, simulation: Simulation) -> float | None:
        """Give the simulation the command that came since the last step; when it arrived, if one did."""
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
            while not self._stopping:
                job, step = self._next(due)
                if job:
                    self._do(job)
                elif step:
                    due = max(due + self._period(self._simulation.settings), time.perf_counter())
                    arrived = self._take_latest(self._simulation)
                    self._publish(self._simulation.step(), arrived)
                elif not self._stopping:
                    self._idle()
        except BaseException as error:
            self._stopping = True
            self._cancel()
            self._failed(error)

    def _next(self, due: float) -> tuple[_Job | None, bool]:
        """What to do next: a job, or a step, or nothing for a while."""
        until = time.perf_counter() + _IDLE_SECONDS
        with self._changed:
            while not self._stopping:
                if self._jobs:
                    return self._jobs.popleft(), False
                now = time.perf_counter()
                free_running = not self._lockstep and not self._paused
                if free_running and now >= due:
                    return None, True
                if now >= until:
                    break
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
            # what was refused concerns only the caller, who waits for the future; what broke concerns all
            if job.arrived is not None or not isinstance(error, (ValueError, OSError)):
                raise
        else:
            job.future.set_result(result)

    def _publish(self, frame: Frame, commanded: float | None = None) -> None:
        began = time.perf_counter()
        self._show(frame)
        self.statistics.shown(frame, time.perf_counter() - began, commanded)

    def _cancel(self) -> None:
        with self._changed:
            while self._jobs:
                self._jobs.popleft().future.cancel()

    @staticmethod
    def _period(settings: Settings) -> float:
        """Wall-clock seconds between two steps; 0 for as fast as it goes."""
        rate = settings.frame_rate * settings.real_time_factor
        return 1.0 / rate if rate else 0.0
