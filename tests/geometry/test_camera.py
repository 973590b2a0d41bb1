import math

import pytest
import torch

from mirage_sim.geometry import Camera, VelocityLimits, se3_exp


def trajectory(length: int = 3) -> Camera:
    twist = torch.linspace(0, 1, length)[:, None] * torch.tensor([0.3, -0.1, 0.5, 0.1, 0.4, -0.2])
    return Camera.from_fov(se3_exp(twist), 60.0, (12, 16))


def test_field_of_view_is_vertical() -> None:
    K = Camera.from_fov(torch.eye(4), 90.0, (10, 30)).K
    assert torch.allclose(K, torch.tensor([[5.0, 0, 15], [0, 5.0, 5], [0, 0, 1]]))


@pytest.mark.parametrize("fov", [0.0, 180.0, -5.0, math.nan])
def test_field_of_view_out_of_range(fov: float) -> None:
    with pytest.raises(ValueError, match="fov_deg"):
        Camera.from_fov(torch.eye(4), fov, (10, 30))


def test_resize_scales_intrinsics_only() -> None:
    camera = trajectory()
    half = camera.resize((3, 8))
    assert half.size == (3, 8) and torch.equal(half.c2w, camera.c2w)
    assert torch.allclose(half.K[0, :2], camera.K[0, :2] * torch.tensor([[0.5], [0.25]]))
    assert torch.equal(half.K[..., 2, 2], torch.ones(3))
    assert torch.allclose(half.resize((12, 16)).K, camera.K)
    assert camera.resize(camera.size) is camera


def test_batches() -> None:
    camera = trajectory()
    assert len(camera) == 3 and camera.batch_shape == (3,)
    again = Camera.stack(list(camera))
    assert torch.equal(again.c2w, camera.c2w) and torch.equal(again.K, camera.K) and again.size == camera.size
    assert len(camera[1:]) == 2 and camera[0].batch_shape == ()
    with pytest.raises(TypeError, match="single camera"):
        len(camera[0])
    with pytest.raises(ValueError, match="cameras"):
        Camera.stack([camera[0], camera[0].resize((6, 8))])
    with pytest.raises(ValueError, match="cameras"):
        Camera.stack([])


def test_validate_names_the_field() -> None:
    good = trajectory()
    assert good.validate() is good
    spoiled = good.c2w.clone()
    spoiled[1, 0, 0] = torch.nan
    mirrored = good.K.clone()
    mirrored[0, 0, 0] *= -1
    for bad, field in (
        (Camera(good.c2w.double(), good.K, good.size), "c2w"),
        (Camera(good.c2w[:, :3], good.K, good.size), "c2w"),
        (Camera(spoiled, good.K, good.size), "c2w"),
        (Camera(good.c2w * 2, good.K, good.size), "c2w"),
        (Camera(good.c2w, good.K[:2], good.size), "K"),
        (Camera(good.c2w, good.K.double(), good.size), "K"),
        (Camera(good.c2w, mirrored, good.size), "K"),
        (Camera(good.c2w, good.K * math.inf, good.size), "K"),
        (Camera(good.c2w, good.K, (0, 16)), "size"),
    ):
        with pytest.raises(ValueError, match=f"^{field}: expected"):
            bad.validate()


def test_w2c_inverts_c2w() -> None:
    camera = trajectory()
    assert torch.allclose(camera.w2c @ camera.c2w, torch.eye(4).expand(3, 4, 4), atol=1e-6)


def test_velocity_limits_scale_forward_and_turn() -> None:
    drive = VelocityLimits()
    ahead = drive.motion(torch.tensor([1.0, 0.0]))
    assert torch.allclose(ahead[:3, 3], torch.tensor([0.0, 0, 0.15])) and torch.equal(ahead[:3, :3], torch.eye(3))
    left = drive.motion(torch.tensor([0.0, 1.0]))
    forward = left[:3, :3] @ torch.tensor([0.0, 0, 1])
    assert torch.equal(left[:3, 3], torch.zeros(3))
    assert math.isclose(math.atan2(-float(forward[0]), float(forward[2])), math.pi / 30, rel_tol=1e-5)


def test_zero_command_is_identity_in_a_batch() -> None:
    drive = VelocityLimits(dt=0.2)
    assert torch.equal(drive.motion(torch.zeros(2)), torch.eye(4))
    commands = torch.rand(4, 3, 2) * 2 - 1
    motions = drive.motion(commands)
    assert motions.shape == (4, 3, 4, 4)
    assert torch.allclose(motions[2, 1], drive.motion(commands[2, 1]), atol=1e-7)


def test_full_circle_returns_to_start() -> None:
    pose = torch.eye(4)
    for _ in range(60):  # 60 steps of a 30th of half a turn
        pose = pose @ VelocityLimits().motion(torch.tensor([0.7, 1.0]))
    assert torch.allclose(pose, torch.eye(4), atol=1e-4)
