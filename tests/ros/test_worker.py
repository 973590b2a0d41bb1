"""The worker thread, without ROS."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.ros.simulation import Simulation
from mirage_sim.ros.worker import Worker

PATIENCE = 60.0


class Watched:
    """A worker and the frames that it published."""

    def __init__(self, **settings):
        self.frames, self.failures = [], []
        self._changed = threading.Condition()
        self.simulation = Simulation(WorldParameters(scan_rays=0, collisions="ignore", **settings))
        self.idled = threading.Event()
        self.worker = Worker(self.simulation, self.publish, lambda frame: self.idled.set(), self.fail)
        self.worker.start()

    def publish(self, frame):
        with self._changed:
            self.frames.append(frame)
            self._changed.notify_all()

    def fail(self, error):
        with self._changed:
            self.failures.append(error)
            self._changed.notify_all()

    def wait(self, condition):
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE)


@pytest.fixture
def watch():
    watched = []

    def watch(**settings):
        watched.append(Watched(**settings))
        return watched[-1]

    yield watch
    for one in watched:
        one.worker.stop()
        one.simulation.close()


def test_lockstep_makes_one_step_per_command_in_order(watch):
    watched = watch(mode="lockstep")
    for i in range(5):
        watched.worker.command(0.1 * i, 0.0)
    watched.wait(lambda: len(watched.frames) == 6)
    assert [frame.twist[0] for frame in watched.frames[1:]] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=1e-4)
    assert watched.idled.wait(PATIENCE)
    assert len(watched.frames) == 6
    stepped = watched.worker.step().result(PATIENCE)
    assert stepped is watched.frames[-1] and stepped.twist[0] == pytest.approx(0.4, abs=1e-4)


def test_lockstep_keeps_order_of_commands_and_tasks(watch):
    watched = watch(mode="lockstep")
    watched.worker.command(1.0, 0.0)
    depth = watched.worker.submit(lambda simulation: simulation.frame.camera.c2w[2, 3].item())
    watched.worker.command(1.0, 0.0)
    watched.worker.submit(lambda simulation: simulation.reset()).result(PATIENCE)
    assert depth.result() == pytest.approx(0.1, abs=1e-4)
    assert [frame.twist[0] for frame in watched.frames] == pytest.approx([0.0, 1.0, 1.0, 0.0], abs=1e-4)


def test_paused_lockstep_drops_commands(watch):
    watched = watch(mode="lockstep")
    watched.worker.pause(True)
    watched.worker.command(1.0, 0.0)
    assert watched.worker.step().result(PATIENCE).twist[0] == 0.0
    watched.worker.pause(False)
    assert watched.worker.submit(lambda simulation: simulation.steps).result(PATIENCE) == 1


def test_realtime_takes_latest_command_and_pauses(watch):
    watched = watch(real_time_factor=0.0, cmd_vel_timeout=0.0)
    watched.wait(lambda: len(watched.frames) > 2)
    watched.worker.command(0.3, 0.0)
    watched.wait(lambda: watched.frames[-1].twist[0] > 0.29)
    watched.worker.pause(True).result(PATIENCE)
    seconds = watched.worker.seconds
    watched.idled.clear()
    assert watched.idled.wait(PATIENCE)
    assert watched.worker.seconds == seconds
    watched.worker.command(0.7, 0.0)
    assert watched.worker.step().result(PATIENCE).twist[0] == pytest.approx(0.7, abs=1e-3)


def test_realtime_is_not_faster_than_requested(watch):
    began = time.perf_counter()
    watched = watch(real_time_factor=0.2)  # two frames per second
    watched.wait(lambda: len(watched.frames) == 5)
    assert time.perf_counter() - began >= 1.5  # the first two come at once
    report = watched.worker.report()
    assert 0 < report.frames_per_second < 4
    assert report.frame is watched.frames[-1] and report.latency is None


def test_refused_task_fails_only_its_caller(watch):
    watched = watch(mode="lockstep")
    with pytest.raises(ValueError, match="c2w"):
        watched.worker.submit(lambda simulation: simulation.teleport(np.zeros((4, 4)))).result(PATIENCE)
    watched.worker.command(0.0, 0.0)
    watched.wait(lambda: len(watched.frames) == 2)
    assert watched.worker.report().latency > 0
    assert not watched.failures


def test_broken_task_ends_worker(watch):
    watched = watch(mode="lockstep")
    with pytest.raises(TypeError):
        watched.worker.submit(lambda simulation: simulation.teleport()).result(PATIENCE)
    watched.wait(lambda: watched.failures)


def test_failed_step_ends_worker_and_is_reported(watch):
    watched = watch(mode="lockstep")
    watched.worker.submit(lambda simulation: simulation.close()).result(PATIENCE)
    watched.worker.submit(lambda simulation: setattr(simulation, "parameters", None)).result(PATIENCE)
    watched.worker.command(1.0, 0.0)
    watched.wait(lambda: watched.failures)
    assert isinstance(watched.failures[0], AttributeError)
    with pytest.raises(CancelledError):
        watched.worker.step().result(PATIENCE)


def test_step_of_stopped_worker_is_cancelled(watch):
    watched = watch(mode="lockstep")
    watched.worker.stop()
    with pytest.raises(CancelledError):
        watched.worker.step().result(PATIENCE)
