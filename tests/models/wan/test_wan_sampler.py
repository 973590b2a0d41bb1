from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toy_backbone import CHANNELS, FRAMES, GRID, randn, toy_backbone, toy_branch, toy_codec, toy_conditioning
from torch import Tensor

from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.models.wan.sampler import SOLVERS, Replacement, WanSampler

SHAPE = (2, CHANNELS, FRAMES, *GRID)
NOISE, TARGET, READOUT = randn(*SHAPE, seed=20), randn(*SHAPE, seed=21), randn(*SHAPE, seed=22)
FIRST = randn(2, CHANNELS, 1, *GRID, seed=23)
NONE, ALL = torch.zeros(2, FRAMES, *GRID, dtype=torch.bool), torch.ones(2, FRAMES, *GRID, dtype=torch.bool)


class TowardsTarget:
    """The exact velocity field of data with a single point."""

    def __init__(self) -> None:
        self.levels: list[Tensor] = []
        self.states: list[Tensor] = []

    def velocity(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        self.levels.append(sigma)
        self.states.append(x)
        return (x - TARGET) / sigma[:, None, :, None, None].clamp(min=1e-3)


def condition(visible: Tensor = NONE, first: Tensor | None = None) -> Any:
    return SimpleNamespace(readout=READOUT * visible[:, None], visible=visible, first=first)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 300])
def test_sampler_reaches_a_known_target(solver: str, steps: int, shift: float) -> None:
    field = TowardsTarget()
    landed = WanSampler(steps, shift, solver).sample(field, condition(), NOISE)
    torch.testing.assert_close(landed, TARGET, atol=1e-4, rtol=0)
    levels = [level[0, 0].item() for level in field.levels]
    assert len(levels) == steps and levels == sorted(levels, reverse=True) and levels[0] == pytest.approx(1, abs=1e-3)
    assert all(level.shape == (2, FRAMES) and (level == level[0, 0]).all() for level in field.levels)


def test_shift_spends_steps_at_high_noise() -> None:
    levels = {}
    for shift in (1.0, 5.0):
        field = TowardsTarget()
        WanSampler(4, shift, "euler").sample(field, condition(), NOISE)
        levels[shift] = [level[0, 0].item() for level in field.levels]
    assert levels[1.0] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert levels[5.0] == pytest.approx([5 * s / (1 + 4 * s) for s in levels[1.0]])


