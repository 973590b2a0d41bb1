"""The one thread that steps the world. All others hand it commands and tasks, and wait for answers if they must."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mirage_sim.ros.settings import Settings
from mirage_sim.ros.simulation import Frame, Simulation
from mirage_sim.ros.statistics import Statistics

_IDLE_SECONDS = 1.0  # between two calls of `idle` while nothing happens


class Worker:
    """Steps a simulation in real time, or in lockstep with its commands.

    *Real time*: one step every ``1 / (frame_rate * real_time_factor)`` seconds, with the latest command. Where the
    world is slower than that it goes on as fast as it can; what was missed is not made up for.

    *Lockstep*: one step per command, in the order of arrival, and none otherwise.

    Tasks run between two steps, before any further command.

    Args:
        simulation: from :meth:`start` on touched by the worker's thread only.
        show: called with every new frame, in that thread.
        idle: called in that thread about once a second while there is no new frame.
        failed: called in that thread, once, if a step raises; the worker has then ended.
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
        self._commands: deque[tuple[float, float, float]] = deque(maxlen=None if self._lockstep else 1)
        self._tasks: deque[tuple[Callable[[Simulation], Any], Future[Any]]] = deque()
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
        with self._changed:
            if not (self._lockstep and self._paused):
                self._commands.append((forward, turn, time.perf_counter()))
                self._changed.notify()

    def pause(self, paused: bool) -> None:
        """Stop or go on; returns at once. In lockstep, commands that wait are dropped by a pause."""
        with self._changed:
            self._paused = paused
            if paused and self._lockstep:
                self._commands.clear()
            self._changed.notify()

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
                self._tasks.append((task, future))
                self._changed.notify()
        return future

    def step(self) -> "Future[Frame]":
        """Have one step made, in lockstep with the command that still counts, else with the latest one."""
        return self.submit(self._step)

    def _step(self, simulation: Simulation) -> Frame:
        if self._commands and not self._lockstep:
            simulation.command(*self._commands.popleft()[:2])
        return simulation.step()

    def _run(self) -> None:
        due = time.perf_counter()
        try:
            self._publish(self._simulation.frame)
            while not self._stopping:
                task, command, step = self._next(due)
                if task:
                    self._do(*task)
                elif step:
                    began = time.perf_counter()
                    due = max(due + self._period(self._simulation.settings), began)
                    if command:
                        self._simulation.command(*command[:2])
                    self._publish(self._simulation.step(), command[2] if command else None)
                elif not self._stopping:
                    self._idle()
        except BaseException as error:
            self._stopping = True
            self._cancel()
            self._failed(error)

    def _next(self, due: float) -> tuple[Any, Any, bool]:
        """What to do next: a task, or a step with or without a new command, or nothing for a while."""
        until = time.perf_counter() + _IDLE_SECONDS
        with self._changed:
            while not self._stopping:
                if self._tasks:
                    return self._tasks.popleft(), None, False
                now = time.perf_counter()
                free_running = not self._lockstep and not self._paused
                if free_running and now >= due or self._lockstep and self._commands:
                    command = self._commands.popleft() if self._commands else None
                    return None, command, True
                if now >= until:
                    break
                self._changed.wait(min(until, due if free_running else until) - now)
        return None, None, False

    def _do(self, task: Callable[[Simulation], Any], future: "Future[Any]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = task(self._simulation)
        except Exception as error:  # it is the caller's, who waits for the future
            future.set_exception(error)
            return
        if isinstance(result, Frame):
            self._publish(result)
        future.set_result(result)

    def _publish(self, frame: Frame, commanded: float | None = None) -> None:
        began = time.perf_counter()
        self._show(frame)
        self.statistics.shown(frame, time.perf_counter() - began, commanded)

    def _cancel(self) -> None:
        with self._changed:
            while self._tasks:
                self._tasks.popleft()[1].cancel()

    @staticmethod
    def _period(settings: Settings) -> float:
        """Wall-clock seconds between two steps; 0 for as fast as it goes."""
        rate = settings.frame_rate * settings.real_time_factor
        return 1.0 / rate if rate else 0.0
