"""Static filters decide which parts of a frame are written to the memory."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from mirage_sim.geometry import Camera
from mirage_sim.protocols import MemoryView, StaticFilter


class KeepAll:
    """Keeps everything, for worlds in which nothing moves, such as MiniWorld's."""

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """See :meth:`mirage_sim.protocols.StaticFilter.__call__`."""
        return torch.ones_like(depth, dtype=torch.bool)


class AllOf:
    """Keeps what all of several filters keep.

    Args:
        filters: one or more filters.

    Raises:
        ValueError: if there are no filters.
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
    """Excludes the sky and everything so far away that it shows no parallax.

    Depth models put the sky at the far end of their range. Without this filter it is stored as points at that distance.

    Args:
        far: distance in metres from which on pixels are excluded.

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
    """Excludes pixels whose depth contradicts the memory.

    The filter needs no network. It notices a moving object once the object occludes remembered points or has left a
    remembered place. Pixel frames between latent frames pass unchecked, because the view has no depth at their cameras;
    the memory does not write them.

    Args:
        tolerance: in (0, 1). Depths contradict each other if smaller / larger is below ``1 - tolerance``. The default
            is the tolerance of the memory.
        margin: number of cells around a contradiction that are excluded, too, because outlines are inexact.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, tolerance: float = 0.25, margin: int = 1):
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance: expected a fraction in (0, 1), got {tolerance}")
        if margin < 0:
            raise ValueError(f"margin: expected a number of cells, 0 or more, got {margin}")
        self.tolerance = tolerance
        self.margin = margin

    def __call__(self, frames: Tensor, depth: Tensor, view: MemoryView, camera: Camera) -> Tensor:
        """See :meth:`mirage_sim.protocols.StaticFilter.__call__`."""
        count, height, width = view.visible.shape[-3:]
        stride = (depth.shape[1] - 1) // (count - 1) if count > 1 else depth.shape[1]
        y, x = depth.shape[-2] // height, depth.shape[-1] // width
        current = depth[:, ::stride, y // 2 :: y, x // 2 :: x]  # at the centre of each cell
        agree = torch.minimum(current, view.depth) >= (1 - self.tolerance) * torch.maximum(current, view.depth)
        contradicts = (view.visible & (current > 0) & ~agree).float()
        excluded = max_pool2d(contradicts, 2 * self.margin + 1, stride=1, padding=self.margin) > 0
        static = torch.ones_like(depth, dtype=torch.bool)
        static[:, ::stride] = ~excluded.repeat_interleave(y, -2).repeat_interleave(x, -1)
        return static
