import math
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence

from mirage_sim.envs.tasks import Goal
from mirage_sim.envs.tasks.goal_overlay import COLOUR
from mirage_sim.envs.termination import Time

FORWARD, LEFT = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
MODES = ("twist", "discrete", "se3")
SIZE = (48, 64)


def test_start_without_free_path_is_rejected(make):
    env = make(task=Goal(distance=(30.0, 40.0)))
    with pytest.raises(ValueError, match="goal: expected a start view with 30 m of free way"):
        env.reset(seed=0)
    env.reset(seed=0, options={"goal": [0.0, 1.0]})


def test_seed_determines_goals(make):
    def goals(env, count=3):
        return [env.reset(**({"seed": 7} if i == 0 else {}))[1]["goal"] for i in range(count)]

    one, other = make(task="goal"), make(task=Goal(reward="sparse"), action_mode="se3")
    first = goals(one)
    other.unwrapped.np_random.random(5)
    assert np.array_equal(first, goals(other))
    assert not np.array_equal(first[0], first[1])
    # an own goal does not change what later resets draw
    one.reset(seed=7, options={"goal": [0.5, 2.0]})
    assert np.array_equal(one.reset()[1]["goal"], first[1])


# reward, success, what is observed


def test_dense_reward_is_progress_plus_one_at_goal(make):
    env = make(task="goal")
    _, info = env.reset(seed=0, options={"goal": [0.0, 0.75]})
    assert info["distance_to_goal"] == pytest.approx(0.75)
    assert not info["is_success"]
    np.testing.assert_allclose(info["goal"][:3, 3], [0, 0, 0.75], atol=1e-6)
    _, reward, terminated, _, info = env.step(FORWARD)
    assert reward == pytest.approx(0.15, abs=1e-6)
    assert not terminated
    _, reward, *_ = env.step(-FORWARD)
    assert reward == pytest.approx(-0.15, abs=1e-6)
    env.step(FORWARD)
    _, reward, terminated, _, info = env.step(FORWARD)
    assert reward == pytest.approx(1.15, abs=1e-6)
    assert terminated
    assert info["is_success"] is True
    assert info["distance_to_goal"] == pytest.approx(0.45, abs=1e-6)


def test_sparse_reward_is_one_at_the_goal(make):
    env = make(task=Goal(reward="sparse", radius=0.3))
    env.reset(seed=0, options={"goal": [0.0, 0.5]})
    assert [env.step(FORWARD)[1:3] for _ in range(2)] == [(0.0, False), (1.0, True)]


def test_angle_requires_matching_heading(make):
    goal = np.eye(4)
    goal[:3, :3] = [[math.cos(-0.4), 0, math.sin(-0.4)], [0, 1, 0], [-math.sin(-0.4), 0, math.cos(-0.4)]]  # to the left
    env = make(task=Goal(angle=0.2), observation="dict")
    observation, info = env.reset(seed=0, options={"goal": goal})
    np.testing.assert_allclose(observation["goal"], [0, 0, 0, 0.4], atol=1e-6)
    assert info["distance_to_goal"] == 0.0
    assert not info["is_success"]
    _, _, terminated, *_ = env.step(LEFT)  # 6 degrees
    assert not terminated
    observation, _, terminated, *_ = env.step(LEFT)
    assert terminated
    assert observation["goal"][3] == pytest.approx(0.4 - math.radians(12), abs=1e-6)


def test_goal_is_observed_in_camera_coordinates(make):
    env = make(task="goal", observation="dict", action_mode="se3")
    observation, _ = env.reset(seed=0, options={"goal": [-1.0, 3.0]})
    np.testing.assert_allclose(observation["goal"], [3, 1, 0, math.atan2(1, 3)], atol=1e-6)
    observation, *_, info = env.step(np.array([0.5, 1, 1, 0, -0.7, 0]))
    relative = np.linalg.inv(info["c2w"]) @ info["goal"]
    right, down, forward = relative[:3, 3]
    np.testing.assert_allclose(observation["goal"][:3], [forward, -right, -down], atol=1e-5)
    assert observation in env.observation_space


def magenta(frame):
    rows, columns = np.nonzero((frame == COLOUR).all(-1))
    return rows + 0.5, columns + 0.5


def test_frames_show_where_the_goal_is(make):
    env = make(task="goal", render_mode="rgb_array")
    observation, _ = env.reset(seed=0, options={"goal": [0.8, 3.0]})
    K = env.unwrapped.world.camera.K
    rows, columns = magenta(observation)
    assert columns.mean() == pytest.approx(K[0, 2].item() + K[0, 0].item() * 0.8 / 3.0, abs=0.6)
    assert rows.mean() == pytest.approx(24, abs=0.6)
    assert np.sqrt(len(rows) / np.pi) == pytest.approx(K[0, 0].item() * 0.25 / 3.0, rel=0.15)
    assert np.array_equal(env.render(), observation)
    observation, *_ = env.step(FORWARD)
    assert len(magenta(observation)[0]) > len(rows)  # nearer is larger


