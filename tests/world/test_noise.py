import torch

from mirage_sim.world import noise


def test_same_place_same_noise():
    assert torch.equal(noise(7, 3, (4, 5)), noise(7, 3, (4, 5)))


def test_noise_does_not_use_the_global_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = noise(7, 3, (16,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(noise(7, 3, (16,)), first)


def test_neighbouring_seeds_and_steps_are_uncorrelated():
    samples = torch.stack([noise(seed, step, (4096,)) for seed in range(6) for step in range(6)])
    correlation = torch.corrcoef(samples) - torch.eye(len(samples))
    assert correlation.abs().max() < 0.08  # five standard deviations of the correlation of independent noise
    assert abs(samples.mean()) < 0.02
    assert abs(samples.std() - 1) < 0.02


def test_large_seeds_are_fine():
    assert not torch.equal(noise(2**63 - 1, 0, (8,)), noise(2**63 - 2, 0, (8,)))
