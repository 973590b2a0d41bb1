import pytest
import torch

from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.protocols import MemoryView
from mirage_sim.world import build_conditioning


def view(batch: int, latents: int) -> MemoryView:
    cells = (batch, latents, 2, 3)
    return MemoryView(
        torch.zeros(batch, 4, *cells[1:]),
        torch.zeros(cells, dtype=torch.bool),
        torch.zeros(cells),
        torch.full(cells, -1),
        torch.zeros(batch, 2, *cells[1:]),
        torch.zeros(cells),
    )


def test_motion_is_the_twist_from_the_last_camera():
    torch.manual_seed(0)
    start = se3_exp(torch.randn(3, 6))
    twists = 0.3 * torch.randn(3, 2, 6)
    cameras = Camera.from_fov(start[:, None] @ se3_exp(twists), 60.0, (8, 12))
    conditioning = build_conditioning(
        view(3, 2), torch.zeros(3, 4, 1, 2, 3), Camera.from_fov(start, 60.0, (8, 12)), cameras
    )
    torch.testing.assert_close(conditioning.motion, twists, atol=1e-5, rtol=1e-4)


def test_batch_equals_singles():
    torch.manual_seed(1)
    last = Camera.from_fov(se3_exp(torch.randn(3, 6)), 60.0, (8, 12))
    cameras = Camera.from_fov(se3_exp(torch.randn(3, 1, 6)), 60.0, (8, 12))
    preceding = torch.randn(3, 4, 1, 2, 3)
    batched = build_conditioning(view(3, 1), preceding, last, cameras).motion
    for i in range(3):
        one = slice(i, i + 1)
        single = build_conditioning(view(1, 1), preceding[one], last[one], cameras[one]).motion
        torch.testing.assert_close(batched[one], single, atol=1e-6, rtol=1e-6)


def test_disagreeing_shapes_are_refused():
    last = Camera.from_fov(torch.eye(4).expand(2, 4, 4), 60.0, (8, 12))
    cameras = Camera.from_fov(torch.eye(4).expand(2, 1, 4, 4), 60.0, (8, 12))
    with pytest.raises(ValueError, match="cameras, last: expected"):
        build_conditioning(view(3, 1), torch.zeros(3, 4, 1, 2, 3), last, cameras)
    with pytest.raises(ValueError, match="preceding: expected"):
        build_conditioning(view(2, 1), torch.zeros(1, 4, 1, 2, 3), last, cameras)
