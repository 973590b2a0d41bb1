"""Spatial cells that group points into blocks, and quantisation of points relative to their cell."""

import numpy as np
import torch
from torch import Tensor

_CELLS_PER_EDGE = 32  # minimum edge of a block in footprints: a surface facing the camera fills one block
_LEVELS = 64
_BITS = 19  # per axis of a cell's coordinates
_REACH = 1 << (_BITS - 1)  # cells on each side of the origin, per axis; farther points share the outermost cell
STEPS = 1 << 16  # quantisation steps of a coordinate within a cell
_LARGEST = 127  # code of the largest channel of a feature


def block_keys(xyz: Tensor, footprint: Tensor, block_size: float) -> Tensor:
    """Return the spatial cell of each point, packed into one int64.

    The edge of a cell is the smallest ``block_size * 2^n`` of at least 32 footprints. Distant sky with its huge
    footprints therefore falls into few large cells.

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
    """Return minimum corner and edge of the cells of int64 ``keys [n]``, in metres: float32 ``[n, 4]``."""
    edge = np.ldexp(np.float32(block_size), (keys >> 3 * _BITS).astype(np.int32))
    index = keys[:, None] >> np.array([2 * _BITS, _BITS, 0]) & ((1 << _BITS) - 1)
    low = (index - _REACH).astype(np.float32) * edge[:, None]
    return np.concatenate([low, edge[:, None]], axis=1)


def curve(xyz: Tensor, cells: Tensor) -> Tensor:
    """Return the position of each point on a Z-order curve through its cell ``[n, 4]``, int64 ``[n]``."""
    parts = ((xyz - cells[:, :3]) / cells[:, 3:] * 16).long().clamp(0, 15)
    bits = torch.arange(4, device=xyz.device)
    spread = ((parts[..., None] >> bits & 1) << 3 * bits).sum(-1)  # interleaves the bits of the axes
    return spread[:, 0] << 2 | spread[:, 1] << 1 | spread[:, 2]


def codes_of(xyz: Tensor, cells: Tensor) -> Tensor:
    """Quantise coordinates ``[n, 3]`` to int16 within their cells ``[n, 4]`` (:func:`cells_of_keys`).

    A cell has 65,536 steps per axis. A step is 0.03 mm in the smallest cells of 2 m, and less than 1/500 of a footprint
    in larger ones. Points outside their cell are clamped to its border.
    """
    steps = (xyz - cells[:, :3]) / (cells[:, 3:] / STEPS)
    return (steps.floor().clamp(0, STEPS - 1) - STEPS // 2).to(torch.int16)


def xyz_of(codes: Tensor, cells: Tensor) -> Tensor:
    """Return the coordinates of int16 codes, float32 ``[n, 3]`` metres, at the middle of each step."""
    return cells[:, :3] + (codes.float() + (STEPS // 2 + 0.5)) * (cells[:, 3:] / STEPS)


def coded_features(features: Tensor) -> Tensor:
    """Quantise features ``[n, C]`` to 8 bits per channel: uint8 ``[n, C + 2]``, ending in a float16 scale per point."""
    largest = features.abs().amax(-1, keepdim=True)
    scale = (largest / _LARGEST).half()
    steps = features / scale.float().clamp(min=torch.finfo(torch.half).tiny)
    codes = steps.round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return torch.cat([codes.view(torch.uint8), scale.view(torch.uint8)], dim=-1)


def decoded_features(coded: Tensor) -> Tensor:
    """Return the float32 features ``[..., C]`` of :func:`coded_features`; zeros stay exactly zero."""
    scale = coded[..., -2:].clone(memory_format=torch.contiguous_format).view(torch.half).float()
    return coded[..., :-2].view(torch.int8).float() * scale
