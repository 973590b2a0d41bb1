"""Tests of the MiniWorld simulator; skipped if MiniWorld or EGL is missing."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim.data.clips import Clip, load_clip
from mirage_sim.data.record import WalkSpec, record, record_walk
from mirage_sim.data.simulators import EVALUATION_SEEDS, SHIPPED_SEEDS, TRAINING_SEEDS, CameraMount
from mirage_sim.data.simulators.miniworld import MiniWorldSimulator
from mirage_sim.geometry import Camera, VelocityLimits, splat, unproject

SPEC = WalkSpec("RoomObjects", 9, 12, "wander")


@pytest.fixture(scope="module")
def clip(simulator: MiniWorldSimulator) -> Clip:
    return record_walk(simulator, SPEC)


def test_clip_has_all_tensors(clip: Clip):
    assert clip.frames.shape == (12, 96, 128, 3) and clip.frames.dtype == torch.uint8
    assert clip.depth.shape == (12, 96, 128) and clip.depth.dtype == torch.float32
    assert clip.commands.shape == (11, 2) and clip.blocked.shape == (11,) and clip.blocked.dtype == torch.bool
    assert clip.source == {"environment": "RoomObjects", "seed": "9", "kind": "wander"}
    assert clip.frames.float().std() > 5 and clip.depth.min() > 0
    cameras = clip.cameras.validate()
    assert torch.equal(clip.K, Camera.from_fov(torch.eye(4), CameraMount().fov_deg, (96, 128)).K)
    assert (cameras.c2w[:, 1, 3] - CameraMount().height).abs().max() < 1e-6
    assert torch.equal(cameras.c2w[:, :3, 1], torch.tensor([0.0, -1.0, 0.0]).expand(12, 3))  # level


def test_same_spec_gives_same_clip(simulator: MiniWorldSimulator, clip: Clip):
    other = record_walk(simulator, replace(SPEC, seed=10))
    assert not torch.equal(other.frames, clip.frames)
    again = record_walk(simulator, SPEC)  # the other walk must have no effect
    for name in ("frames", "depth", "c2w", "K", "commands", "blocked"):
        assert torch.equal(getattr(again, name), getattr(clip, name)), name


def test_poses_follow_the_commands(simulator: MiniWorldSimulator):
    checked = 0
    for kind in ("wander", "return", "pivot"):
        clip = record_walk(simulator, WalkSpec("RoomObjects", 5, 20, kind))
        predicted = clip.c2w[:-1] @ VelocityLimits().motion(clip.commands)
        error = (predicted - clip.c2w[1:]).abs().flatten(1).amax(1)
        assert error[~clip.blocked].max() < 1e-4
        checked += int((~clip.blocked).sum())
    assert checked > 30


def test_blocked_step_turns_without_moving(simulator: MiniWorldSimulator):
    simulator.reset(3)
    for _ in range(200):  # ahead until a wall
        before = simulator.camera()
        if simulator.step(np.array([1.0, 0.5])):
            break
    else:
        pytest.fail("no wall within 200 steps")
    after = simulator.camera()
    assert torch.equal(after.c2w[:3, 3], before.c2w[:3, 3])
    turned = before.c2w @ VelocityLimits().motion(torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(after.c2w, turned, atol=1e-5, rtol=0)


def test_drive_scales_commands(simulator: MiniWorldSimulator):
    slow = VelocityLimits(dt=0.05, max_speed=0.8, max_turn_rate=2.0)
    simulator.reset(3)
    start, standard = simulator.camera(), simulator.drive
    simulator.drive = slow
    try:
        assert not simulator.step(np.array([0.5, -1.0]))
    finally:
        simulator.drive = standard
    expected = start.c2w @ slow.motion(torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(simulator.camera().c2w, expected, atol=1e-4, rtol=0)


def test_depth_warps_one_frame_to_another(clip: Clip):
    cameras = clip.cameras
    points = unproject(clip.depth[0], cameras[0]).flatten(0, 1)
    footprint = (clip.depth[0] / clip.K[0, 0]).flatten()
    seen = splat(points, torch.arange(len(points)), footprint, cameras[5], tolerance=0.02)
    hit = seen.index >= 0
    assert 0.4 < hit.float().mean() < 0.9
    assert (cameras.c2w[0] - cameras.c2w[5])[:3, 3].norm() > 0.3

    def psnr(found: torch.Tensor) -> float:
        return float(-10 * torch.log10((found - clip.frames[5][hit].float()).square().mean() / 255**2))

    warped = clip.frames[0].flatten(0, 1)[seen.index.clamp(min=0)][hit].float()
    assert psnr(warped) > 25
    assert psnr(warped) > psnr(clip.frames[0][hit].float()) + 3  # the camera moved
    near = hit & (clip.depth[5] < 50)  # not the sky
    error = (seen.depth[near] / clip.depth[5][near] - 1).abs()
    assert error.median() < 0.01 and (error > 0.1).float().mean() < 0.05  # errors at edges


def test_record_keeps_existing_files(simulator: MiniWorldSimulator, tmp_path: Path):
    assert record(tmp_path, walks=2, frames=3, first_seed=40) == 2
    names = ["FourRooms-000041.safetensors", "OneRoom-000040.safetensors"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    clip = load_clip(tmp_path / names[0])
    assert len(clip) == 3 and clip.depth.dtype == torch.float16
    assert clip.source["environment"] == "FourRooms" and clip.source["seed"] == "41"
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).write_bytes(b"mine")  # recording would replace it
    assert record(tmp_path, walks=2, frames=3, first_seed=40) == 1
    again = load_clip(tmp_path / names[0])
    assert torch.equal(again.frames, clip.frames) and torch.equal(again.depth, clip.depth)
    assert (tmp_path / names[1]).read_bytes() == b"mine"
    assert record(tmp_path, walks=2, frames=3, first_seed=40) == 0


@pytest.mark.parametrize(
    ("first_seed", "walks"),
    [(EVALUATION_SEEDS.start, 1), (SHIPPED_SEEDS.start, 1), (TRAINING_SEEDS.stop - 1, 2), (-1, 3)],
)
def test_record_rejects_evaluation_seeds(tmp_path: Path, first_seed: int, walks: int):
    with pytest.raises(ValueError, match=r"seeds: expected within range\(0, 790000\)"):
        record(tmp_path / "out", walks, frames=3, first_seed=first_seed)
    assert not (tmp_path / "out").exists()


def test_unsuitable_environment_raises(simulator: MiniWorldSimulator):
    with pytest.raises(ValueError, match="^environment: expected one of MiniWorld that takes .*, got 'Sign': "):
        MiniWorldSimulator("Sign")


def test_missing_miniworld_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "miniworld", None)  # makes the import fail
    with pytest.raises(ImportError, match=r"needs MiniWorld and EGL: pip install mirage_sim\[twin\]"):
        MiniWorldSimulator("OneRoom")
