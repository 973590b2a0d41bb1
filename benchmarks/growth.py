"""Whether the memory and the cost of a step stop growing where nothing new comes into view."""

import time
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.runner import work_of
from benchmarks.scenes import circuit, furnished_room, ray_cast
from mirage_sim.geometry import Camera
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.settings.benchmarks import GrowthBenchSettings

GRID = (44, 80)
CHANNELS = 48
ERROR = 0.03  # relative error of depth: one common to the frame and one for each cell


def bench_growth(settings: GrowthBenchSettings) -> dict[str, Any]:
    """Walk a fixed circuit repeatedly, reading and writing at each camera, with new errors in depth each time.

    The memory has the real backbone's shape, 44 x 80 cells of 48 channels. It works on the latent grid alone, because
    the cost of pixels is the same at each step.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``growth_after_first_round``, the fraction by which the number of points grows;
        ``step_time_ratio``, the median time of a step in the last round divided by that in the second;
        ``step_work_ratio``, the same for the elements that reads visit (:func:`~benchmarks.runner.work_of`);
        ``points`` at the end; ``step_ms``.

    Raises:
        ValueError: for unusable settings.
    """
    cameras = circuit(settings.cameras, GRID)
    truth = ray_cast(cameras, *furnished_room())
    memory = PointMemory(CHANNELS, (1, 1, 1))
    generator = torch.Generator().manual_seed(0)
    frame = {
        "latents": torch.randn(CHANNELS, 1, *GRID, generator=generator),
        "frames": torch.zeros(3, 1, *GRID),
        "static": torch.ones(1, *GRID, dtype=torch.bool),
    }
    map = memory.empty()
    points, seconds, work = [], [], []
    for _ in range(settings.rounds):
        times = []
        for i in range(len(cameras)):
            camera = cameras[i : i + 1]
            error = torch.randn(1, generator=generator) + torch.randn(1, *GRID, generator=generator)
            depth = truth[i] * (1 + ERROR * error)
            began = time.perf_counter()
            memory.read(map, camera)
            map = memory.write(map, **frame, depth=depth, camera=camera)
            times.append(time.perf_counter() - began)
        points.append(map.points)
        seconds.append(median(times))
        work.append(_work_of_reads(memory, map, cameras))
    return {
        "marks": {
            "growth_after_first_round": points[-1] / points[0] - 1,
            "step_time_ratio": seconds[-1] / seconds[1],
            "step_work_ratio": work[-1] / work[1],
            "points": points[-1],
            "step_ms": 1e3 * seconds[-1],
        }
    }


def _work_of_reads(memory: PointMemory, map: LatentMap, cameras: Camera) -> int:
    """Work of reading at about ten of the cameras."""
    some = [cameras[i : i + 1] for i in range(0, len(cameras), max(len(cameras) // 10, 1))]
    return sum(work_of(partial(memory.read, map, camera)) for camera in some)
