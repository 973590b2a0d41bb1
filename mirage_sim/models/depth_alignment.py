"""Alignment of new depth with remembered depth, which removes the drift of frame-by-frame estimation."""

import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.models.depth import FARTHEST
from mirage_sim.protocols import DepthEstimator

_SPREAD = 1.2  # least ratio of the third to the first quartile of remembered depth from which a shift can be fitted


class Aligned:
    """Wraps a depth estimator and aligns its results with the memory's depth.

    Implements :class:`mirage_sim.protocols.DepthEstimator`.

    Args:
        estimator: estimator whose depth is correct up to a scale (and a shift of its inverse) per frame.
        shift: whether to fit the shift, too, as relative models need.
        fewest: least number of cells in which both depths are known. A frame with fewer takes the fit of the nearest
            frame in time that has enough, and is unchanged if there is none.

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
    """Align ``depth [B, F, H, W]`` with ``known [B, F, h, w]``, both in metres and 0 where unknown.

    Per frame, ``1 / aligned = scale / depth + shift``. Without a shift, the scale is the median of the ratios, which
    tolerates up to half of the cells being wrong. With a shift, slope and intercept are Theil's medians over pairs of
    cells half of the range apart (H. Theil 1950, "A rank-invariant method of linear and polynomial regression
    analysis"), which tolerate up to 29 %. If the remembered depth varies too little, only the scale is fitted.
    """
    scale, offset = _fit(depth, known, shift, fewest)
    inverse = scale[..., None, None] / depth + offset[..., None, None]
    aligned = 1 / inverse.clamp(min=1 / FARTHEST)
    return torch.where(depth > 0, aligned, 0.0)


def _fit(depth: Tensor, known: Tensor, shift: bool, fewest: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of inverse depth, ``[B, F]`` each."""
    y, x = depth.shape[-2] // known.shape[-2], depth.shape[-1] // known.shape[-1]
    estimated = depth[..., y // 2 :: y, x // 2 :: x].flatten(-2)  # at the centre of each cell
    remembered = known.flatten(-2)
    both = (estimated > 0) & (remembered > 0)
    source = (1 / estimated).masked_fill(~both, torch.nan)
    target = (1 / remembered).masked_fill(~both, torch.nan)
    scale = (target / source).nanmedian(-1).values
    offset = torch.zeros_like(scale)
    if shift:
        slope, intercept = _line(source, target, both.sum(-1, keepdim=True))
        clear = slope.isfinite() & (slope > 0)
        scale, offset = torch.where(clear, slope, scale), torch.where(clear, intercept, offset)
    return _from_nearest(both.sum(-1) >= fewest, scale, offset)


def _line(source: Tensor, target: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and intercept ``[...]`` of ``target`` over ``source [..., N]``; the slope is NaN if ``target`` is flat."""
    source, order = source.sort(dim=-1)  # NaN comes last
    target = target.gather(-1, order)
    last = source.shape[-1] - 1
    partner = torch.arange(last + 1, device=source.device) + count // 2
    unpaired, partner = partner >= count, partner.clamp(max=last)
    slopes = (target.gather(-1, partner) - target) / (source.gather(-1, partner) - source)
    slope = slopes.masked_fill(unpaired, torch.nan).nanmedian(-1).values
    intercept = (target - slope[..., None] * source).nanmedian(-1).values
    ranked = target.sort(dim=-1).values
    first, third = (ranked.gather(-1, count * quarter // 4).squeeze(-1) for quarter in (1, 3))
    return slope.masked_fill(~(third >= _SPREAD * first), torch.nan), intercept


def _from_nearest(enough: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Replace the fit of frames without enough cells by that of the nearest frame with enough, or by the identity."""
    frame = torch.arange(enough.shape[-1], device=enough.device)
    distance = (frame[:, None] - frame).abs().float().masked_fill(~enough[..., None, :], torch.inf)
    nearest = distance.argmin(-1)
    any_enough = enough.any(-1, keepdim=True)
    return (
        torch.where(any_enough, scale.gather(-1, nearest), 1.0),
        torch.where(any_enough, offset.gather(-1, nearest), 0.0),
    )
