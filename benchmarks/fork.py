"""The cost of forking one large memory: time, and bytes that the forks do not share."""

import time
from typing import Any

import numpy as np
import torch

from benchmarks.scenes import HALL, hall
from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.settings.benchmarks import ForkBenchSettings

GRID = (44, 80)
CHANNELS = 48


def bench_fork(settings: ForkBenchSettings) -> dict[str, Any]:
    """Fork a map of many points and write a different frame into each fork; all forks stay in memory.

    The cameras stand at the side of a hall and look along it, each from another place: one half of the image shows
    about a twentieth of all points, the other half is new and is written.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``s_per_1000_forks_3m``, seconds for 1,000 forks and writes (named after the default of
        3 million points); ``extra_bytes_ratio``, the bytes that the forks hold beyond the first map divided by those of
        the points they wrote; ``written_mib`` and ``points_per_fork``.

    Raises:
        ValueError: for unusable settings.
    """
    base = hall(settings.points, CHANNELS)
    memory = PointMemory(CHANNELS, (1, 1, 1))
    frame = {
        "latents": torch.randn(CHANNELS, 1, *GRID, generator=torch.Generator().manual_seed(0)),
        "frames": torch.zeros(3, 1, *GRID),
        "depth": torch.full((1, *GRID), 8.0),
        "static": torch.ones(1, *GRID, dtype=torch.bool),
    }
    cameras = _beside_the_hall(settings.forks)
    memory.write(base, **frame, camera=cameras[:1])  # to warm up
    began = time.perf_counter()
    forks = [memory.write(base, **frame, camera=cameras[i : i + 1]) for i in range(settings.forks)]
    seconds = time.perf_counter() - began
    new_points = sum(fork.points - base.points for fork in forks)
    written = new_points * sum(column[0].nbytes for column in base.blocks[0][1:])
    return {
        "marks": {
            "s_per_1000_forks_3m": seconds / settings.forks * 1000,
            "extra_bytes_ratio": extra_bytes(base, forks) / written,
            "written_mib": written / 2**20,
            "points_per_fork": new_points / settings.forks,
        }
    }


def _beside_the_hall(count: int) -> Camera:
    """Cameras along the side of the hall, looking along it."""
    generator = torch.Generator().manual_seed(1)
    twist = torch.zeros(count, 6)
    twist[:, 4] = (torch.rand(count, generator=generator) - 0.5) * 0.2
    c2w = se3_exp(twist)
    c2w[:, 0, 3] = HALL[0] / 2
    c2w[:, 2, 3] = 11.0 + torch.rand(count, generator=generator)
    return Camera.from_fov(c2w, 60.0, GRID)


def extra_bytes(base: LatentMap, forks: list[LatentMap]) -> int:
    """Bytes, including tables, that forks hold and their origin does not; memory that forks share counts once."""
    pages = {id(page): page.nbytes for fork in forks for page in _pages(fork)}
    blocks = {
        id(block): sum(column.untyped_storage().nbytes() for column in block[1:])
        for fork in forks
        for block in fork.blocks
    }
    shared = {id(part) for part in (*_pages(base), *base.blocks)}
    return sum(nbytes for key, nbytes in (pages | blocks).items() if key not in shared)


def _pages(map: LatentMap) -> list[np.ndarray]:
    """The pages of the tables over a map's points."""
    return [page for pages in (map.blocks.rows, map.blocks.table, map.blocks.extents, map.seen) for page in pages.pages]
