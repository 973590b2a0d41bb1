"""Bytes of a remembered frame compared with coloured points, and the quality that compact points cost."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.scenes import circuit, furnished_room, ray_cast
from mirage_sim.build import instantiate
from mirage_sim.evaluation.ground_truth import load_truth
from mirage_sim.evaluation.manifest import load_manifest
from mirage_sim.evaluation.metrics import bootstrap_mean
from mirage_sim.evaluation.runner import score_circuits
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.settings.benchmarks import BytesBenchSettings
from mirage_sim.world import WorldModel

SIZE, GRID, CHANNELS = (704, 1280), (44, 80), 48
RGB_COMPACT = 3 * 4 + 3  # bytes of a coloured point: float32 coordinates, uint8 colours
RGB_FP64 = 3 * 8 + 3  # the same with float64 coordinates


def bench_bytes(settings: BytesBenchSettings) -> dict[str, Any]:
    """Count the bytes of compact points at the real shape, and drive mini's revisit circuits with either memory.

    The loss holds for the built-in world alone, and is measured without reprojection of the start image, so that all of
    the image comes from latents.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``bytes_per_cell`` of compact points and ``bytes_per_cell_full`` of full ones, including
        tables; ``ratio_compact`` and ``ratio_fp64``, bytes of a frame as coloured points (704 x 1280 pixels at 15 and
        27 bytes) divided by its bytes as 44 x 80 compact points of 48 channels; ``revisit_loss_db``, the paired
        decrease of ``revisit_a`` with compact points, with its 95 % interval; and the number of ``circuits``.

    Raises:
        ValueError: for unusable settings, or when rendered truth differs from the manifest.
        ImportError: where truth must be rendered and MiniWorld or EGL is missing.
    """
    compact, full = (bytes_per_cell(settings.frames, compact) for compact in (True, False))
    frame_bytes = compact * GRID[0] * GRID[1]
    # reprojection would show the start image itself, and hide what the coding of latents costs
    model: WorldModel = replace(instantiate(settings.world), reprojection=None)
    manifest = load_manifest().subset(settings.walks)
    circuits = load_truth(manifest.circuits, manifest, Path(settings.cache) if settings.cache else None)
    run = score_circuits({"full": model, "compact": with_compact_memory(model)}, circuits, batch=settings.batch)
    loss = bootstrap_mean(run.scores["full"]["revisit_a"] - run.scores["compact"]["revisit_a"])
    return {
        "marks": {
            "bytes_per_cell": compact,
            "bytes_per_cell_full": full,
            "ratio_compact": SIZE[0] * SIZE[1] * RGB_COMPACT / frame_bytes,
            "ratio_fp64": SIZE[0] * SIZE[1] * RGB_FP64 / frame_bytes,
            **loss.metrics("revisit_loss_db"),
            "circuits": loss.count,
        }
    }


def bytes_per_cell(frames: int, compact: bool) -> float:
    """Bytes of a map of the furnished room divided by its points, at the real shape."""
    memory = PointMemory(CHANNELS, (1, 1, 1), compact=compact)
    cameras = circuit(frames, GRID)
    map: LatentMap = memory.write(
        memory.empty(),
        latents=torch.randn(CHANNELS, frames, *GRID, generator=torch.Generator().manual_seed(0)),
        frames=torch.zeros(3, frames, *GRID),
        depth=ray_cast(cameras, *furnished_room()),
        static=torch.ones(frames, *GRID, dtype=torch.bool),
        camera=cameras,
    )
    return map.nbytes / map.points


def with_compact_memory(model: WorldModel) -> WorldModel:
    """The same world with a memory of compact points.

    Raises:
        ValueError: if its memory does not hold latent points.
    """
    memory = model.memory
    if not isinstance(memory, PointMemory):
        raise ValueError(f"memory: expected latent points (memory=latent), got {type(memory).__name__}")
    return replace(model, memory=memory.compacted())
