"""What it takes to go on from one large memory in many different ways."""

import time
from typing import Any

import numpy as np
import torch

from mirage_sim.evaluation.benchmarks.measure import positive_integers
from mirage_sim.evaluation.benchmarks.scenes import HALL, hall
from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.memory import LatentMap, PointMemory

GRID = (44, 80)
CHANNELS = 48


def bench_fork(cfg: dict[str, Any]) -> dict[str, Any]:
    """Fork a map of many points, and let each fork remember one frame of its own; all of them are kept.

    The cameras stand at the side of a hall and look along it, each from elsewhere: one half of the picture shows about
    a twentieth of all points, the other half is new and is written.

    Args:
        cfg: ``points`` of the map and ``forks``.

    Returns:
        ``{"metrics": ...}``: ``s_per_1000_forks_3m`` (the name holds for the default of 3 million points), seconds for
        1,000 forks and writes; ``extra_bytes_ratio``, the bytes that the forks hold beyond the first map over those of
        the points they wrote; ``written_mib`` and ``points_per_fork``.

    Raises:
        ValueError: for unusable settings.
    """
    positive_integers(cfg, "points", "forks")
    base = hall(cfg["points"], CHANNELS)
    memory = PointMemory(CHANNELS, (1, 1, 1))
    frame = {
        "latents": torch.randn(CHANNELS, 1, *GRID, generator=torch.Generator().manual_seed(0)),
        "frames": torch.zeros(3, 1, *GRID),
        "depth": torch.full((1, *GRID), 8.0),
        "static": torch.ones(1, *GRID, dtype=torch.bool),
    }
    cameras = _beside_the_hall(cfg["forks"])
    memory.write(base, **frame, camera=cameras[:1])  # to warm up
    began = time.perf_counter()
    forks = [memory.write(base, **frame, camera=cameras[i : i + 1]) for i in range(cfg["forks"])]
    seconds = time.perf_counter() - began
    new_points = sum(fork.points - base.points for fork in forks)
    written = new_points * sum(column[0].nbytes for column in base.blocks[0][1:])
    return {
        "marks": {
            "s_per_1000_forks_3m": seconds / cfg["forks"] * 1000,
            "extra_bytes_ratio": extra_bytes(base, forks) / written,
            "written_mib": written / 2**20,
            "points_per_fork": new_points / cfg["forks"],
        }
    }


def _beside_the_hall(count: int) -> Camera:
    """Cameras along the side of the hall, looking ahead."""
    generator = torch.Generator().manual_seed(1)
    twist = torch.zeros(count, 6)
    twist[:, 4] = (torch.rand(count, generator=generator) - 0.5) * 0.2
    c2w = se3_exp(twist)
    c2w[:, 0, 3] = HALL[0] / 2
    c2w[:, 2, 3] = 11.0 + torch.rand(count, generator=generator)
    return Camera.from_fov(c2w, 60.0, GRID)


def extra_bytes(base: LatentMap, forks: list[LatentMap]) -> int:
    """Bytes that forks hold and their origin does not, tables included; what forks share counts once."""
    known = {id(part) for part in (*_pages(base), *base.blocks)}
    total = 0
    for fork in forks:
        for page in _pages(fork):
            if id(page) not in known:
                known.add(id(page))
                total += page.nbytes
        for block in fork.blocks:
            if id(block) not in known:
                known.add(id(block))
                total += sum(column.untyped_storage().nbytes() for column in block[1:])
    return total


def _pages(map: LatentMap) -> list[np.ndarray]:
    """The tables over a map's points."""
    return [page for pages in (map.blocks.rows, map.blocks.table, map.blocks.extents, map.seen) for page in pages.pages]
