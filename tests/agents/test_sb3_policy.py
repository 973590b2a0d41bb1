import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from support.rollouts import rollout_of
from support.toy_world import SIZE

from mirage_sim.agents.sb3_policy import LearnedPolicy

sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")


class Spaces(gymnasium.Env):
    """An environment with the spaces that a policy was trained for."""

    def __init__(self, observation_space: gymnasium.Space, action_space: gymnasium.Space):
        self.observation_space, self.action_space = observation_space, action_space


FRAMES = spaces.Box(0, 255, (*SIZE, 3), np.uint8)
GOALS = spaces.Dict({"rgb": FRAMES, "goal": spaces.Box(-np.inf, np.inf, (4,), np.float32)})


def saved(folder: Path, space: gymnasium.Space, algorithm: str = "PPO", actions: int = 4) -> str:
    kind = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "CnnPolicy"
    policy = getattr(sb3, algorithm)(kind, Spaces(space, spaces.Discrete(actions)), seed=1, device="cpu")
    policy.save(folder / "policy.zip")
    return str(folder / "policy.zip")


@pytest.fixture
def goal_config(toy_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    env = {**toy_config["env"], "action_mode": "discrete", "task": "goal"}
    return toy_config | {"env": env, "steps": 3, "trust_policy": True, "output": str(tmp_path / "out"), "format": "npz"}


@pytest.mark.parametrize("space", [FRAMES, GOALS], ids=["CnnPolicy", "MultiInputPolicy"])
def test_learned_policy_runs(goal_config: dict[str, Any], tmp_path: Path, space: gymnasium.Space) -> None:
    path = saved(tmp_path, space)
    result = rollout_of(goal_config | {"policy": path})
    assert result["success"] in (0.0, 1.0)
    episode = np.load(tmp_path / "out" / "episode_0000.npz", allow_pickle=False)
    policy = sb3.PPO.load(path, device="cpu")
    if isinstance(space, spaces.Dict):
        seen = [{key: episode[f"observations/{key}"][i] for key in ("rgb", "goal")} for i in range(3)]
    else:
        seen = list(episode["observations"])[:3]
        assert (episode["observations"][0] == [255, 0, 255]).all(axis=-1).any()  # the goal is drawn into the frame
    chosen = [policy.predict(observation, deterministic=True)[0] for observation in seen]
    np.testing.assert_array_equal(episode["actions"], chosen)


def test_policy_zip_needs_trust(goal_config: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, FRAMES)
    with pytest.raises(ValueError, match="contains pickled Python objects.*add trust_policy=true"):
        rollout_of(goal_config | {"policy": path, "trust_policy": False})
    with pytest.raises(ValueError, match="trust_policy: expected true or false, got 'yes'"):
        rollout_of(goal_config | {"policy": path, "trust_policy": "yes"})
    assert not (tmp_path / "out").exists()


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


def test_nothing_is_unpickled_without_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("trap.zip", "w") as archive:
        archive.writestr("data", pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="trust_policy=true"):
        LearnedPolicy("trap.zip", trust=False)
    with pytest.raises(ValueError, match="expected a zip that stable-baselines3 saved"):
        LearnedPolicy("trap.zip", trust=True)
    assert not Path("trapped").exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"no zip at all", "File is not a zip file"), ({"notes": "x"}, "'data'"), ({"data": "{"}, "Expecting property")],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, named: str) -> None:
    path = tmp_path / "policy.zip"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in content.items():
                archive.writestr(name, text)
    with pytest.raises(ValueError, match=f"policy: expected a zip that stable-baselines3 saved, .*{named}"):
        LearnedPolicy(path, trust=True)


def test_other_algorithms_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, spaces.Dict({"goal": GOALS["goal"]}), algorithm="A2C")
    with pytest.raises(ValueError, match="policy: expected a zip that PPO of stable-baselines3 saved"):
        LearnedPolicy(path, trust=True)


def test_missing_policy_is_named(goal_config: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError, match="policy: .*nowhere.zip, not a file"):
        rollout_of(goal_config | {"policy": "nowhere.zip"})


@pytest.mark.parametrize(
    ("space", "actions", "change", "named"),
    [
        (FRAMES, 4, {"action_mode": "twist"}, r"env.action_mode: expected .*Discrete\(4\), got Box"),
        (FRAMES, 5, {}, r"env.action_mode: expected .*Discrete\(5\), got Discrete\(4\)"),
        (spaces.Box(0, 255, (64, 64, 3), np.uint8), 4, {}, r"policy: expected observations of shape \(3, 64, 64\)"),
        (GOALS, 4, {"task": "explore"}, r"policy: expected observations.goal of shape \(4,\), got no such entry"),
    ],
)
def test_policy_for_other_spaces_is_refused(
    goal_config: dict[str, Any], tmp_path: Path, space: Any, actions: int, change: dict[str, Any], named: str
) -> None:
    path = saved(tmp_path, space, actions=actions)
    with pytest.raises(ValueError, match=named):
        rollout_of(goal_config | {"policy": path, "env": {**goal_config["env"], **change}})
    assert not (tmp_path / "out").exists()


def test_algorithm_is_read_without_unpickling(tmp_path: Path) -> None:
    """The check reads plain JSON beside the pickles."""
    with zipfile.ZipFile(saved(tmp_path, FRAMES)) as archive:
        assert {"clip_range", "n_epochs", "policy_class"} <= set(json.loads(archive.read("data")))
