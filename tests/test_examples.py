"""The examples run with small numbers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
pytestmark = pytest.mark.skipif(not EXAMPLES, reason="needs the checkout")


def run(name: str, folder: Path, *arguments: str, **variables: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_random_rollout(tmp_path: Path) -> None:
    assert "explored" in run("00_random_rollout.py", tmp_path, "--steps", "3")
    assert np.asarray(Image.open(tmp_path / "random_rollout.png")).shape == (96, 8 * 128, 3)


def test_own_picture(tmp_path: Path) -> None:
    Image.fromarray(np.full((120, 200, 3), 90, np.uint8)).save(tmp_path / "mine.png")
    output = run("01_own_picture.py", tmp_path, "mine.png", "--fov", "50", "--steps", "4")
    assert "of the last frame" in output
    strip = np.asarray(Image.open(tmp_path / "own_picture.png"))
    assert (strip[:, :128] == 90).all()  # begins with the start image


def test_train_ppo(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    output = run("02_train_ppo.py", tmp_path, "--steps", "8", "--worlds", "2")
    assert "saved policy.zip after 8 steps" in output
    assert "reached the goal in" in output
    assert (tmp_path / "policy.zip").exists()


def test_snapshot_and_fork(tmp_path: Path) -> None:
    output = run("03_snapshot_and_fork.py", tmp_path, "--steps", "2")
    assert output.count("would explore") == 3
    assert "the same, bit for bit" in output


def test_ros_session(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="no ROS 2: rclpy is not installed")
    from benchmarks.ros_process import NodeProcess, middleware, private_domain
    from mirage_sim.ros.launching import node_command

    domain = private_domain()
    with NodeProcess(domain, node_command()) as world:
        output = run("04_ros_session.py", tmp_path, "--frames", "5", **middleware(domain))
        assert "drove 5 frames" in output
        assert world.stop() == 0
    assert np.asarray(Image.open(tmp_path / "ros_session.png")).shape[1] == 1200


def test_many_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed, or has no wheel for this Python")
    output = run("05_many_workers.py", tmp_path, "--workers", "1", "--episodes", "2", "--steps", "3")
    assert "6 steps;" in output
    assert "2 episodes; the last one has frames of shape (4, 96, 128, 3)" in output


def test_every_example_is_run() -> None:
    source = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES if f'run("{path.name}"' not in source] == []


@pytest.mark.gl
def test_homes(tmp_path: Path) -> None:
    assert "wrote homes.jpg" in run("06_homes.py", tmp_path, "--homes", "2", "--columns", "2")
    assert np.asarray(Image.open(tmp_path / "homes.jpg")).shape == (2 * 192, 2 * 256, 3)


def test_animation(tmp_path: Path) -> None:
    assert "saved drive.gif" in run("07_animation.py", tmp_path, "--steps", "2", "--scale", "1")
    animation = Image.open(tmp_path / "drive.gif")
    assert (animation.size, animation.n_frames) == ((3 * 128, 20 + 96), 5)
