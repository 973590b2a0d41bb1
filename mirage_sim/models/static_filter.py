"""Which parts of a frame may be remembered."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from mirage_sim.geometry import Camera
from mirage_sim.protocols import MemoryView, StaticFilter


class KeepAll:
    """Everything may be remembered: right for worlds in which nothing moves, as MiniWorld's."""

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """See :meth:`mirage_sim.protocols.StaticFilter.__call__`."""
        return torch.ones_like(depth, dtype=torch.bool)


class AllOf:
    """Remembers what every one of several filters would remember.

    Args:
        filters: one or more of them.

    Raises:
        ValueError: if there is none.
    """

    def __init__(self, filters: tuple[StaticFilter, ...]):
        if not filters:
            raise ValueError("filters: expected one or more, got none")
        self.filters = tuple(filters)

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """See :meth:`mirage_sim.protocols.StaticFilter.__call__`."""
        static = self.filters[0](frames, depth, view, camera)
        for other in self.filters[1:]:
            static = static & other(frames, depth, view, camera)
        return static


class SkyFilter:
    """Leaves out what is so far away that it can only be the sky, or what shows no parallax anyway.

    Depth models put the sky at their far end. Without this filter the sky is remembered, as points out there.

    Args:
        far: metres; what is as far or farther is left out.

    Raises:
        ValueError: if ``far`` is not positive.
    """

    def __init__(self, far: float = 80.0):
        if not far > 0:
            raise ValueError(f"far: expected positive metres, got {far}")
        self.far = far

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """See :meth:`mirage_sim.protocols.StaticFilter.__call__`."""
        return depth < self.far


class GeometricFilter:
    """Leaves out what contradicts the memory: nearer or farther, by much, than what is remembered at that place.

    It needs no network and knows nothing of what things are: something that moves is noticed once it stands before, or
    has left, what was seen there. Frames whose cameras the view does not hold (between latent frames) pass unjudged;
    the memory does not write them.

    Args:
        tolerance: in (0, 1); smaller depth over larger may fall short of 1 by so much. The memory's own, by default.
        margin: cells around a contradiction that are left out as well: outlines are not met exactly.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, tolerance: float = 0.25, margin: int = 1):
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance: expected a share in (0, 1), got {tolerance}")
        if margin < 0:
            raise ValueError(f"margin: expected a number of cells, 0 or more, got {margin}")
        self.tolerance = tolerance
        self.margin = margin

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """See :meth:`mirage_sim.protocols.StaticFilter.__call__`."""
        count, height, width = view.visible.shape[-3:]
        stride = (depth.shape[1] - 1) // (count - 1) if count > 1 else depth.shape[1]
        y, x = depth.shape[-2] // height, depth.shape[-1] // width
        seen = depth[:, ::stride]
        here = seen[..., y // 2 :: y, x // 2 :: x]  # at the middle of each cell
        agree = torch.minimum(here, view.depth) >= (1 - self.tolerance) * torch.maximum(here, view.depth)
        against = (view.visible & (here > 0) & ~agree).float()
        grown = max_pool2d(against, 2 * self.margin + 1, stride=1, padding=self.margin) > 0
        static = torch.ones_like(depth, dtype=torch.bool)
        static[:, ::stride] = ~grown.repeat_interleave(y, -2).repeat_interleave(x, -1)
        return static
