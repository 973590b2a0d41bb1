"""The environment of the reference simulators; skipped if MiniWorld or EGL is missing."""

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from support.toy_world import untrained_model

from mirage_sim.data.simulators import ReferenceSimulator, make_simulator
from mirage_sim.envs.reference_env import MirageReferenceEnv, kinds_of, paired_reset
from mirage_sim.envs.tasks import Goal
from mirage_sim.envs.termination import Time
from mirage_sim.geometry import invert

SHARED = {"task": "goal", "observation": "dict", "terminate_on": ("success", Time(0.8))}
OFFLINE = {"miniworld": ("FourRooms",), "homes": ("procedural",)}  # need no furniture


both = pytest.mark.parametrize("simulator", OFFLINE, indirect=True)


@pytest.fixture
def simulator(request: pytest.FixtureRequest) -> str:
    """Name of a simulator, MiniWorld unless a parameter says so; the test is skipped if it is not installed."""
    name = getattr(request, "param", "miniworld")
    try:
        make_simulator(name, OFFLINE[name][0]).close()
    except ImportError as error:
        pytest.skip(str(error))
    return str(name)


@pytest.fixture
def make_true(simulator: str):
    made = []

    def make_true(**arguments: Any) -> gymnasium.Env:
        arguments = {"simulator": simulator, "environments": OFFLINE[simulator]} | arguments
        made.append(gymnasium.make("MirageReference-v0", **arguments))
        return made[-1]

    yield make_true
    for env in made:
        env.close()


def act(env: gymnasium.Env, actions: Any) -> list[Any]:
    return [env.step(np.asarray(action, np.float32)) for action in actions]


def test_environment_passes_the_checker(make_true) -> None:
    check_env(make_true(**SHARED).unwrapped, skip_render_check=True)


@both
def test_one_policy_drives_both_environments(make_true) -> None:
    """One policy, one wrapper, one task; the interfaces have no difference that these could meet."""

    def policy(observation: dict[str, np.ndarray]) -> np.ndarray:
        forward, left = observation["goal"][:2]
        return np.clip([forward, np.arctan2(left, forward)], -1, 1).astype(np.float32)

    learned = gymnasium.make("MirageWorld-v0", world=untrained_model(), **SHARED)
    true = make_true(**SHARED)
    assert true.observation_space == learned.observation_space and true.action_space == learned.action_space
    runs = []
    for env in (learned, true):
        env = gymnasium.wrappers.TimeLimit(env, 6)
        (observation, info), steps = env.reset(seed=3, options=None), []
        while not steps or not (steps[-1][2] or steps[-1][3]):
            steps.append(env.step(policy(observation)))
            observation = steps[-1][0]
            assert env.observation_space.contains(observation)
        runs.append((set(info), {type(value) for value in info.values()}, set(steps[-1][4])))
    assert runs[1] == runs[0]
    assert steps[-1][4]["remembered"] == 1.0 and steps[-1][4]["remembered_mask"].all()
    assert steps[-1][4]["time"] == pytest.approx(0.1 * len(steps))


@both
@pytest.mark.parametrize("kind", ["pose", "image"])
def test_cameras_of_a_pair_stay_equal(make_true, kind: str) -> None:
    task = Goal(kind)
    learned = gymnasium.make("MirageWorld-v0", world=untrained_model(), task=task, collisions="ignore")
    true = make_true(task=task, collisions="ignore")
    (generated, begun), (rendered, info) = paired_reset(learned, true, seed=5)
    np.testing.assert_array_equal(generated, rendered)  # the same image with the same goal drawn in
    np.testing.assert_allclose(begun["goal"], info["goal"], atol=1e-6)
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2))
    for ours, theirs in zip(act(learned, actions), act(true, actions), strict=True):
        np.testing.assert_array_equal(ours[4]["c2w"], theirs[4]["c2w"])
        assert ours[1] == pytest.approx(theirs[1], abs=1e-5)  # reward
        assert ours[4]["distance_to_goal"] == pytest.approx(theirs[4]["distance_to_goal"], abs=1e-5)