@pytest.mark.parametrize(
    ("goal", "left"), [([-3.0, 0.5], True), ([3.0, 0.5], False), ([-1, -2], True), ([1, -2], False)]
)
def test_goals_out_of_view_are_shown_at_the_edge(make, goal, left):
    env = make(task="goal")
    observation, _ = env.reset(seed=0, options={"goal": goal})
    _, columns = magenta(observation)
    assert len(columns) > 0
    assert columns.max() < 16 if left else columns.min() > 48


def steer(bearing: float) -> np.ndarray:
    """Turn to what is ``bearing`` radians to the left, and go once that is ahead."""
    return np.array([float(abs(bearing) < 0.3), np.clip(bearing / math.radians(6), -1, 1)], np.float32)


def by_numbers(observation):
    forward, left, _, _ = observation["goal"]
    return steer(math.atan2(left, forward))


def by_sight(observation):
    _, columns = magenta(observation)
    return steer((SIZE[1] / 2 - columns.mean()) / 41.6)  # the focal length


@pytest.mark.parametrize(("observation", "policy"), [("dict", by_numbers), ("rgb", by_sight)])
def test_following_the_observed_goal_reaches_it(make, observation, policy):
    env = make(task="goal", observation=observation, terminate_on=("success", Time(6.0)))
    for seed, options in enumerate([None, None, {"goal": [-1.0, -1.0]}, {"goal": [0.8, 0.1]}]):
        seen, _ = env.reset(seed=seed, options=options)
        over = False
        while not over:
            seen, _, terminated, truncated, info = env.step(policy(seen))
            over = terminated or truncated
        assert info["is_success"] and terminated and not truncated


def test_dict_observations_do_not_draw_the_goal(make):
    one, other = make(task="goal", observation="dict"), make(task="none", observation="dict")
    (goal, _), (none, _) = one.reset(seed=0), other.reset(seed=0)
    assert set(goal) == set(none) | {"goal"}
    assert np.array_equal(goal["rgb"], none["rgb"])


# image goals


SHORT = Goal(kind="image", distance=(0.6, 0.7))  # the walk there is quick


def test_goal_image_is_generated_at_the_goal(make):
    env = make(task=SHORT, observation="dict", action_mode="se3")
    observation, info = env.reset(seed=3, options={"goal": [0.0, 0.6]})  # four steps of 0.15 m ahead
    image = observation["goal"]
    assert observation in env.observation_space
    assert info["distance_to_goal"] == pytest.approx(0.6)
    for _ in range(4):
        observation, *_ = env.step(np.array([0, 0, 1.0, 0, 0, 0]))
        assert np.array_equal(observation["goal"], image)
    assert np.abs(observation["rgb"].astype(int) - image).max() <= 1


def test_generating_the_goal_image_keeps_the_world(make):
    one, other = make(task=SHORT, observation="dict"), make(task="none", observation="dict")
    (with_goal, _), (without, _) = one.reset(seed=3), other.reset(seed=3)
    for _ in range(3):
        assert all(np.array_equal(with_goal[key], without[key]) for key in without)
        (with_goal, *_), (without, *_) = one.step(FORWARD), other.step(FORWARD)


def test_goal_image_option_is_shown(make, starts):
    options = {"goal": [0.0, 0.8], "goal_image": starts[2]}
    env = make(task=SHORT, observation="dict", render_mode="rgb_array")
    observation, _ = env.reset(seed=0, options=options | {"start": 0})
    assert np.array_equal(observation["goal"], starts[2])
    observation["goal"][:] = 0
    frame = env.render()
    assert np.array_equal(frame[17:], starts[0][17:])
    inset = starts[2][:48, :63].reshape(16, 3, 21, 3, 3).mean((1, 3)).round()
    assert np.array_equal(frame[:16, :21], inset)
    assert (frame[16, :22] == 255).all()
    rgb = make(task=SHORT)
    assert np.array_equal(rgb.reset(seed=0, options=options | {"start": 0})[0], frame)


# values, checks, bad input

TASKS = {"pose": Goal(), "pose, angle": Goal(angle=0.3, reward="sparse"), "image": SHORT}


CHECKED = [("pose", mode, observation) for mode in MODES for observation in ("rgb", "dict")]
CHECKED += [("image", mode, "dict") for mode in MODES] + [("image", "twist", "rgb")]


