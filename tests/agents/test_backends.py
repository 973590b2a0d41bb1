"""Workers and drivers are killed with SIGKILL; the final files equal those of one undisturbed process."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.rollouts import rollout_of

from benchmarks.rollout import Driver, compare
from mirage_sim.agents.formats import episode_name
from mirage_sim.build import compose, instantiate

EPISODES, STEPS = 12, 12
PATIENCE = 300.0  # seconds until a machine that is busy otherwise, too, must have got so far
PROGRAM = """
import json, logging, sys
from mirage_sim.agents.rollout import rollout
from mirage_sim.settings import RolloutSettings
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
print(json.dumps(rollout(RolloutSettings.read(json.loads(sys.argv[1])))))
"""


@pytest.fixture(scope="module")
def settings(toy_config: dict[str, Any]) -> dict[str, Any]:
    return toy_config | {
        "policy": "random",
        "steps": STEPS,
        "episodes": EPISODES,
        "worlds": 2,
        "seed": 3,
        "format": "npz",
    }


@pytest.fixture(scope="module")
def undisturbed(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The episodes of one process."""
    folder = tmp_path_factory.mktemp("local")
    rollout_of(settings | {"output": str(folder)})
    return folder


def on_ray(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    pytest.importorskip("ray", reason="Ray is not installed, or has no wheel for this Python")
    backend = compose("rollout", ["backend=ray", "num_workers=2"]).backend
    return settings | {"backend": backend, "output": str(folder)}


def disturbable(settings: dict[str, Any]) -> Driver:
    """Start a rollout and wait until it has some episodes."""
    driver = Driver([sys.executable, "-c", PROGRAM, json.dumps(settings)], Path(settings["output"]))
    driver.start()
    assert len(driver.workers()) == 2, driver.output()
    assert 0 < len(driver.episodes()) < EPISODES, "too late to disturb anything"
    return driver


def processes(driver: Driver) -> list[psutil.Process]:
    """The driver and its child processes."""
    main = psutil.Process(driver.process.pid)
    return [main, *main.children(recursive=True)]


def assert_all_end(left: list[psutil.Process]) -> None:
    wait(lambda: all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in left))


def wait(until: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)


def assert_same(folder: Path, undisturbed: Path) -> None:
    """Each episode exists once with the same bits, and no other file."""
    names = [".rollout", *(f"{episode_name(number)}.npz" for number in range(EPISODES)), "metrics.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names[1:-1]:
        with np.load(folder / name) as mine, np.load(undisturbed / name) as other:
            assert mine.files == other.files
            for entry in mine.files:
                np.testing.assert_array_equal(mine[entry], other[entry], err_msg=f"{name} {entry}", strict=True)


@pytest.mark.slow
def test_killed_worker_loses_and_duplicates_no_episode(
    settings: dict[str, Any], undisturbed: Path, tmp_path: Path
) -> None:
    driver = disturbable(on_ray(settings, tmp_path / "ray"))
    started = processes(driver)
    os.kill(driver.workers()[0], signal.SIGKILL)
    driver.finish()
    assert_same(tmp_path / "ray", undisturbed)
    assert compare(tmp_path / "ray", range(3, 3 + EPISODES)) == (0, 0)
    result = json.loads(driver.output().splitlines()[-1])
    assert result["episodes"] == EPISODES and result["steps"] == STEPS * EPISODES and result["seed"] == 3
    assert_all_end(started)


@pytest.mark.slow
def test_same_command_continues_after_killed_driver(
    settings: dict[str, Any], undisturbed: Path, tmp_path: Path
) -> None:
    driver = disturbable(on_ray(settings, tmp_path / "ray"))
    started = processes(driver)
    driver.process.kill()
    driver.process.wait()
    assert_all_end(started)
    there = {path: path.stat().st_mtime_ns for path in driver.episodes()}
    assert compare(tmp_path / "ray", range(3, 3 + EPISODES)) == (EPISODES - len(there), 0)
    assert 0 < len(there) < EPISODES
    rollout_of(settings | {"output": str(tmp_path / "ray")})  # any backend does
    assert_same(tmp_path / "ray", undisturbed)
    assert all(path.stat().st_mtime_ns == time for path, time in there.items())


def test_lost_and_duplicated_episodes_are_counted(tmp_path: Path) -> None:
    for name, seed in (("a", 4), ("b", 5), ("c", 5)):
        np.savez(tmp_path / f"{name}.npz", seed=seed)
    assert compare(tmp_path, range(3, 6)) == (1, 1)


def test_saved_episodes_are_not_generated_again(settings: dict[str, Any], undisturbed: Path, tmp_path: Path) -> None:
    few = settings | {"episodes": 3, "output": str(tmp_path)}
    figures = rollout_of(few)
    (tmp_path / "episode_0002.npz").unlink()
    (tmp_path / ".partial0-episode_0002.npz").write_bytes(b"half")
    kept = (tmp_path / "episode_0001.npz").stat()
    again = rollout_of(few)
    measured = dict.fromkeys(("steps_per_s", "seconds", "bytes"), 0)
    assert again | measured == figures | measured
    assert (tmp_path / "episode_0001.npz").stat() == kept
    assert not list(tmp_path.glob(".partial*"))
    with pytest.raises(ValueError, match="whose episodes, seed differ; delete it or choose another"):
        rollout_of(few | {"seed": 4, "episodes": 4})


def test_episodes_in_a_batch_end_independently(toy_config: dict[str, Any], tmp_path: Path) -> None:
    """An episode that reaches the goal leaves the batch; the others continue."""
    goal = {"_target_": "mirage_sim.envs.tasks.Goal", "radius": 0.95, "distance": [1.0, 1.2]}
    env = toy_config["env"] | {"task": goal}
    few = toy_config | {"policy": "random", "env": env, "steps": 9, "episodes": 6, "worlds": 6, "format": "npz"}
    rollout_of(few | {"output": str(tmp_path)})
    lengths, ended = [], []
    for path in sorted(tmp_path.glob("episode_*.npz")):
        with np.load(path) as episode:
            lengths.append(len(episode["actions"]))
            ended.append(bool(episode["terminations"][-1]))
            assert not episode["terminations"][:-1].any() and len(episode["c2w"]) == lengths[-1] + 1
    assert [length < 9 for length in lengths] == ended and 0 < sum(ended) < 6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_workers": 0}, "num_workers: expected a positive integer, got 0"),
        ({"cpus": 0.5}, "cpus: expected a positive integer, got 0.5"),
        ({"gpus": -1}, "gpus: expected a number from 0, got -1"),
        ({"address": 6379}, "address: expected HOST:PORT, got 6379"),
    ],
)
def test_unusable_ray_settings_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        instantiate(compose("rollout", ["backend=ray"]).backend | change)