@both
def test_blocked_steps_are_those_of_the_simulator(make_true, simulator: str) -> None:
    env = make_true(task="none", collisions="block", scan=360)
    _, info = env.reset(options={"scene": 800_003})
    reference: ReferenceSimulator = make_simulator(simulator, OFFLINE[simulator][0])
    reference.reset(800_003)
    first = reference.camera().c2w
    command, hits = np.array([1.0, 0.1], np.float32), 0
    for _ in range(60):
        frame, *_, info = env.step(command)
        assert info["collision"] == reference.step(command)
        torch.testing.assert_close(
            torch.from_numpy(info["c2w"]), invert(first) @ reference.camera().c2w, atol=2e-4, rtol=0
        )
        hits += info["collision"]
        radius = reference.radius
        assert info["clearance"] == pytest.approx(info["scan"].min() - radius, abs=0.06)
        assert (info["clearance"] < 0.16) >= info["collision"]
    reference.close()
    assert hits > 3


def test_scan_agrees_with_true_depth_in_a_hall(make_true) -> None:
    env = make_true(environments=("OneRoom",), task="none", scan=4, observation="dict")
    for scene in range(800_000, 800_006):
        observation, info = env.reset(options={"scene": scene})
        ahead = observation["depth"][44:52, 63:65]  # a wall; a box is lower than the camera
        assert info["scan"][2] <= ahead.max() + 0.05
        if info["scan"][2] > 3.0:
            assert info["scan"][2] == pytest.approx(float(np.median(ahead)), abs=0.15)


def test_explore_counts_a_surface_once(make_true) -> None:
    env = make_true(task="explore", collisions="ignore")
    env.reset(options={"scene": 800_001})
    there = [step[1] for step in act(env, [[0, 1]] * 15)]
    back = [step[1] for step in act(env, [[0, -1]] * 15)]
    assert sum(there) > 0.5 and sum(back) < 0.15 * sum(there)


@both
def test_snapshots_and_forks_repeat_the_frames(make_true) -> None:
    env = make_true(**SHARED).unwrapped
    env.reset(seed=1)
    act(env, [[1, 0.5]])
    moment, forks = env.snapshot(), env.fork(2)
    actions = [[0.5, 1.0], [0.5, -0.3]]
    expected = act(env, actions)[-1]
    env.reset(seed=2)  # another scene, in the simulator that all share
    for again in (*forks, env):
        again.restore(moment)
        shown = act(again, actions)[-1]
        np.testing.assert_array_equal(shown[0]["rgb"], expected[0]["rgb"])
        assert shown[1] == expected[1]
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(act(copy, [[0, 0]])[0][0]["rgb"], act(env, [[0, 0]])[0][0]["rgb"])
    copy.close()


def test_vector_environment_equals_single_ones(simulator: str, make_true) -> None:
    arguments = {"environments": OFFLINE[simulator], **SHARED}
    envs = gymnasium.make_vec("MirageReference-v0", num_envs=2, simulator=simulator, **arguments)
    batch, _ = envs.reset(seed=4)
    singles = [make_true(**SHARED) for _ in range(2)]
    for i, env in enumerate(singles):
        np.testing.assert_array_equal(batch["rgb"][i], env.reset(seed=4 + i)[0]["rgb"])
    actions = np.full((2, 2), 0.5, np.float32)
    batch, rewards, *_ = envs.step(actions)
    for i, env in enumerate(singles):
        observation, reward, *_ = env.step(actions[i])
        np.testing.assert_array_equal(batch["rgb"][i], observation["rgb"])
        assert rewards[i] == pytest.approx(reward)
    envs.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"simulator": "other"}, r"simulator: expected one of \['homes', 'miniworld'\], got 'other'"),
        ({"environments": ("Sign",)}, "environments: expected one or more that are not"),
        ({"environments": ()}, "environments: expected one or more that are not"),
        ({"action_mode": "se3"}, "action_mode: expected 'twist' or 'discrete'"),
        ({"collisions": "slide"}, "collisions: expected 'report', 'block' or 'ignore'"),
    ],
)
def test_bad_arguments_name_what_was_expected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MirageReferenceEnv(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scene": 900_000}, r"scene: expected a seed in \[0, 900000\), got 900000"),
        ({"environment": "Sign"}, "environment: expected one of"),
        ({"image": None}, r"options: expected keys of \['environment', 'goal'"),
    ],
)
def test_bad_options_leave_the_episode_unchanged(make_true, options: dict[str, Any], message: str) -> None:
    env = make_true(**SHARED)
    env.reset(seed=0)
    before = env.unwrapped.world.camera
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)
    assert env.unwrapped.world.camera is before


def test_default_scenes_are_not_reserved() -> None:
    assert kinds_of("homes") == ("seen",) and "Sign" not in kinds_of("miniworld")
