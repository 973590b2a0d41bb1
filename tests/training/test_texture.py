import torch
from torch import Tensor, nn

from mirage_sim.training.objectives.texture import random_filters, texture, texture_loss, window_means


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 8, 24, 32, generator=torch.Generator().manual_seed(seed))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def blur(latents: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(latents, 5, stride=1, padding=2)


def test_texture_differs_for_blur_but_not_for_other_noise():
    filters = random_filters(8, generator())
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(64))

    def typical(latents: Tensor) -> Tensor:
        return texture(latents, filters).mean((0, 2, 3))

    true = typical(noise(16))
    assert texture(noise(1), filters).shape == (1, 64, 12, 16)
    assert (typical(noise(16, 1)) / true - 1).abs().max() < 0.07
    assert (typical(blur(noise(16))) / true).max() < 0.6
    striped = (noise(16) + noise(16).roll(1, 2)) / 2**0.5  # same variance, but vertical neighbours correlate
    assert (typical(striped) / true - 1).abs().max() > 0.1


def test_loss_prefers_other_noise_to_blur_at_both_scales():
    all_new = torch.zeros(16, 1, 24, 32)
    true, other = noise(16), noise(16, 1)
    losses = [texture_loss(latents, true, all_new, generator()).mean() for latents in (true, other, blur(true))]
    assert losses[0] == 0 and losses[1] < 0.3 * losses[2]
    fine_only = true - nn.functional.interpolate(nn.functional.avg_pool2d(true, 2), scale_factor=2)
    assert texture_loss(fine_only, true, all_new, generator()).mean() > 1.3 * losses[1]


def test_windows_that_the_memory_shows_have_less_weight():
    shown, hidden = torch.ones(4, 1, 24, 32), torch.zeros(4, 1, 24, 32)
    losses = [texture_loss(blur(noise(4)), noise(4), mask, generator()) for mask in (shown, hidden)]
    torch.testing.assert_close(losses[0], 0.4 * losses[1])


def test_filters_differ_between_batches():
    source = generator()
    assert not torch.equal(random_filters(8, source), random_filters(8, source))


def test_window_means_reach_the_border():
    values = torch.zeros(1, 1, 6, 8)
    values[..., 0] = 1.0
    # 3 of the first window's 5 columns are in the image
    torch.testing.assert_close(window_means(values)[0, 0, 0], torch.tensor([1 / 3, 1 / 5, 0.0, 0.0]))
