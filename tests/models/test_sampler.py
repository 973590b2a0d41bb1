import pytest
import torch
from torch import Tensor

from mirage_sim.models import FlowSampler


class TowardsTarget:
    """The exact velocity field of data with a single point, the condition."""

    def __init__(self) -> None:
        self.levels: list[Tensor] = []

    def velocity(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        self.levels.append(sigma)
        return (x - condition) / sigma[:, None, :, None, None]


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_sampler_reaches_a_known_target(steps: int, shift: float):
    noise, target = torch.randn(2, 2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    field = TowardsTarget()
    landed = FlowSampler(steps, shift).sample(field, target, noise)
    torch.testing.assert_close(landed, target, atol=1e-5, rtol=0)
    assert len(field.levels) == steps
    for level in field.levels:
        assert level.shape == (2, 3) and (level == level[0, 0]).all()
    levels = [level[0, 0].item() for level in field.levels]
    assert levels[0] == 1.0 and levels == sorted(levels, reverse=True) and levels[-1] > 0


def test_step_lengths_add_up_to_one():
    class Straight:
        def velocity(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
            return condition

    noise, velocity = torch.randn(2, 1, 4, 1, 5, 6, generator=torch.Generator().manual_seed(1))
    for steps in (1, 2, 7):  # the lengths of all steps add up to one
        landed = FlowSampler(steps, 2.0).sample(Straight(), velocity, noise)
        torch.testing.assert_close(landed, noise - velocity, atol=1e-5, rtol=0)


def test_schedule_has_shifted_levels():
    assert FlowSampler(2).sigmas == [1.0, 0.5, 0.0]
    assert FlowSampler(2, shift=3.0).sigmas == pytest.approx([1.0, 0.75, 0.0])
    assert FlowSampler(1, shift=3.0).sigmas == [1.0, 0.0]


def test_half_precision_noise_is_sampled_in_float32():
    noise = torch.randn(1, 4, 1, 5, 6, generator=torch.Generator().manual_seed(1))
    target = torch.full_like(noise, 0.1)
    landed = FlowSampler(3).sample(TowardsTarget(), target, noise.half())
    assert landed.dtype == torch.float32
    torch.testing.assert_close(landed, target, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"steps": -3}, "steps"),
        ({"shift": 0.0}, "shift: expected a positive number, got 0.0"),
        ({"shift": -1.0}, "shift"),
    ],
)
def test_bad_arguments_are_rejected(arguments: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        FlowSampler(**arguments)