@pytest.mark.parametrize(("task", "mode", "observation"), CHECKED)
def test_check_env_passes_without_warnings(make, task, mode, observation, display):
    env = make(task=TASKS[task], action_mode=mode, observation=observation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@pytest.mark.parametrize("task", TASKS)
def test_snapshots_and_forks_replay_bit_for_bit(make, task):
    env = make(task=TASKS[task], observation="dict")
    env.reset(seed=1)
    moment = env.step(FORWARD)
    now = env.unwrapped.snapshot()
    (fork,) = env.unwrapped.fork(1)
    actions = [FORWARD, LEFT, -FORWARD]
    first = [env.step(action) for action in actions]
    env.reset(seed=9)
    assert data_equivalence(env.unwrapped.restore(now), (moment[0], moment[-1]), exact=True)
    for again in (env, fork):
        for a, b in zip(first, map(again.step, actions), strict=True):
            assert data_equivalence(a, b, exact=True)


def test_returned_arrays_are_copies(make):
    env, untouched = make(task="goal"), make(task="goal")
    info = [each.reset(seed=0)[1] for each in (env, untouched)][0]
    info["goal"][:] = 0
    assert data_equivalence(env.unwrapped.restore(env.unwrapped.snapshot()), untouched.reset(seed=0), exact=True)
    assert data_equivalence(env.step(FORWARD), untouched.step(FORWARD), exact=True)


def test_vector_environment(model, starts):
    env = gymnasium.make_vec(
        "MirageWorld-v0", num_envs=2, vectorization_mode="sync", world=model, starts=starts, task="goal"
    )
    _, info = env.reset(seed=0)
    assert info["distance_to_goal"].shape == (2,)
    *_, info = env.step(env.action_space.sample())
    assert info["is_success"].dtype == bool
    assert info["goal"].shape == (2, 4, 4)
    env.close()


SHEAR = np.eye(4)
SHEAR[0, 1] = 0.5
MIRROR = np.diag([-1.0, 1, 1, 1])
BAD_OPTIONS = [
    ("pose", {"goal": [0.0, float("nan")]}, r"goal: expected \[x, z\].*not finite"),
    ("pose", {"goal": [0.0, 101.0]}, r"goal: expected a position at most 100 m from the start, got 101 m"),
    ("pose", {"goal": [1e30, 0]}, "goal: expected a position at most 100 m"),
    ("pose", {"goal": SHEAR}, "goal: expected .* rigid .*orthonormal"),
    ("pose", {"goal": MIRROR}, "goal: expected .*right-handed"),
    ("pose", {"goal": np.full((4, 4), np.inf)}, "goal: expected .*not finite"),
    ("pose", {"goal": [1.0, 2.0, 3.0]}, r"goal: expected .*got float64 of shape \(3,\)"),
    ("pose", {"goal": [1.0, [2.0]]}, "goal: expected"),
    ("pose", {"goal": "there"}, "goal: expected .*got <U5"),
    ("pose", {"goal": [True, False]}, "goal: expected .*got bool"),
    ("pose", {"goal_image": np.zeros((48, 64, 3), np.uint8)}, r"options: expected keys of .*got \['goal_image'\]"),
    ("pose", {"gaol": [0.0, 1.0]}, r"options: expected keys of .*'goal'.*got \['gaol'\]"),
    ("image", {"goal_image": np.zeros((48, 64, 3), np.uint8)}, "goal_image: expected together with goal"),
    ("image", {"goal": [0, 1], "goal_image": np.zeros((24, 32, 3), np.uint8)}, r"goal_image: .*\[48, 64, 3\].*\[24, "),
    ("image", {"goal": [0, 1], "goal_image": np.zeros((48, 64, 3))}, "goal_image: expected a uint8 array.*float64"),
    ("image", {"goal": [0, 1], "goal_image": None}, "goal_image: expected a uint8 array .*got None"),
    ("image", {"goal_image": None}, "goal_image: expected together with goal"),
    ("image", {"goal": [0, 1], "goal_image": torch.zeros(48, 64, 3)}, "goal_image: .*got a tensor, torch.float32"),
    ("image", {"goal": [0, 1], "goal_image": "kitchen.png"}, "goal_image: expected a uint8 array .*got str"),
]


@pytest.mark.parametrize(("kind", "options", "message"), BAD_OPTIONS)
def test_invalid_options_change_nothing(make, kind, options, message):
    env, untouched = (make(task=TASKS[kind]) for _ in range(2))
    for each in (env, untouched):
        each.reset(seed=2)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=77, options=options)
    assert data_equivalence(env.step(FORWARD), untouched.step(FORWARD), exact=True)
    assert data_equivalence(env.reset(), untouched.reset(), exact=True)


def test_goal_option_requires_a_goal_task(make):
    with pytest.raises(
        ValueError, match=r"options: expected keys of \['depth', 'fov_deg', 'image', .*'start'.*\], got \['goal'\]"
    ):
        make(task="explore").reset(seed=0, options={"goal": [0.0, 1.0]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "smell"}, "kind: expected 'pose' or 'image', got 'smell'"),
        ({"reward": "rich"}, "reward: expected 'dense' or 'sparse'"),
        ({"radius": 0}, "radius: expected metres in"),
        ({"radius": float("nan")}, "radius: expected"),
        ({"radius": "near"}, "radius: expected"),
        ({"angle": 0.0}, "angle: expected None or radians in"),
        ({"angle": 4.0}, "angle: expected"),
        ({"distance": (3.0, 2.0)}, "distance: expected nearest and farthest"),
        ({"distance": (0.4, 2.0)}, r"distance: .*radius 0.5 < nearest"),
        ({"distance": (1.0, 1e9)}, "distance: expected"),
        ({"distance": 2.0}, "distance: expected"),
        ({"distance": (1.0, float("nan"))}, "distance: expected"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        Goal(**arguments)
