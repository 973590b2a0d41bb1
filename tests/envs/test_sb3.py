from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from mirage_sim.world import WorldModel

pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor  # noqa: E402

from mirage_sim.envs.sb3 import PPO, SB3VecEnv, unbatch_infos  # noqa: E402


def counting() -> gymnasium.Env:
    """Ends after four steps, or is cut short after three: what happens in it is quick to tell."""

    class Counting(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)
        render_mode = None

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            super().reset(seed=seed)
            self.count, self.start = 0, float(self.np_random.integers(100))
            return np.array([0, self.start], np.float32), {"started": self.start}

        def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
            self.count += int(action) + 1
            done = self.count == 4
            return np.array([self.count, self.start], np.float32), float(action), done, False, {"is_success": done}

    return TimeLimit(Counting(), 3)


def ours(count: int = 3) -> SB3VecEnv:
    return SB3VecEnv(SyncVectorEnv([counting] * count, autoreset_mode=AutoresetMode.SAME_STEP))


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    else:
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_adapter_agrees_with_dummy_vec_env() -> None:
    """Observations, rewards, ends and infos, across terminated and truncated episodes."""
    mine, theirs = ours(), DummyVecEnv([counting] * 3)
    mine.seed(7), theirs.seed(7)
    assert_same(mine.reset(), theirs.reset())
    assert mine.reset_infos == theirs.reset_infos
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(12):
        actions = rng.integers(0, 2, 3)
        for left, right in zip(mine.step(actions)[:3], theirs.step(actions)[:3], strict=True):
            assert_same(left, right)
    for _ in range(12):
        actions = rng.integers(0, 2, 3)
        infos = mine.step(actions)[3], theirs.step(actions)[3]
        for left, right in zip(*infos, strict=True):
            assert_same(left, right)
            ended += "terminal_observation" in right
        assert mine.reset_infos == theirs.reset_infos
    assert ended > 3


def test_adapter_rejects_other_autoreset_modes() -> None:
    with pytest.raises(ValueError, match="envs: expected autoreset_mode 'SameStep', got 'NextStep'"):
        SB3VecEnv(SyncVectorEnv([counting]))


def test_options_are_rejected() -> None:
    envs = ours()
    envs.set_options({"start": 1})
    with pytest.raises(ValueError, match="options: expected none"):
        envs.reset()


def test_single_environments_are_accessible() -> None:
    envs = ours()
    envs.seed(3)
    envs.reset()
    envs.step(np.array([0, 1, 1]))
    assert envs.get_attr("count") == [1, 2, 2]
    assert envs.get_attr("count", 0) == [1]
    assert envs.env_is_wrapped(TimeLimit, [1]) == [True]
    envs.set_attr("start", 5.0, [2])
    assert envs.step(np.array([0, 0, 0]))[0][2].tolist() == [3.0, 5.0]
    (first,) = envs.env_method("reset", seed=1, indices=[0])
    assert first[0][0] == 0.0
    envs.close()


def test_unbatch_infos_splits_nested_infos() -> None:
    infos = {
        "a": np.array([1, 2]),
        "_a": np.array([True, True]),
        "final_info": {"b": np.array([0.0, 3.0]), "_b": np.array([False, True])},
        "_final_info": np.array([False, True]),
    }
    assert unbatch_infos(infos, 2) == [{"a": 1}, {"a": 2, "final_info": {"b": 3.0}}]


def test_ppo_trains_saves_and_loads(model: WorldModel, starts: np.ndarray, tmp_path: Any) -> None:
    """In its small form: no claim of success."""
    envs = gymnasium.make_vec(
        "MirageWorld-v0",
        num_envs=2,
        world=model,
        starts=starts,
        task="goal",
        action_mode="discrete",
        max_episode_steps=5,
        autoreset_mode="SameStep",
        render_mode="rgb_array",
    )
    monitored = VecMonitor(SB3VecEnv(envs), info_keywords=("is_success",))
    policy = PPO("CnnPolicy", monitored, n_steps=8, batch_size=16, n_epochs=1, seed=0, device="cpu")
    before = policy.policy.state_dict()["action_net.weight"].clone()
    policy.learn(32)
    assert policy.num_timesteps == 32
    assert (policy.policy.state_dict()["action_net.weight"] != before).any()
    assert {episode["l"] for episode in policy.ep_info_buffer} <= set(range(1, 6))
    assert len(policy.ep_info_buffer) >= 6
    policy.save(tmp_path / "policy")
    frames = monitored.reset()
    again = PPO.load(tmp_path / "policy", device="cpu")
    np.testing.assert_array_equal(
        again.predict(frames, deterministic=True)[0], policy.predict(frames, deterministic=True)[0]
    )
    assert monitored.get_images()[0].shape == frames.shape[1:]
