"""The check of stored maps, which come from files that anyone can write."""

import torch
from torch import Tensor

from mirage_sim.memory.blocks import GENERATED
from mirage_sim.memory.kernels import BLOCK_POINTS


def check_tensors(tensors: dict[str, Tensor]) -> None:
    """Check that tensors describe a map.

    Raises:
        ValueError: if one is missing or has a wrong type, shape or value.
    """
    i64, f32 = torch.int64, torch.float32
    compact = tensors.get("xyz", torch.zeros(0)).dtype == torch.int16
    dtypes = {"xyz": torch.int16 if compact else f32, "ids": i64, "footprint": f32, "lengths": i64, "keys": i64}
    dtypes |= {"seen": i64, "next_id": i64, "next_observed": i64} | ({"features": torch.uint8} if compact else {})
    expected = {*dtypes, "features", "block_size"}
    if set(tensors) != expected:
        raise ValueError(f"map: expected tensors {sorted(expected)}, got {sorted(tensors)}")
    for name, dtype in dtypes.items():
        if tensors[name].dtype != dtype:
            raise ValueError(f"map: expected {name} of {dtype}, got {tensors[name].dtype}")
    n, blocks = tensors["ids"].numel(), tensors["lengths"].numel()
    channels = tensors["features"].shape[-1] if tensors["features"].dim() == 2 else 0
    shapes: dict[str, list[int]] = {"xyz": [n, 3], "features": [n, channels], "ids": [n], "footprint": [n]}
    shapes |= {
        "lengths": [blocks],
        "keys": [blocks],
        "seen": [blocks],
        "next_id": [1],
        "next_observed": [1],
        "block_size": [1],
    }
    for name, shape in shapes.items():
        if list(tensors[name].shape) != shape:
            raise ValueError(f"map: expected {name} of shape {shape}, got {list(tensors[name].shape)}")
    lengths, ids = tensors["lengths"], tensors["ids"]
    next_id, next_observed = int(tensors["next_id"]), int(tensors["next_observed"])
    if channels < 1 + 2 * compact or not 0 < float(tensors["block_size"]) < float("inf"):
        raise ValueError("map: expected channels and block_size to be positive")
    if not 0 <= next_observed <= GENERATED <= next_id < 1 << 62:
        raise ValueError(f"map: expected 0 <= next_observed <= 2^60 <= next_id < 2^62, got {next_observed}, {next_id}")
    if int(lengths.sum()) != n or bool(((lengths < 1) | (lengths > BLOCK_POINTS)).any()):
        raise ValueError(f"map: expected block lengths in [1, {BLOCK_POINTS}] that add up to {n} points")
    if bool((tensors["keys"] < 0).any()):
        raise ValueError("map: expected keys of at least 0")
    if not bool(torch.isfinite(tensors["xyz"]).all()) or not bool((tensors["footprint"] > 0).all()):
        raise ValueError("map: expected finite points with positive footprints")
    free = ((ids >= next_observed) & (ids < GENERATED)) | (ids >= next_id)
    if bool(((ids < 0) | free).any()) or len(ids.unique()) != n:
        raise ValueError(f"map: expected unique ids in [0, {next_observed}) or [2^60, {next_id})")
