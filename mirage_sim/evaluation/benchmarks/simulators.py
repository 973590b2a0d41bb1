"""Frames per second of the reference simulators, and how long a home takes to build."""

from functools import partial
from statistics import median
from typing import Any

import numpy as np

from mirage_sim.data.simulators import TRAINING_SEEDS, make_simulator
from mirage_sim.data.simulators.simulator import ReferenceSimulator
from mirage_sim.evaluation.benchmarks.measure import positive_integers, timed

SIZE = (96, 128)
TURN = np.array([0.0, 1.0])  # on the spot, so that every direction counts


def bench_simulators(cfg: dict[str, Any]) -> dict[str, Any]:
    """Step and render homes and MiniWorld: images with exact depth, a body that turns on the spot.

    Args:
        cfg: ``homes`` and ``miniworld``, an environment of each; ``scenes`` to visit and ``frames`` to render in each.

    Returns:
        ``{"metrics": ...}``: ``homes_fps`` and ``miniworld_fps``, steps rendered per second, and ``homes_build_s`` and
        ``miniworld_build_s``, seconds that a reset takes; each the median over scenes.

    Raises:
        ValueError: for unusable settings, or where furniture has not been prepared.
        ImportError: where libraries or EGL are missing.
    """
    positive_integers(cfg, "scenes", "frames")
    metrics: dict[str, float] = {}
    for name in ("homes", "miniworld"):
        simulator = make_simulator(name, cfg[name], SIZE)
        try:
            build, fps = rates(simulator, cfg["scenes"], cfg["frames"])
        finally:
            simulator.close()
        metrics |= {f"{name}_fps": fps, f"{name}_build_s": build}
    return {"marks": metrics}


def rates(simulator: ReferenceSimulator, scenes: int, frames: int) -> tuple[float, float]:
    """Seconds of a reset, and steps rendered per second; medians over scenes, after one to warm up."""

    def walk() -> None:
        for _ in range(frames):
            simulator.step(TURN)
            simulator.render()

    builds, seconds = [], []
    for seed in TRAINING_SEEDS[: scenes + 1]:
        builds.append(timed(partial(simulator.reset, seed)))
        seconds.append(timed(walk))
    return median(builds[1:]), frames / median(seconds[1:])
