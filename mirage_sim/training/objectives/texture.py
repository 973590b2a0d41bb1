"""A loss that compares the texture of two images, independently of where its elements are."""

import torch
from torch import Tensor, nn

FILTERS, EPSILON = 64, 1e-4
# (cells that are averaged first, weight): single elements such as bricks, and the courses and edges that they form
SCALES = ((1, 1.0), (2, 0.7))
# the loss aims at this quantile of the texture energy: energies are skewed, and their median lies below their mean
QUANTILE = 0.74
WINDOW_SHOWN = 0.4  # weight of windows that the memory shows; those that must be generated now have weight 1


def random_filters(channels: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Draw random filters ``[64, channels, 3, 3]`` of norm 1, each with weights for about half of the channels."""
    filters = torch.randn(FILTERS, channels, 3, 3, generator=generator, device=device)
    filters = filters * (torch.rand(FILTERS, channels, 1, 1, generator=generator, device=device) < 0.5)
    return filters / filters.flatten(1).norm(dim=1).clamp(min=1e-3)[:, None, None, None]


def window_means(values: Tensor) -> Tensor:
    """Average ``values [N, ?, h, w]`` over windows of 5x5 cells: ``[N, ?, ceil(h/2), ceil(w/2)]``.

    Windows at the border average the cells that exist: new content enters the image there, a few cells at a time.
    """
    return nn.functional.avg_pool2d(values, 5, stride=2, padding=2, count_include_pad=False)


def texture(latents: Tensor, filters: Tensor) -> Tensor:
    """Local standard deviation of the filters' responses to ``[N, C, h, w]``: ``[N, 64, ceil(h/2), ceil(w/2)]``.

    The energies of many random projections determine all correlations within a patch (compare Heitz et al. 2021, "A
    sliced Wasserstein loss for neural texture synthesis"). Blurred images have low energies.
    """
    latents = latents.contiguous(memory_format=torch.channels_last)
    responses = nn.functional.conv2d(latents, filters, padding=1)
    mean, square = window_means(responses), window_means(responses.square())
    return ((square - mean.square()).clamp(min=0) + EPSILON).sqrt()


def texture_loss(predicted: Tensor, true: Tensor, shown: Tensor, generator: torch.Generator) -> Tensor:
    """Difference between the textures of predicted and true latents at two scales, per sample: ``[N]``.

    Every batch gets new filters. With fixed ones the network learns artefacts to which they do not respond.

    Args:
        predicted: predicted latents ``[N, C, h, w]``.
        true: true latents of the same shape.
        shown: ``[N, 1, h, w]``: 1 where the memory shows something, 0 where the content must be generated.
        generator: random source of the filters.
    """
    filters = random_filters(predicted.shape[1], generator, predicted.device)
    loss = predicted.new_zeros(len(predicted))
    for scale, weight in SCALES:
        scaled, target, seen = (nn.functional.avg_pool2d(values, scale) for values in (predicted, true, shown))
        lacking = texture(target, filters) - texture(scaled, filters)
        pinball = torch.where(lacking > 0, QUANTILE, QUANTILE - 1) * lacking * 2
        window_weight = WINDOW_SHOWN + (1 - WINDOW_SHOWN) * window_means(1 - seen)
        loss = loss + weight * (pinball * window_weight).flatten(1).mean(1)
    return loss
