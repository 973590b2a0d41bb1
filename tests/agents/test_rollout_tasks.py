import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.rollouts import rollout_of

from mirage_sim.build import compose, instantiate
from mirage_sim.envs.tasks import Goal
from mirage_sim.envs.termination import Time


def arguments(*overrides: str) -> dict[str, Any]:
    env: dict[str, Any] = compose("rollout", ["policy=random", *overrides]).env
    return env


def test_env_settings_build_tasks_and_terminations() -> None:
    built = instantiate(arguments("env=goal", "env.task.kind=image", "env.task.distance=[2,3]", "env.action_mode=se3"))
    assert built["task"] == Goal(kind="image", distance=(2, 3))
    assert built["terminate_on"] == ("success",)
    assert built["action_mode"] == "se3"
    assert instantiate(arguments("env=goal"))["task"] == Goal()
    assert arguments("env.task=goal")["task"] == "goal"
    timed = "env.terminate_on=[success,collision,{_target_:mirage_sim.envs.termination.Time,seconds:2.5}]"
    assert instantiate(arguments(timed))["terminate_on"] == ("success", "collision", Time(2.5))
    with pytest.raises(ValueError, match="radius: expected"):
        instantiate(arguments("env=goal", "env.task.radius=-1"))


@pytest.mark.parametrize("overrides", [["env.task=goal"], ["env=goal"], ["env=goal", "env.task.kind=image"]])
def test_rollout_saves_goals_and_rewards(toy_config: dict[str, Any], tmp_path: Path, overrides: list[str]) -> None:
    changed = {"env": arguments(*overrides), "policy": "random", "steps": 3, "output": str(tmp_path), "format": "npz"}
    result = rollout_of(toy_config | changed)
    assert result["success"] == 0.0
    assert json.loads((tmp_path / "metrics.json").read_text())["reward"] == pytest.approx(result["reward"])
    with np.load(tmp_path / "episode_0000.npz") as arrays:
        goals = arrays["observations/goal"]
    assert len(goals) == 4
    if overrides[-1].endswith("image"):
        assert np.array_equal(goals[0], goals[-1])
    else:  # dense rewards add up to the metres come nearer
        distances = np.linalg.norm(goals[:, :3], axis=1)
        assert result["reward"] == pytest.approx(distances[0] - distances[-1], abs=1e-5)


def test_time_limit_terminates_a_rollout(toy_config: dict[str, Any], tmp_path: Path) -> None:
    terminate_on = "env.terminate_on=[{_target_:mirage_sim.envs.termination.Time,seconds:0.2}]"
    changed = {"env": arguments(terminate_on), "steps": 9, "output": str(tmp_path), "format": "npz"}
    assert rollout_of(toy_config | changed)["steps"] == 2
