"""What a remembered frame weighs, beside a cache of coloured points; and what compact points cost in quality."""

from dataclasses import replace
from typing import Any

import torch

from mirage_sim.build import instantiate
from mirage_sim.evaluation.benchmarks.measure import positive_integers
from mirage_sim.evaluation.benchmarks.scenes import circuit, furnished_room, ray_cast
from mirage_sim.evaluation.ground_truth import load_truth
from mirage_sim.evaluation.manifest import load_manifest
from mirage_sim.evaluation.metrics import bootstrap_mean
from mirage_sim.evaluation.runner import score_circuits
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.world import WorldModel

SIZE, GRID, CHANNELS = (704, 1280), (44, 80), 48
RGB_COMPACT = 3 * 4 + 3  # bytes a point of a cache of colours: float32 coordinates, uint8 colours
RGB_FP64 = 3 * 8 + 3  # the same with float64 coordinates


def bench_bytes(cfg: dict[str, Any]) -> dict[str, Any]:
    """Weigh compact points at the real shape, and drive the built-in world's revisit circuits with either memory.

    The loss is that of the built-in world, whose own features are coded in the same way, by what its latents alone
    show: without reprojection of the start picture. It tells nothing about others.

    Args:
        cfg: ``world`` (config of a world model), ``frames`` to remember, ``walks`` and ``cache`` (circuits and where
            true ones are kept, see :func:`mirage_sim.evaluation.fidelity.evaluate`) and ``batch``.

    Returns:
        ``{"metrics": ...}``: ``bytes_per_cell`` of compact points, tables included, ``bytes_per_cell_full`` of others;
        ``ratio_compact`` and ``ratio_fp64``, bytes of a cache of all pixels of a frame (15 and 27 a pixel of
        704 x 1280) over those of its 44 x 80 cells of 48 channels; ``revisit_loss_db``, by how much ``revisit_a`` falls
        with compact points, paired, with its 95 % interval; and the number of ``circuits``.

    Raises:
        ValueError: for unusable settings, or when rendered truth differs from the manifest.
        ImportError: where truth must be rendered and MiniWorld or EGL is missing.
    """
    positive_integers(cfg, "frames", "batch")
    compact, full = (bytes_per_cell(cfg["frames"], compact) for compact in (True, False))
    frame = compact * GRID[0] * GRID[1]
    # where the start picture itself is shown, nobody sees what the coding of latents costs
    model: WorldModel = replace(instantiate(cfg["world"]), reprojection=None)
    manifest = load_manifest().subset(cfg["walks"])
    circuits = load_truth(manifest.circuits, manifest, cfg["cache"])
    run = score_circuits({"full": model, "compact": with_compact_memory(model)}, circuits, batch=cfg["batch"])
    loss = bootstrap_mean(run.scores["full"]["revisit_a"] - run.scores["compact"]["revisit_a"])
    return {
        "marks": {
            "bytes_per_cell": compact,
            "bytes_per_cell_full": full,
            "ratio_compact": SIZE[0] * SIZE[1] * RGB_COMPACT / frame,
            "ratio_fp64": SIZE[0] * SIZE[1] * RGB_FP64 / frame,
            **loss.metrics("revisit_loss_db"),
            "circuits": loss.count,
        }
    }


def bytes_per_cell(frames: int, compact: bool) -> float:
    """Bytes of a map of the furnished room over its points, at the real shape."""
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
    """The same world, whose memory keeps the same points in fewer bytes.

    Raises:
        ValueError: if its memory is not one of latent points.
    """
    memory = model.memory
    if not isinstance(memory, PointMemory):
        raise ValueError(f"memory: expected latent points (memory=latent), got {type(memory).__name__}")
    return replace(model, memory=memory.compacted())
