import pytest
import torch

from mirage_sim.world.chunks import frames_of, latents_of, spread


@pytest.mark.parametrize(("latents", "stride", "frames"), [(1, 1, 1), (5, 1, 5), (1, 4, 1), (9, 4, 33), (2, 8, 9)])
def test_frames_and_latents_are_inverse(latents, stride, frames):
    assert frames_of(latents, stride) == frames
    assert latents_of(frames, stride) == latents


@pytest.mark.parametrize(("frames", "stride"), [(0, 1), (32, 4), (2, 4), (5, 0), (-3, 4)])
def test_impossible_frames_are_refused(frames, stride):
    with pytest.raises(ValueError, match="frames"):
        latents_of(frames, stride)


def test_no_latents_are_refused():
    with pytest.raises(ValueError, match="latents"):
        frames_of(0, 4)


def test_spread_puts_latents_at_the_frames_they_end_at():
    per_latent = torch.tensor([[[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]]])
    out = spread(per_latent, 4)
    assert out.shape == (1, 9, 2)
    assert torch.equal(out[:, ::4], per_latent)
    assert out.count_nonzero() == per_latent.numel()
    assert torch.equal(spread(per_latent, 1), per_latent)
