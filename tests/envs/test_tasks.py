import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

from mirage_sim.envs.tasks import EpisodeStart, Explore, Goal, NoTask, RewardFunction, Task, TaskResult, make_task
from mirage_sim.geometry import Camera
from mirage_sim.world import Observation

FORWARD = np.array([1.0, 0.0], np.float32)


def shown(depth: float, remembered: np.ndarray) -> Observation:
    size = remembered.shape
    camera = Camera.from_fov(torch.eye(4), 90.0, size)
    image = np.zeros((1, *size, 3), np.uint8)
    return Observation(image, np.full(size, depth, np.float32), remembered, camera, {})


class Says:
    """A task that returns valid results for two steps and then the one it was made with."""

    def __init__(self, at_last, at_first=None):
        self.at_first = at_first or TaskResult(0)
        self.at_last = at_last

    def begin(self, start: EpisodeStart) -> TaskResult:
        return self.at_first

    def step(self, state: int, observation: Observation) -> TaskResult:
        return TaskResult(state + 1, 1.0) if state < 2 else self.at_last


def test_explore_rewards_area_of_a_new_wall():
    # 90 degrees: at 3 m the view is 6 m high, and 8 m wide at this aspect
    outcome = Explore().step(0.0, shown(3.0, np.zeros((48, 64), bool)))
    assert outcome.reward == pytest.approx(48.0)
    assert outcome.info["explored_m2"] == pytest.approx(48.0)
    assert not outcome.terminated


def test_explore_rewards_new_pixels_only():
    remembered = np.zeros((48, 64), bool)
    remembered[:24] = True
    outcome = Explore().step(100.0, shown(3.0, remembered))
    assert outcome.reward == pytest.approx(24.0)
    assert outcome.info["explored_m2"] == pytest.approx(124.0)
    assert Explore().step(0.0, shown(3.0, np.ones((48, 64), bool))).reward == 0.0


@pytest.mark.parametrize("depth", [50.0, 100.0, 0.0])
def test_sky_and_unknown_depth_have_no_area(depth):
    assert Explore().step(0.0, shown(depth, np.zeros((48, 64), bool))).reward == 0.0


def test_function_of_two_observations_is_a_task(make):
    env = make(task=lambda before, after: after.depth.mean() - before.depth.mean(), observation="dict")
    before, _ = env.reset(seed=0)
    for _ in range(2):
        after, reward, terminated, *_ = env.step(FORWARD)
        assert reward == pytest.approx(after["depth"].mean() - before["depth"].mean(), abs=1e-6)
        assert not terminated
        before = after


def test_names_tasks_and_classes_are_accepted():
    assert isinstance(make_task("none"), NoTask)
    assert make_task("goal") == Goal()
    assert isinstance(make_task(Explore), Explore)
    mine = Says(TaskResult(0))
    assert make_task(mine) is mine
    assert isinstance(make_task(max), RewardFunction)
    assert all(isinstance(make_task(name), Task) for name in ("explore", "goal", "none"))


@pytest.mark.parametrize("task", ["fly", 3, None, dict, [Explore()]])
def test_other_values_are_rejected_as_tasks(task):
    with pytest.raises(ValueError, match=r"task: expected one of \['explore', 'goal', 'none'\], a Task, .*got"):
        make_task(task)


def test_custom_task_sets_reward_termination_and_info(make):
    env = make(task=Says(TaskResult(3, np.float32(0.5), np.True_, {"mine": 7})))
    env.reset(seed=0)
    for _ in range(2):
        assert env.step(FORWARD)[1:3] == (1.0, False)
    *_, reward, terminated, truncated, info = env.step(FORWARD)
    assert (reward, terminated, truncated, info["mine"]) == (0.5, True, False, 7)
    assert type(reward) is float
    assert type(terminated) is bool


WRONG = [
    (TaskResult(0, float("nan")), "expected a finite float as reward, got nan"),
    (TaskResult(0, np.float32("inf")), "expected a finite float as reward, got .*inf"),
    (TaskResult(0, "1"), r"expected a finite float as reward, got '1' \(str\)"),
    (TaskResult(0, None), r"expected a finite float as reward, got None \(NoneType\)"),
    (TaskResult(0, True), r"expected a finite float as reward, got True \(bool\)"),
    (TaskResult(0, np.ones(1)), r"expected a finite float as reward, got array.*ndarray"),
    (TaskResult(0, torch.tensor(1.0)), r"expected a finite float as reward, got tensor.*Tensor"),
    (TaskResult(0, 1.0, 1), "expected a bool as terminated, got 1"),
    (TaskResult(0, 1.0, False, [1]), r"expected a dict as info, got \[1\]"),
    (TaskResult(0, 1.0, False, {"c2w": 0, "x": 1}), r"expected info without the environment's own keys, got \['c2w'\]"),
    ((0, 1.0), "expected a TaskResult, got "),
    (None, "expected a TaskResult, got None"),
]


@pytest.mark.parametrize(("answer", "message"), WRONG)
def test_invalid_results_are_rejected_before_changes(make, answer, message):
    env, untouched = make(task=Says(answer)), make(task=Says(TaskResult(3, 7.0)))
    for each in (env, untouched):
        each.reset(seed=1)
        each.step(FORWARD)
        each.step(FORWARD)
    before = env.unwrapped.snapshot()
    with pytest.raises(ValueError, match=f"task: {message}"):
        env.step(FORWARD)
    assert env.unwrapped.snapshot().world is before.world
    env.unwrapped._task.at_last = TaskResult(3, 7.0)
    assert data_equivalence(env.step(FORWARD), untouched.step(FORWARD), exact=True)


def test_invalid_results_in_reset_keep_the_episode(make):
    task, good = Says(TaskResult(3)), TaskResult(0)
    env, untouched = make(task=task), make(task=Says(TaskResult(3)))
    with pytest.raises(ValueError, match="task: expected a finite float as reward, got nan"):
        make(task=Says(None, TaskResult(0, float("nan")))).reset(seed=0)
    for each in (env, untouched):
        each.reset(seed=1)
        each.step(FORWARD)
    task.at_first = TaskResult(0, float("nan"))
    with pytest.raises(ValueError, match="got nan"):
        env.reset(seed=5)
    assert data_equivalence(env.step(FORWARD), untouched.step(FORWARD), exact=True)
    task.at_first = good
    assert data_equivalence(env.reset(), untouched.reset(), exact=True)


def test_errors_of_the_task_change_nothing(make):
    def fails(before, after):
        if after.camera.c2w[2, 3] > 0.2:
            raise ZeroDivisionError
        return 0.0

    env = make(task=fails)
    env.reset(seed=1)
    env.step(FORWARD)
    before = env.unwrapped.snapshot()
    with pytest.raises(ZeroDivisionError):
        env.step(FORWARD)
    assert env.unwrapped.snapshot().world is before.world


def test_task_may_step_its_fork_of_the_world(make):
    class Walks(Says):
        def begin(self, start: EpisodeStart) -> TaskResult:
            camera = start.observation.camera
            c2w = camera.c2w.clone()
            c2w[2, 3] += 0.3
            start.world.step(Camera(c2w, camera.K, camera.size))
            start.rng.random()
            return TaskResult(0)

    one, other = make(task=Walks(TaskResult(3))), make(task=Says(TaskResult(3)))
    for seed in ({"seed": 4}, {}):
        assert data_equivalence(one.reset(**seed), other.reset(**seed), exact=True)
        assert data_equivalence(one.step(FORWARD), other.step(FORWARD), exact=True)
