import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.geometry import interpolate, invert, is_rigid, se3_exp, se3_log

BATCHES = st.sampled_from([(), (1,), (5,), (2, 3), (0,)])
DTYPES = st.sampled_from([torch.float32, torch.float64])


@st.composite
def twists(draw: st.DrawFn, count: int = 1, most: float = 3.0) -> list[torch.Tensor]:
    shape, dtype = draw(BATCHES), draw(DTYPES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.0, 1e-6, 1e-3, 1.0]))
    out = []
    for _ in range(count):
        twist = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
        angle = torch.rand(*shape, 1, generator=generator, dtype=torch.float64) * most * scale
        direction = twist[..., 3:] / twist[..., 3:].norm(dim=-1, keepdim=True)
        out.append(torch.cat([twist[..., :3] * 3, direction * angle], dim=-1).to(dtype))
    return out


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.allclose(a, b, atol=1e-4 if a.dtype == torch.float32 else 1e-9)


@settings(max_examples=20, deadline=None)
@given(twists(3))
def test_group_axioms(three: list[torch.Tensor]) -> None:
    a, b, c = (se3_exp(twist) for twist in three)
    identity = torch.eye(4, dtype=a.dtype).expand_as(a)
    assert is_rigid(a @ b)
    assert close((a @ b) @ c, a @ (b @ c))
    assert close(a @ identity, a) and close(identity @ a, a)
    assert close(a @ invert(a), identity) and close(invert(a) @ a, identity)
    assert close(invert(a @ b), invert(b) @ invert(a))


@settings(max_examples=20, deadline=None)
@given(twists(1))
def test_log_inverts_exp(one: list[torch.Tensor]) -> None:
    (twist,) = one
    assert close(se3_log(se3_exp(twist)), twist)
    assert close(se3_exp(-twist), invert(se3_exp(twist)))


@pytest.mark.parametrize("axis", [(1.0, 0, 0), (0, -1.0, 0), (0.6, 0, 0.8), (-0.48, 0.6, 0.64)])
@pytest.mark.parametrize("angle", [3.0, 3.14, math.pi - 1e-6, math.pi])
def test_log_near_a_half_turn(axis: tuple[float, float, float], angle: float) -> None:
    twist = torch.tensor([0.1, 0.2, -0.3, *(angle * a for a in axis)], dtype=torch.float64)
    motion = se3_exp(twist)
    assert close(se3_exp(se3_log(motion)), motion)


def test_exp_of_a_quarter_turn_is_an_arc() -> None:
    # half a metre of arc per radian: a circle of radius 1/2 about a centre to the right of a camera turning right
    motion = se3_exp(torch.tensor([0.0, 0, math.pi / 4, 0, math.pi / 2, 0]))
    assert torch.allclose(motion[:3, 3], torch.tensor([0.5, 0.0, 0.5]), atol=1e-6)
    assert torch.allclose(motion[:3, :3] @ torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0]), atol=1e-6)


def test_is_rigid_rejects_other_matrices() -> None:
    good = torch.eye(4)
    for spoil in (
        lambda m: m[0, 0].mul_(2),
        lambda m: m[2, 2].mul_(-1),
        lambda m: m[3, 0].add_(1),
        lambda m: m[0, 3].fill_(torch.nan),
    ):
        bad = good.clone()
        spoil(bad)
        assert is_rigid(good) and not is_rigid(bad) and not is_rigid(torch.stack([good, bad]))


def test_interpolation_has_constant_twist_and_exact_end():
    torch.manual_seed(5)
    start, end = se3_exp(torch.randn(2, 6))
    way = interpolate(start, end, torch.tensor([0.0, 0.25, 0.5, 1.0]))
    torch.testing.assert_close(way[0], start)
    torch.testing.assert_close(invert(way[0]) @ way[1], invert(way[1]) @ way[2], atol=1e-5, rtol=0)
    assert torch.equal(way[3], end)
