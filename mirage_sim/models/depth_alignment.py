"""New depth in agreement with remembered depth: the end of the drift that estimating frame by frame brings."""

import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.models.depth import FARTHEST
from mirage_sim.protocols import DepthEstimator

_SPREAD = 1.2  # remembered depth, third quartile over first; below it a shift cannot be told


class Aligned:
    """A depth estimator whose every answer agrees with the memory's own depth on the cells that both see.

    Fulfils :class:`mirage_sim.protocols.DepthEstimator`.

    Args:
        estimator: whose depth is right up to a scale (and a shift of its inverse) per frame.
        shift: whether to fit the shift, too; needed by relative models.
        fewest: cells that both must see; a frame with fewer is aligned as the nearest one in time that has enough, and
            left as it is where none has.

    Raises:
        ValueError: if ``fewest`` is below 4.
    """

    def __init__(self, estimator: DepthEstimator, shift: bool = False, fewest: int = 32):
        if fewest < 4:
            raise ValueError(f"fewest: expected at least 4 cells, got {fewest}")
        self.estimator = estimator
        self.shift = shift
        self.fewest = fewest

    def __call__(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.DepthEstimator.__call__`."""
        return align(self.estimator(frames, camera, known), known, self.shift, self.fewest)


def align(depth: Tensor, known: Tensor, shift: bool = False, fewest: int = 32) -> Tensor:
    """Depth ``[B, F, H, W]`` brought in line with ``known [B, F, h, w]``, metres both, 0 where unknown.

    Per frame, ``1 / aligned = scale / depth + shift``. The scale alone is the median of the ratios, which holds while
    less than half of the cells are wrong; with a shift, slope and intercept are Theil's medians over pairs of cells
    half of the range apart (H. Theil 1950, "A rank-invariant method of linear and polynomial regression analysis"),
    which hold while less than 29 % are. Where what is seen is too flat to tell a shift, the scale alone is fitted.
    """
    scale, offset = _fit(depth, known, shift, fewest)
    inverse = scale[..., None, None] / depth + offset[..., None, None]
    aligned = 1 / inverse.clamp(min=1 / FARTHEST)
    return torch.where(depth > 0, aligned, 0.0)


def _fit(depth: Tensor, known: Tensor, shift: bool, fewest: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of inverse depth, ``[B, F]`` each."""
    y, x = depth.shape[-2] // known.shape[-2], depth.shape[-1] // known.shape[-1]
    here = depth[..., y // 2 :: y, x // 2 :: x].flatten(-2)  # at the middle of each cell
    there = known.flatten(-2)
    both = (here > 0) & (there > 0)
    given = (1 / here).masked_fill(~both, torch.nan)
    wanted = (1 / there).masked_fill(~both, torch.nan)
    scale = (wanted / given).nanmedian(-1).values
    offset = torch.zeros_like(scale)
    if shift:
        slope, intercept = _line(given, wanted, both.sum(-1, keepdim=True))
        clear = slope.isfinite() & (slope > 0)
        scale, offset = torch.where(clear, slope, scale), torch.where(clear, intercept, offset)
    return _from_nearest(both.sum(-1) >= fewest, scale, offset)


def _line(given: Tensor, wanted: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and intercept ``[...]`` of ``wanted`` over ``given [..., N]``; the slope is NaN where they are too flat."""
    given, order = given.sort(dim=-1)  # NaN comes last
    wanted = wanted.gather(-1, order)
    last = given.shape[-1] - 1
    partner = torch.arange(last + 1, device=given.device) + count // 2
    alone, partner = partner >= count, partner.clamp(max=last)
    slopes = (wanted.gather(-1, partner) - wanted) / (given.gather(-1, partner) - given)
    slope = slopes.masked_fill(alone, torch.nan).nanmedian(-1).values
    intercept = (wanted - slope[..., None] * given).nanmedian(-1).values
    ranked = wanted.sort(dim=-1).values
    first, third = (ranked.gather(-1, count * quarter // 4).squeeze(-1) for quarter in (1, 3))
    return slope.masked_fill(~(third >= _SPREAD * first), torch.nan), intercept


def _from_nearest(enough: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Each frame's own fit where it rests on enough; else that of the nearest frame that does; else none."""
    frame = torch.arange(enough.shape[-1], device=enough.device)
    distance = (frame[:, None] - frame).abs().float().masked_fill(~enough[..., None, :], torch.inf)
    nearest = distance.argmin(-1)
    any_enough = enough.any(-1, keepdim=True)
    return (
        torch.where(any_enough, scale.gather(-1, nearest), 1.0),
        torch.where(any_enough, offset.gather(-1, nearest), 0.0),
    )
