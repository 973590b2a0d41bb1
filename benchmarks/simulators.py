"""Frames per second of the reference simulators, and seconds to build a scene."""

from functools import partial
from statistics import median
from typing import Any

import numpy as np

from benchmarks.runner import timed
from mirage_sim.data.simulators import TRAINING_SEEDS, make_simulator
from mirage_sim.data.simulators.simulator import ReferenceSimulator
from mirage_sim.settings.benchmarks import SimulatorsBenchSettings

SIZE = (96, 128)
TURN = np.array([0.0, 1.0])  # in place, so that every direction is rendered


def bench_simulators(settings: SimulatorsBenchSettings) -> dict[str, Any]:
    """Step and render homes and MiniWorld, images with depth, while the body turns in place.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``homes_fps`` and ``miniworld_fps``, rendered steps per second, and ``homes_build_s`` and
        ``miniworld_build_s``, seconds of a reset; medians over scenes.

    Raises:
        ValueError: for unusable settings, or if furniture has not been prepared.
        ImportError: if libraries or EGL are missing.
    """
    metrics: dict[str, float] = {}
    for name in ("homes", "miniworld"):
        simulator = make_simulator(name, getattr(settings, name), SIZE)
        try:
            build, fps = rates(simulator, settings.scenes, settings.frames)
        finally:
            simulator.close()
        metrics |= {f"{name}_fps": fps, f"{name}_build_s": build}
    return {"marks": metrics}


def rates(simulator: ReferenceSimulator, scenes: int, frames: int) -> tuple[float, float]:
    """Seconds of a reset and rendered steps per second; medians over scenes, after one to warm up."""

    def walk() -> None:
        for _ in range(frames):
            simulator.step(TURN)
            simulator.render()

    builds, seconds = [], []
    for seed in TRAINING_SEEDS[: scenes + 1]:
        builds.append(timed(partial(simulator.reset, seed)))
        seconds.append(timed(walk))
    return median(builds[1:]), frames / median(seconds[1:])
