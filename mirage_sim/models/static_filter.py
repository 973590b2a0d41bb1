"""Which parts of a frame may be remembered."""

import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.protocols import MemoryView


class AllStatic:
    """Everything may be remembered: right for worlds in which nothing moves, as MiniWorld's."""

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """See :meth:`mirage_sim.protocols.StaticFilter.__call__`."""
        return torch.ones_like(depth, dtype=torch.bool)
