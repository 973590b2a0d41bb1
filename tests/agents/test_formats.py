import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from support.rollouts import rollout_of
from support.toy_world import SIZE

from mirage_sim.agents.formats import save_npz
from mirage_sim.envs.world_env import MirageWorldEnv


@pytest.fixture
def three_episodes(toy_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return toy_config | {"policy": "random", "steps": 4, "episodes": 3, "seed": 7, "output": str(tmp_path)}


def walked(env: gymnasium.Env, toy_config: dict[str, Any], seed: int, actions: np.ndarray) -> list[Any]:
    """The observations for these actions."""
    observation, _ = env.reset(seed=seed, options={"image": toy_config["image"], "fov_deg": 60.0})
    return [observation, *(env.step(action)[0] for action in actions)]


def test_archives_hold_whole_episodes_without_pickles(three_episodes: dict[str, Any], tmp_path: Path) -> None:
    result = rollout_of(three_episodes | {"format": "npz"})
    assert result["steps"] == 12 and result["episodes"] == 3
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".rollout", "episode_0000.npz", "episode_0001.npz", "episode_0002.npz", "metrics.json"]
    for i in range(3):
        with np.load(tmp_path / f"episode_{i:04d}.npz", allow_pickle=False) as archive:
            episode = dict(archive)
        assert episode["seed"] == 7 + i
        assert episode["observations/rgb"].shape == (5, *SIZE, 3) and episode["observations/rgb"].dtype == np.uint8
        assert episode["observations/depth"].shape == (5, *SIZE)
        assert episode["actions"].shape == (4, 2) and episode["rewards"].shape == (4,)
        assert episode["truncations"].tolist() == [False, False, False, True]
        assert not episode["terminations"].any()
        np.testing.assert_array_equal(episode["c2w"], episode["observations/pose"])
    assert len({tuple(np.load(path)["actions"][0]) for path in tmp_path.glob("*.npz")}) == 3


def test_archive_can_be_replayed(three_episodes: dict[str, Any], tmp_path: Path) -> None:
    rollout_of(three_episodes | {"format": "npz"})
    episode = np.load(tmp_path / "episode_0001.npz", allow_pickle=False)
    from mirage_sim.build import instantiate

    env = MirageWorldEnv(instantiate(three_episodes["world"]), observation="dict")
    again = walked(env, three_episodes, int(episode["seed"]), episode["actions"])
    for name in ("rgb", "depth", "pose", "remembered"):
        np.testing.assert_array_equal(np.stack([shown[name] for shown in again]), episode[f"observations/{name}"])


def test_archives_reject_python_objects(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="infos: expected an array of numbers, got dtype object"):
        save_npz(tmp_path / "a.npz", {"infos": np.array([{}])})
    assert not list(tmp_path.iterdir())


def test_minari_loads_the_data_set(
    three_episodes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason="Minari is not installed (Python 3.11 or newer)")
    monkeypatch.setenv("MINARI_DATASETS_PATH", "/elsewhere")
    monkeypatch.chdir(tmp_path.parent)
    figures = rollout_of(three_episodes | {"format": "minari", "output": tmp_path.name})
    assert os.environ["MINARI_DATASETS_PATH"] == "/elsewhere"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".rollout", "metrics.json", "rollout-v0"]

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = minari.load_dataset("rollout-v0")
    assert data.total_episodes == 3 and data.total_steps == 12
    assert data.storage.metadata["algorithm_name"] == "random"
    episodes = list(data.iterate_episodes())
    assert [metadata["seed"] for metadata in data.storage.get_episode_metadata(range(3))] == [7, 8, 9]
    env = data.recover_environment()
    assert isinstance(env.unwrapped, MirageWorldEnv)
    assert env.spec is not None and env.spec.id == "MirageWorld-v0" and env.spec.max_episode_steps == 4
    assert env.observation_space == data.observation_space and env.action_space == data.action_space
    again = walked(env, three_episodes, 8, episodes[1].actions)
    for name in ("rgb", "depth", "pose", "remembered"):
        np.testing.assert_array_equal(np.stack([shown[name] for shown in again]), episodes[1].observations[name])
    assert episodes[1].truncations.tolist() == [False, False, False, True]

    again = rollout_of(three_episodes | {"format": "minari"})
    assert again == figures | {"output": str(tmp_path), "seconds": again["seconds"]}, "of what is there"
    with pytest.raises(ValueError, match="output: expected a folder without episodes, .* whose seed differ"):
        rollout_of(three_episodes | {"format": "minari", "seed": 8})


def test_failed_recording_leaves_no_files(
    three_episodes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minari", reason="Minari is not installed (Python 3.11 or newer)")
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    with pytest.raises(FileNotFoundError, match="image: .*nowhere"):
        rollout_of(three_episodes | {"format": "minari", "image": "nowhere.png"})
    assert not list(tmp_path.iterdir())
    assert "MINARI_DATASETS_PATH" not in os.environ
