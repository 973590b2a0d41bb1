"""Whether two pictures are of the same texture, whatever the place of each stone."""

import torch
from torch import Tensor, nn

FILTERS, EPSILON = 64, 1e-4
# (cells that are averaged first, weight): stones, and the corners and courses that they make
SCALES = ((1, 1.0), (2, 0.7))
# texture is drawn to this quantile of what may be there: energies are skewed, and their median lies below their mean
QUANTILE = 0.74
WINDOW_SHOWN = 0.4  # weight of the texture of what the memory shows, against that of what must be invented now


def random_filters(channels: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Random filters ``[64, channels, 3, 3]`` of norm 1, each looking at about half of the channels."""
    filters = torch.randn(FILTERS, channels, 3, 3, generator=generator, device=device)
    filters = filters * (torch.rand(FILTERS, channels, 1, 1, generator=generator, device=device) < 0.5)
    return filters / filters.flatten(1).norm(dim=1).clamp(min=1e-3)[:, None, None, None]


def windows(values: Tensor) -> Tensor:
    """Means of ``values [N, ?, h, w]`` over windows of 5x5 cells, ``[N, ?, ceil(h/2), ceil(w/2)]``.

    At the border over the part of a window that there is: what is new comes in there, a few cells at a time.
    """
    return nn.functional.avg_pool2d(values, 5, stride=2, padding=2, count_include_pad=False)


def texture(latents: Tensor, filters: Tensor) -> Tensor:
    """Local standard deviation of the filters' responses: ``[N, 64, ceil(h/2), ceil(w/2)]`` of ``[N, C, h, w]``.

    The energies of enough random projections tell all correlations within a patch (compare Heitz et al. 2021, "A sliced
    Wasserstein loss for neural texture synthesis"). Fog has none of them.
    """
    latents = latents.contiguous(memory_format=torch.channels_last)
    responses = nn.functional.conv2d(latents, filters, padding=1)
    mean, square = windows(responses), windows(responses.square())
    return ((square - mean.square()).clamp(min=0) + EPSILON).sqrt()


def texture_loss(predicted: Tensor, true: Tensor, shown: Tensor, generator: torch.Generator) -> Tensor:
    """How far the texture of some latents is from the true one, at two scales: ``[N]``.

    The filters are drawn anew for every batch: to what fixed ones do not see the network would do as it likes.

    Args:
        predicted: ``[N, C, h, w]``.
        true: the same shape.
        generator: draws the filters.
        shown: ``[N, 1, h, w]``, 1 where the memory shows something, 0 where all must be invented.
    """
    filters = random_filters(predicted.shape[1], generator, predicted.device)
    loss = predicted.new_zeros(len(predicted))
    for scale, weight in SCALES:
        here, there, seen = (nn.functional.avg_pool2d(values, scale) for values in (predicted, true, shown))
        lacking = texture(there, filters) - texture(here, filters)
        pinball = torch.where(lacking > 0, QUANTILE, QUANTILE - 1) * lacking * 2
        say = WINDOW_SHOWN + (1 - WINDOW_SHOWN) * windows(1 - seen)
        loss = loss + weight * (pinball * say).flatten(1).mean(1)
    return loss
