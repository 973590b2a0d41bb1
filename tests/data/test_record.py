"""Recording of walks: cameras, processes and invalid settings."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim.data.clips import load_clip
from mirage_sim.data.record import draw_mount, record
from mirage_sim.data.simulators import TRAINING_SEEDS, CameraMount
from mirage_sim.data.simulators.miniworld import MiniWorldSimulator


def test_mounts_are_default_or_of_robots():
    assert draw_mount(np.random.default_rng(0), 0.0) == CameraMount()
    mounts = [draw_mount(np.random.default_rng(seed), 0.5) for seed in range(200)]
    robots = [mount for mount in mounts if mount != CameraMount()]
    assert 70 < len(robots) < 130
    assert all(0.3 <= mount.height <= 1.5 and 50 <= mount.fov_deg <= 75 for mount in robots)
    assert min(mount.pitch_deg for mount in robots) < -5 and max(mount.pitch_deg for mount in robots) > 5


def test_mount_gives_the_pose_of_the_camera():
    c2w = CameraMount(0.5, 60.0, 10.0).camera_to_world(np.array([1.0, 0.0, 2.0]), np.pi / 2)
    right, down, forward, position = c2w[:3].T
    np.testing.assert_allclose(position, [1.0, 0.5, 2.0])
    np.testing.assert_allclose(right, [1.0, 0.0, 0.0], atol=1e-12)  # it faces -z
    np.testing.assert_allclose(forward, [0.0, -np.sin(np.radians(10)), -np.cos(np.radians(10))], atol=1e-12)
    np.testing.assert_allclose(np.cross(forward, right), down, atol=1e-12)


def test_two_workers_record_the_same_bits_as_one(tmp_path: Path):
    try:
        MiniWorldSimulator("OneRoom").close()
    except ImportError as error:
        pytest.skip(str(error))
    for workers in (1, 2):
        assert record(tmp_path / str(workers), walks=3, frames=3, robot_share=1.0, workers=workers) == 3
    alone, together = (sorted((tmp_path / folder).glob("*.safetensors")) for folder in "12")
    assert [path.name for path in alone] == [path.name for path in together] and len(alone) == 3
    for one, two in zip(map(load_clip, alone), map(load_clip, together), strict=True):
        assert torch.equal(one.frames, two.frames) and torch.equal(one.depth, two.depth) and torch.equal(one.K, two.K)
        assert 0.3 <= one.c2w[0, 1, 3] <= 1.5 and one.source["simulator"] == "miniworld"
    assert record(tmp_path / "1", walks=3, frames=3, robot_share=1.0) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"walks": 0}, "expected at least 1, 2 and 1"),
        ({"walks": 1, "workers": 0}, "expected at least 1, 2 and 1"),
        ({"walks": 1, "simulator": "moon"}, r"simulator: expected one of \['homes', 'miniworld'\], got 'moon'"),
        ({"walks": 2, "first_seed": TRAINING_SEEDS[-1]}, "seeds: expected within"),
    ],
)
def test_invalid_settings_write_nothing(tmp_path: Path, settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        record(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()
