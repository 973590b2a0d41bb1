"""Cells of space, by which points are kept in blocks, and points in fewer bits: relative to their cell."""

import numpy as np
import torch
from torch import Tensor

_CELLS_PER_EDGE = 32  # a block is at least this many written cells wide: a surface facing the camera just fills one
_LEVELS = 64
_BITS = 19  # per axis of a cell's coordinates
_REACH = 1 << (_BITS - 1)  # cells on either side of the origin, per axis; farther points share the outermost
STEPS = 1 << 16  # of a coordinate within a cell
_LARGEST = 127  # code of a feature's largest channel


def block_keys(xyz: Tensor, footprint: Tensor, block_size: float) -> Tensor:
    """The spatial cell of each point as one int64.

    The edge is ``block_size`` times a power of two, the smallest that is at least 32 footprints: a distant sky, written
    with huge footprints, falls into few large blocks.

    Args:
        xyz: ``[n, 3]`` metres.
        footprint: ``[n]`` metres, positive.
        block_size: smallest edge in metres.
    """
    level = torch.frexp(footprint * (_CELLS_PER_EDGE / block_size)).exponent.clamp(0, _LEVELS - 1)
    edge = torch.ldexp(torch.full_like(footprint, block_size), level)
    index = (xyz / edge[:, None]).floor().clamp(-_REACH, _REACH - 1).long() + _REACH
    return ((level.long() << _BITS | index[:, 0]) << _BITS | index[:, 1]) << _BITS | index[:, 2]


def cells_of_keys(keys: np.ndarray, block_size: float) -> np.ndarray:
    """Lowest corner and edge of the spatial cells of int64 ``keys [n]``, metres: float32 ``[n, 4]``."""
    edge = np.ldexp(np.float32(block_size), (keys >> 3 * _BITS).astype(np.int32))
    index = keys[:, None] >> np.array([2 * _BITS, _BITS, 0]) & ((1 << _BITS) - 1)
    low = (index - _REACH).astype(np.float32) * edge[:, None]
    return np.concatenate([low, edge[:, None]], axis=1)


def curve(xyz: Tensor, cells: Tensor) -> Tensor:
    """Where on a Z-order curve through its cell ``[n, 4]`` each point lies, int64 ``[n]``: neighbours are near."""
    parts = ((xyz - cells[:, :3]) / cells[:, 3:] * 16).long().clamp(0, 15)
    bits = torch.arange(4, device=xyz.device)
    spread = ((parts[..., None] >> bits & 1) << 3 * bits).sum(-1)  # a bit of each axis in turns
    return spread[:, 0] << 2 | spread[:, 1] << 1 | spread[:, 2]


def codes_of(xyz: Tensor, cells: Tensor) -> Tensor:
    """Coordinates ``[n, 3]`` as int16, within cells ``[n, 4]`` (:func:`cells_of_keys`).

    A cell has 65,536 steps per axis, less than a five-hundredth of a footprint each, except in cells of the smallest
    size, where they are a fixed length: 0.03 mm in a cell of 2 m. Points outside are moved to the cell's border.
    """
    steps = (xyz - cells[:, :3]) / (cells[:, 3:] / STEPS)
    return (steps.floor().clamp(0, STEPS - 1) - STEPS // 2).to(torch.int16)


def xyz_of(codes: Tensor, cells: Tensor) -> Tensor:
    """Coordinates of codes: float32 ``[n, 3]`` metres, in the middle of their steps."""
    return cells[:, :3] + (codes.float() + (STEPS // 2 + 0.5)) * (cells[:, 3:] / STEPS)


def coded_features(features: Tensor) -> Tensor:
    """Features ``[n, C]`` in 8 bits a channel: uint8 ``[n, C + 2]``, the last two being a float16 scale per point."""
    largest = features.abs().amax(-1, keepdim=True)
    scale = (largest / _LARGEST).half()
    steps = features / scale.float().clamp(min=torch.finfo(torch.half).tiny)
    codes = steps.round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return torch.cat([codes.view(torch.uint8), scale.view(torch.uint8)], dim=-1)


def decoded_features(coded: Tensor) -> Tensor:
    """Features float32 ``[..., C]`` of :func:`coded_features`; zeros are zeros."""
    scale = coded[..., -2:].clone(memory_format=torch.contiguous_format).view(torch.half).float()
    return coded[..., :-2].view(torch.int8).float() * scale
