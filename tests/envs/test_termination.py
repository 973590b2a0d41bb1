import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mirage_sim.envs.tasks import Goal
from mirage_sim.envs.termination import ENDS, Flag, Time, check_termination, make_conditions

FORWARD, STAND = np.array([1.0, 0.0], np.float32), np.zeros(2, np.float32)


def test_any_condition_terminates_and_time_truncates():
    terminate_on = make_conditions(["success", "collision", Time(2.0), lambda info: info["x"] > 3])
    calm = {"is_success": False, "collision": False, "time": 1.9, "x": 0}
    assert check_termination(terminate_on, calm) == (False, False)
    assert check_termination(terminate_on, calm | {"is_success": True}) == (True, False)
    assert check_termination(terminate_on, calm | {"collision": np.True_}) == (True, False)
    assert check_termination(terminate_on, calm | {"x": 4}) == (True, False)
    assert check_termination(terminate_on, calm | {"time": 2.0}) == (False, True)
    assert check_termination(terminate_on, calm | {"time": 2.0, "collision": True}) == (True, True)
    assert check_termination((), calm | {"is_success": True, "time": 1e9}) == (False, False)


def test_missing_info_does_not_terminate():
    assert check_termination(make_conditions(["success", "collision"]), {}) == (False, False)
    assert ENDS["collision"] == Flag("collision")


@pytest.mark.parametrize(
    ("terminate_on", "message"),
    [
        ("success", "terminate_on: expected a sequence, such as .*got 'success'"),
        (5, "terminate_on: expected a sequence"),
        (
            ["win"],
            r"terminate_on: expected \['collision', 'success'\], Time\(seconds\) or functions of info, got 'win'",
        ),
        ([20], "terminate_on: expected .* got 20"),
    ],
)
def test_unknown_conditions_are_rejected(make, terminate_on, message):
    with pytest.raises(ValueError, match=message):
        make(terminate_on=terminate_on)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), "20", True, None])
def test_time_is_a_positive_number(seconds):
    with pytest.raises(ValueError, match="seconds: expected a positive number, got"):
        Time(seconds)


def test_success_terminates_unless_excluded(make):
    near = {"goal": [0.0, 0.6]}  # one step of 0.15 m from success
    for terminate_on, expected in ((("success",), True), ((), False)):
        env = make(task=Goal(), terminate_on=terminate_on)
        env.reset(seed=0, options=near)
        *_, terminated, truncated, info = env.step(FORWARD)
        assert info["is_success"]
        assert (terminated, truncated) == (expected, False)


def test_time_is_part_of_snapshots_and_forks(make):
    env = make(task="none", terminate_on=(Time(0.3),))
    env.reset(seed=0)
    env.step(STAND)
    now = env.unwrapped.snapshot()
    fork = env.unwrapped.fork(1)[0]
    for each in (env, fork):
        assert [each.step(STAND)[2:4] for _ in range(2)] == [(False, False), (False, True)]
    env.unwrapped.restore(now)
    *_, truncated, info = env.step(STAND)
    assert not truncated
    assert info["time"] == pytest.approx(0.2)
    env.reset()
    assert [env.step(STAND)[3] for _ in range(3)] == [False, False, True]


def test_custom_condition_terminates(make):
    env = make(task="none", terminate_on=(lambda info: info["c2w"][2, 3] > 0.2,))
    env.reset(seed=0)
    assert [env.step(FORWARD)[2] for _ in range(2)] == [False, True]


def test_condition_without_bool_is_rejected_before_changes(make):
    env = make(task="none", terminate_on=(lambda info: info["time"],))
    env.reset(seed=0)
    before = env.unwrapped.snapshot()
    with pytest.raises(ValueError, match="terminate_on: expected .* to return a bool, got 0.1"):
        env.step(FORWARD)
    assert env.unwrapped.snapshot().world is before.world


def test_check_env_passes_with_conditions(make, display):
    check_env(make(task="goal", terminate_on=("success", "collision", Time(0.2))).unwrapped)
