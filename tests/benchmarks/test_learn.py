import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import learn
from mirage_sim.build import compose
from mirage_sim.settings.benchmarks import LearnBenchSettings
from mirage_sim.world import WorldModel

sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")

SMALL = {"steps": 16, "seeds": 2, "episodes": 2, "max_episode_steps": 4, "worlds": 2, "seed": 0, "output": None}


def settings(**changes: Any) -> LearnBenchSettings:
    changed: LearnBenchSettings = dataclasses.replace(compose("bench learn"), **changes)
    return changed


@pytest.fixture
def small(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> LearnBenchSettings:
    """Settings that take seconds, on the toy world."""
    monkeypatch.setattr(learn, "instantiate", lambda world: model)
    monkeypatch.setattr(learn, "PPO_SETTINGS", {**learn.PPO_SETTINGS, "n_steps": 8, "batch_size": 16, "n_epochs": 1})
    return settings(**SMALL)


def test_benchmark_trains_measures_and_saves(model: WorldModel, small: LearnBenchSettings, tmp_path: Path) -> None:
    metrics = learn.bench_learn(dataclasses.replace(small, output=str(tmp_path / "policies")))["marks"]
    assert metrics["steps"] == 16
    assert metrics["steps_per_s"] > 0
    for name, baseline in (("gain_over_random", "success_random"), ("gain_over_forward", "success_forward")):
        assert metrics[name] == pytest.approx(metrics["success"] - metrics[baseline])
        assert -1.0 <= metrics[f"{name}_lo"] <= metrics[name] <= metrics[f"{name}_hi"] <= 1.0
    for name in ("success", "success_random", "success_forward"):
        assert 0.0 <= metrics[f"{name}_lo"] <= metrics[name] <= metrics[f"{name}_hi"] <= 1.0
        episodes = 2 if name == "success_forward" else 2 * 2  # one fixed policy, or a policy of each training
        assert metrics[name] * episodes == pytest.approx(round(metrics[name] * episodes))
    assert sorted(path.name for path in (tmp_path / "policies").iterdir()) == ["policy_0.zip", "policy_1.zip"]
    loaded = sb3.PPO.load(tmp_path / "policies" / "policy_1.zip", device="cpu")
    action, _ = loaded.predict(np.zeros((48, 64, 3), np.uint8), deterministic=True)
    assert 0 <= action < 4


def test_training_changes_the_policy_and_repeats(model: WorldModel, small: LearnBenchSettings) -> None:
    first, again, other = (learn.train(model, small, seed) for seed in (3, 3, 4))
    weights = [policy.policy.state_dict()["action_net.weight"].numpy() for policy in (first, again, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()
    fresh = (
        learn.train(model, SimpleNamespace(**{**vars(small), "steps": 0}), 3)
        .policy.state_dict()["action_net.weight"]
        .numpy()
    )
    assert (weights[0] != fresh).any()


def test_all_policies_get_the_same_episodes(model: WorldModel, small: LearnBenchSettings) -> None:
    firsts = []
    for action in (0, 1):
        seen: list[np.ndarray] = []

        def choose(frames: np.ndarray, action: int = action, seen: list[np.ndarray] = seen) -> np.ndarray:
            seen.append(frames)
            return np.full(len(frames), action)

        reached = learn.successes(model, dataclasses.replace(small, episodes=5), choose)
        assert reached.shape == (5,) and reached.dtype == bool
        firsts.append(seen)
    np.testing.assert_array_equal(firsts[0][0], firsts[1][0])
    assert len(firsts[1]) == 12  # turning left reaches nothing: three episodes of four steps in one of the worlds


def test_reaching_the_goal_is_success(
    model: WorldModel, small: LearnBenchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mirage_sim.envs.tasks import Goal

    near = Goal(radius=0.9, distance=(1.0, 1.2))
    monkeypatch.setattr(learn, "ENVIRONMENT", {**learn.ENVIRONMENT, "task": near})
    reached = learn.successes(model, small, lambda frames: np.zeros(len(frames), int))
    assert reached.all()
    away = learn.successes(model, small, lambda frames: np.full(len(frames), 3))
    assert not away.any()


def test_interval_covers_policies_and_episodes() -> None:
    rng = np.random.default_rng(0)
    even = learn.interval(rng.random((4, 200)) < 0.5)
    assert even.low < even.mean < even.high and even.high - even.low < 0.2
    mixed = learn.interval(np.repeat([[True], [False]], 200, axis=1))
    assert (mixed.low, mixed.mean, mixed.high) == (0.0, 0.5, 1.0)


def test_success_of_all_episodes_has_an_interval() -> None:
    """Wilson's interval of 32 successes in 32 episodes is 0.893 to 1."""
    interval = learn.interval_of_shares(np.ones((1, 32), bool))
    assert (interval.low, interval.mean, interval.high) == (pytest.approx(0.893, abs=5e-4), 1.0, 1.0)
    none = learn.interval_of_shares(np.zeros((4, 32), bool))  # four policies do not make more episodes
    assert (none.low, none.mean, none.high) == (0.0, 0.0, pytest.approx(0.107, abs=5e-4))
    mixed = np.repeat([[True], [False]], 200, axis=1)
    assert learn.interval_of_shares(mixed) == learn.interval(mixed)


def test_gains_are_paired() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(64) < 0.5
    policies = np.stack([hard, hard])
    gain = learn.interval(policies.astype(int) - hard[None])
    assert (gain.low, gain.mean, gain.high) == (0.0, 0.0, 0.0)


def test_evaluation_shares_no_start_image_with_training(model: WorldModel, small: LearnBenchSettings) -> None:
    trained, measured = (learn.make_worlds(model, small, measured=each) for each in (False, True))
    images = [{start.tobytes() for start in worlds.envs[0].unwrapped.world.starts} for worlds in (trained, measured)]
    assert images[0] and images[1] and not images[0] & images[1]


def test_trainings_use_different_worlds(
    model: WorldModel, small: LearnBenchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[list[int]] = []
    make = learn.make_worlds

    def watched(*arguments: Any, **settings: Any) -> Any:
        worlds = make(*arguments, **settings)
        monkeypatch.setattr(
            worlds, "reset", lambda seed: (seeds.append(seed), type(worlds).reset(worlds, seed=seed))[1]
        )
        return worlds

    monkeypatch.setattr(learn, "make_worlds", watched)
    for seed in (0, 1):
        learn.train(model, small, seed)
    assert seeds == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 0}, "steps: expected a positive integer, got 0"),
        ({"episodes": "all"}, "episodes: expected a positive integer, got 'all'"),
        ({"seed": -1}, "seed: expected an integer from 0, got -1"),
        ({"seed": 499_999}, "seed: expected an integer in"),
    ],
)
def test_unusable_settings_are_rejected(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        learn.bench_learn(settings(**{**SMALL, **change}))
