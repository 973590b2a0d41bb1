import math

import pytest
import torch

from mirage_sim.geometry import Camera
from mirage_sim.models import MiniDepth
from mirage_sim.models.depth import FARTHEST, NEAREST

B, F, H, W = 2, 3, 48, 64


def inputs() -> tuple[torch.Tensor, Camera, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(B, 3, F, H, W, generator=generator) * 2 - 1
    camera = Camera.from_fov(torch.eye(4).expand(B, F, 4, 4), 60.0, (H, W))
    known = 0.5 + 9 * torch.rand(B, F, H // 4, W // 4, generator=generator)
    return frames, camera, known * (torch.rand(known.shape, generator=generator) < 0.5)


def make() -> MiniDepth:
    torch.manual_seed(0)
    return MiniDepth((16, 32)).eval().requires_grad_(False)


def test_untrained_head_keeps_known_depth():
    frames, camera, known = inputs()
    depth = make()(frames, camera, known)
    assert depth.shape == (B, F, H, W)
    cells = known.repeat_interleave(4, -2).repeat_interleave(4, -1)
    torch.testing.assert_close(depth, cells.where(cells > 0, math.exp(1.5)), rtol=1e-5, atol=0)


def test_depth_stays_in_range(awake):
    frames, camera, known = inputs()
    known[0, 0, 0, :2] = torch.tensor([1e-4, 1e4])
    depth = make()(frames, camera, known)
    assert depth[0, 0, 0, 0] == pytest.approx(NEAREST) and depth[0, 0, 0, 4] == pytest.approx(FARTHEST)
    wild = awake(make(), 0.5)(frames, camera, known)
    assert wild.min() >= NEAREST and wild.max() <= FARTHEST and wild.std() > 1


def test_frame_rays_and_known_depth_affect_the_result(awake):
    model = awake(make())
    frames, camera, known = inputs()
    depth = model(frames, camera, known)
    wide = Camera.from_fov(camera.c2w, 90.0, camera.size)
    for name, other in {
        "frames": model(-frames, camera, known),
        "rays": model(frames, wide, known),
        "known": model(frames, camera, 1.5 * known),
        "unknown": model(frames, camera, 0 * known),
    }.items():
        assert (other / depth).log().abs().max() > 1e-3, name


def test_frames_are_independent_and_pose_has_no_effect(awake):
    model = awake(make())
    frames, camera, known = inputs()
    depth = model(frames, camera, known)
    moved = camera.c2w.clone()
    moved[..., 0, 3] = 5.0
    assert torch.equal(model(frames, Camera(moved, camera.K, camera.size), known), depth)
    alone = model(frames[1:, :, 2:], camera[1:, 2:], known[1:, 2:])
    torch.testing.assert_close(alone[0, 0], depth[1, 2], rtol=1e-4, atol=0)