def test_unipc_is_closer_than_euler_on_curved_flow() -> None:
    """Data with standard deviation 0.5 around zero, whose exact solution is half of the noise."""

    class Gaussian:
        def velocity(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
            s = sigma[:, None, :, None, None]
            return x * (s - (1 - s) * 0.25) / ((1 - s) ** 2 * 0.25 + s**2)

    error = {
        solver: (WanSampler(10, 1.0, solver).sample(Gaussian(), condition(), NOISE) - 0.5 * NOISE).abs().mean().item()
        for solver in SOLVERS
    }
    assert error["unipc"] < 0.3 * error["euler"] < 0.1


@pytest.mark.parametrize("solver", SOLVERS)
def test_first_frame_stays_clean(solver: str) -> None:
    field = TowardsTarget()
    landed = WanSampler(5, 5.0, solver).sample(field, condition(first=FIRST), NOISE)
    assert torch.equal(landed[:, :, :1], FIRST)
    torch.testing.assert_close(landed[:, :, 1:], TARGET[:, :, 1:], atol=1e-4, rtol=0)
    for state, level in zip(field.states, field.levels, strict=True):
        assert torch.equal(state[:, :, :1], FIRST)
        assert not level[:, 0].any() and level[:, 1:].all()


def test_state_is_float32() -> None:
    landed = WanSampler(3).sample(TowardsTarget(), condition(first=FIRST.half()), NOISE.half())
    assert landed.dtype == torch.float32
    torch.testing.assert_close(landed[:, :, 1:], TARGET[:, :, 1:], atol=1e-4, rtol=0)


def test_sampling_is_deterministic() -> None:
    """Solvers keep a history, which must not outlive a chunk."""
    sampler = WanSampler(4, replace=Replacement())
    first = sampler.sample(TowardsTarget(), condition(NONE), NOISE)
    assert torch.equal(sampler.sample(TowardsTarget(), condition(NONE), NOISE), first)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_fully_visible_chunk_equals_the_read_out(solver: str, steps: int) -> None:
    field = TowardsTarget()
    sampler = WanSampler(steps, solver=solver, replace=Replacement(feather=2))
    assert torch.equal(sampler.sample(field, condition(ALL), NOISE), READOUT)
    for state, level in zip(
        field.states, field.levels, strict=True
    ):  # also in the network's input, at that noise level
        sigma = level[0, 0]
        torch.testing.assert_close(state, (1 - sigma) * READOUT + sigma * NOISE)
    kept = sampler.sample(field, condition(ALL, FIRST), NOISE)
    assert torch.equal(kept, torch.cat([FIRST, READOUT[:, :, 1:]], dim=2))


@given(seed=st.integers(0, 1000), solver=st.sampled_from(sorted(SOLVERS)), steps=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_without_feather_only_visible_cells_are_replaced(seed: int, solver: str, steps: int) -> None:
    visible = randn(2, FRAMES, *GRID, seed=seed) < 0
    sampler = WanSampler(steps, solver=solver, replace=Replacement(feather=0))
    landed = sampler.sample(TowardsTarget(), condition(visible), NOISE)
    seen = visible[:, None].expand(SHAPE)
    assert torch.equal(landed[seen], READOUT[seen])
    torch.testing.assert_close(landed[~seen], TARGET[~seen], atol=1e-4, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_replacement_ends_after_its_fraction_of_steps(solver: str) -> None:
    free = WanSampler(6, solver=solver).sample(TowardsTarget(), condition(ALL), NOISE)
    never = WanSampler(6, solver=solver, replace=Replacement(until=0)).sample(TowardsTarget(), condition(ALL), NOISE)
    assert torch.equal(never, free)
    field = TowardsTarget()
    half = WanSampler(6, solver=solver, replace=Replacement(until=0.5)).sample(field, condition(ALL), NOISE)
    # multistep solvers see the straight line of the replaced cells: the state continues from it
    sigma = field.levels[3][0, 0]
    torch.testing.assert_close(field.states[3], (1 - sigma) * READOUT + sigma * NOISE, atol=1e-4, rtol=0)
    assert (field.states[4] - field.states[3]).abs().max() > 1e-3
    torch.testing.assert_close(half, TARGET, atol=1e-3, rtol=0)  # this field does not depend on the path


def test_feather_fades_towards_holes() -> None:
    visible = torch.ones(1, 1, 5, 8, dtype=torch.bool)
    visible[..., 4:] = False
    weight = Replacement(feather=1).weight(visible)[0, 0, 0]
    torch.testing.assert_close(weight[2], torch.tensor([1, 1, 1, 2 / 3, 0, 0, 0, 0]))
    assert torch.equal(weight, weight[:1].expand(5, -1)), "the image border is no hole"
    wide = Replacement(feather=2).weight(visible)[0, 0, 0, 2]
    torch.testing.assert_close(wide, torch.tensor([1, 1, 0.8, 0.6, 0, 0, 0, 0]))
    assert torch.equal(Replacement(feather=0).weight(visible)[:, 0], visible.float())


def test_sampler_runs_the_backbone() -> None:
    backbone = toy_backbone()
    denoiser = WanDenoiser(backbone, toy_branch(backbone), toy_codec())
    with torch.inference_mode():
        prepared = denoiser.condition(toy_conditioning(references=1, preceding=1, first=True))
        landed = WanSampler(3).sample(denoiser, prepared, NOISE)
        held = WanSampler(3, replace=Replacement(feather=0)).sample(denoiser, prepared, NOISE)
    assert landed.isfinite().all() and torch.equal(landed[:, :, :1], held[:, :, :1])
    seen = prepared.visible[:, None, 1:].expand_as(held[:, :, 1:])
    assert torch.equal(held[:, :, 1:][seen], prepared.readout[:, :, 1:][seen])
    assert (held - landed)[:, :, 1:][~seen].abs().max() > 1e-3, "what is held does not reach what is not"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"shift": 0.0}, "shift: expected a positive number, got 0.0"),
        ({"solver": "heun"}, r"solver: expected one of \['euler', 'unipc'\], got 'heun'"),
    ],
)
def test_bad_arguments_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WanSampler(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": 1.1}, r"until: expected a fraction in \[0, 1\], got 1.1"),
        ({"until": -0.1}, "until"),
        ({"until": float("nan")}, "until"),
        ({"feather": -1}, "feather: expected at least 0 cells, got -1"),
    ],
)
def test_bad_replacement_is_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Replacement(**arguments)
