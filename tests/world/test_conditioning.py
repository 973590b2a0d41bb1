import pytest
import torch

from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.protocols import MemoryView
from mirage_sim.world import References, build_conditioning, stack_references


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


def test_mismatched_shapes_are_rejected():
    last = Camera.from_fov(torch.eye(4).expand(2, 4, 4), 60.0, (8, 12))
    cameras = Camera.from_fov(torch.eye(4).expand(2, 1, 4, 4), 60.0, (8, 12))
    with pytest.raises(ValueError, match="cameras, last: expected"):
        build_conditioning(view(3, 1), torch.zeros(3, 4, 1, 2, 3), last, cameras)
    with pytest.raises(ValueError, match="preceding: expected"):
        build_conditioning(view(2, 1), torch.zeros(1, 4, 1, 2, 3), last, cameras)


def test_optional_conditioning_is_passed_on():
    torch.manual_seed(2)
    last = Camera.from_fov(torch.eye(4).expand(2, 4, 4), 60.0, (8, 12))
    cameras = Camera.from_fov(torch.eye(4).expand(2, 3, 4, 4), 60.0, (8, 12))
    inputs = {
        "first": torch.randn(2, 4, 1, 2, 3),
        "references": torch.randn(2, 4, 2, 2, 3),
        "preceding_readout": torch.randn(2, 4, 1, 2, 3),
        "text": torch.randn(2, 5, 7),
    }
    conditioning = build_conditioning(view(2, 3), torch.zeros(2, 4, 1, 2, 3), last, cameras, **inputs)
    assert all(getattr(conditioning, name) is value for name, value in inputs.items())
    assert build_conditioning(view(2, 3), torch.zeros(2, 4, 0, 2, 3), last, cameras).motion.shape == (2, 3, 6)


def wall(yaw: float = 0.0, side: float = 0.0) -> Camera:
    twist = torch.tensor([[side, 0.0, 0.0, 0.0, yaw, 0.0]])
    return Camera.from_fov(se3_exp(twist), 60.0, (32, 48))


def test_references_overlap_with_the_place_best_first():
    references = References(most=2)
    depth = torch.full((1, 2, 3), 2.0)
    frames = [references.place(depth, wall(side=side)) for side in (5.0, 1.0, 0.5, 0.0)]
    assert references.choose(references.place(depth, wall()), frames) == [3, 2]
    assert references.choose(references.place(depth, wall(side=20.0)), frames) == []


def test_unknown_depth_has_no_voxels():
    references = References()
    depth = torch.full((2, 2, 3), 2.0)
    depth[1] = 0.0
    both = Camera.stack([wall()[0], wall(side=9.0)[0]])
    seen, alone = references.place(depth, both), references.place(depth[:1], wall())
    assert (seen.bricks == alone.bricks).all() and (seen.masks == alone.masks).all()
    assert len(references.place(torch.zeros(1, 2, 3), wall()).bricks) == 0


def test_stacked_references():
    like = torch.zeros(4, 2, 2, 3)
    assert stack_references([], like).shape == (4, 0, 2, 3)
    latents = [torch.full((4, 2, 3), float(i)) for i in range(3)]
    assert torch.equal(stack_references(latents, like)[:, 2], latents[2])
