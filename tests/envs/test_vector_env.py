from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from support.toy_world import SIZE

from mirage_sim.envs.tasks import TaskResult
from mirage_sim.envs.vector_env import MirageWorldVectorEnv
from mirage_sim.world import Chunk, Observation, WorldModel, WorldState


@pytest.fixture
def make_vec(model: WorldModel, starts: np.ndarray):
    def make_vec(num_envs: int = 3, **arguments: Any) -> MirageWorldVectorEnv:
        envs = gymnasium.make_vec("MirageWorld-v0", num_envs=num_envs, world=model, starts=starts, **arguments)
        assert isinstance(envs, MirageWorldVectorEnv)
        return envs

    return make_vec


def singles(model: WorldModel, starts: np.ndarray, mode: AutoresetMode, count: int = 3, **arguments: Any):
    def make() -> gymnasium.Env:
        return gymnasium.make("MirageWorld-v0", world=model, starts=starts, **arguments)

    return SyncVectorEnv([make] * count, autoreset_mode=mode)


def assert_same(ours: Any, theirs: Any, at: str) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), at
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{at}.{key}")
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other, at)
    else:
        np.testing.assert_array_equal(ours, theirs, err_msg=at, strict=isinstance(theirs, np.ndarray))


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are advanced one by one, which rounds as single worlds do."""
    together = WorldModel.advance

    def advance(self: WorldModel, states: Any, cameras: Any) -> tuple[list[WorldState], list[Chunk]]:
        made = [together(self, [state], [camera]) for state, camera in zip(states, cameras, strict=True)]
        return [state for (state,), _ in made], [chunk for _, (chunk,) in made]

    monkeypatch.setattr(WorldModel, "advance", advance)


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_environment_agrees_with_single_ones(
    make_vec, model: WorldModel, starts: np.ndarray, mode: AutoresetMode
) -> None:
    """Bit for bit, but for rounding: observations, rewards, ends and infos, over resets, which a limit brings."""
    arguments = {"observation": "dict", "action_mode": "discrete", "max_episode_steps": 3}
    ours, theirs = make_vec(autoreset_mode=mode, **arguments), singles(model, starts, mode, **arguments)
    assert ours.metadata["autoreset_mode"] is mode
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    assert_same(ours.reset(seed=5)[0], theirs.reset(seed=5)[0], "reset")
    for step in range(5):
        actions = rng.integers(0, 4, 3)
        mine, other = ours.step(actions), theirs.step(actions)
        for name, *pair in zip(("observation", "reward", "terminated", "truncated"), mine, other, strict=False):
            assert_same(*pair, f"{name} at {step}")
        assert_same(mine[4], other[4], f"info at {step}")
        done = mine[2] | mine[3]
        if mode is AutoresetMode.DISABLED and done.any():
            mine, other = (envs.reset(seed=9, options={"reset_mask": done.copy()}) for envs in (ours, theirs))
            assert_same(mine[0], other[0], f"reset at {step}")
            assert_same(mine[1], other[1], f"info of the reset at {step}")


def test_batch_differs_from_single_by_one_grey_level(make_vec, model: WorldModel, starts: np.ndarray) -> None:
    ours, theirs = make_vec(), singles(model, starts, AutoresetMode.NEXT_STEP)
    ours.reset(seed=5), theirs.reset(seed=5)
    actions = np.full((3, 2), 0.7, np.float32)
    mine, other = ours.step(actions)[0], theirs.step(actions)[0]
    assert np.abs(mine.astype(int) - other.astype(int)).max() <= 1


def test_networks_run_on_one_batch(make_vec, model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    advance = WorldModel.advance

    def counted(self: WorldModel, states: Any, cameras: Any) -> tuple[list[WorldState], list[Chunk]]:
        batches.append(len(states))
        return advance(self, states, cameras)

    monkeypatch.setattr(WorldModel, "advance", counted)
    envs = make_vec(4, max_episode_steps=2)
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(np.zeros((4, 2), np.float32))
    assert batches == [4, 4]  # in the third step all of them start anew


def test_vector_environment_repeats_bit_for_bit(make_vec) -> None:
    runs = []
    for _ in range(2):
        envs = make_vec()
        observation, _ = envs.reset(seed=[3, 4, 3])
        frames = [observation]
        for step in range(4):
            frames.append(envs.step(np.full((3, 2), 0.2 * step, np.float32))[0])
        runs.append(np.stack(frames))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0][:, 0], runs[0][:, 2])  # equal seeds and actions within a batch
    assert (runs[0][1:, 0] != runs[0][1:, 1]).any()


def test_rejected_actions_move_no_world(make_vec) -> None:
    envs = make_vec()
    with pytest.raises(ResetNeeded):
        envs.step(np.zeros((3, 2), np.float32))
    envs.reset(seed=0)
    before = envs.call("snapshot")
    actions = np.zeros((3, 2), np.float32)
    actions[2] = np.nan
    with pytest.raises(InvalidAction, match="action: expected finite values"):
        envs.step(actions)
    for wrong in (np.zeros((2, 2), np.float32), np.zeros((4, 2), np.float32), np.float32(0.0)):
        with pytest.raises(ValueError, match="actions: expected 3, one for each world"):
            envs.step(wrong)
    assert [then.world for then in envs.call("snapshot")] == [now.world for now in before]


def test_disabled_autoreset_requires_reset(make_vec) -> None:
    envs = make_vec(autoreset_mode="Disabled", terminate_on=[lambda info: info["c2w"][2, 3] > 0.1])
    first, _ = envs.reset(seed=0)
    actions = np.array([[0, 0], [1, 0], [0, 0]], np.float32)
    _, _, terminated, _, _ = envs.step(actions)
    assert terminated.tolist() == [False, True, False]
    before = envs.call("snapshot")
    with pytest.raises(
        ResetNeeded, match=r"expected reset\(options=\{'reset_mask': ...\}\) first, worlds \[1\] are done"
    ):
        envs.step(actions)
    assert [then.world for then in envs.call("snapshot")] == [now.world for now in before]
    again, _ = envs.reset(seed=0, options={"reset_mask": terminated})
    np.testing.assert_array_equal(again[1], first[1])
    after = envs.call("snapshot")
    assert [after[i].world is before[i].world for i in range(3)] == [True, False, True]
    assert not envs.step(np.zeros((3, 2), np.float32))[2].any()


def test_failing_task_keeps_environments_usable(make_vec) -> None:
    class Moody:
        def begin(self, start: Any) -> TaskResult:
            return TaskResult(0)

        def step(self, state: int, observation: Observation) -> TaskResult:
            return TaskResult(state + 1, float("nan") if state == 1 else 0.0)

    envs = make_vec(task=Moody())
    envs.reset(seed=0)
    envs.step(np.zeros((3, 2), np.float32))
    for _ in range(2):
        with pytest.raises(ValueError, match="task: expected a finite float as reward"):
            envs.step(np.zeros((3, 2), np.float32))


@pytest.mark.usefixtures("one_by_one")
def test_fork_of_one_environment_is_independent(make_vec) -> None:
    envs = make_vec()
    envs.reset(seed=1)
    (fork,) = envs.envs[0].unwrapped.fork(1)
    actions = np.full((3, 2), 0.5, np.float32)
    np.testing.assert_array_equal(envs.step(actions)[0][0], fork.step(actions[0])[0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_envs": 0}, "num_envs: expected a positive integer, got 0"),
        ({"num_envs": 2, "max_episode_steps": 0}, "max_episode_steps: expected a positive integer, got 0"),
        ({"num_envs": 2, "render_mode": "human"}, "render_mode: expected None or 'rgb_array'"),
        ({"num_envs": 2, "world": 3}, "world: expected the name of a configuration or a WorldModel, got int"),
        ({"num_envs": 2, "action_mode": "fly"}, "action_mode: expected"),
    ],
)
def test_invalid_arguments_are_rejected(model: WorldModel, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MirageWorldVectorEnv(**{"world": model, **arguments})


def test_frames_can_be_rendered(make_vec) -> None:
    envs = make_vec(render_mode="rgb_array")
    frames, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(np.stack(envs.render()), frames)
    assert frames.shape == (3, *SIZE, 3)
