import numpy as np
import pytest
import torch

from mirage_sim.envs.tasks import Explore, NoTask, RewardFunction, make_task
from mirage_sim.geometry import Camera
from mirage_sim.world import Observation

RNG = np.random.default_rng(0)


def shown(depth: float, remembered: np.ndarray) -> Observation:
    size = remembered.shape
    camera = Camera.from_fov(torch.eye(4), 90.0, size)
    picture = np.zeros((*size, 3), np.uint8)
    return Observation(picture, np.full(size, depth, np.float32), remembered, camera, {})


def test_a_new_wall_that_fills_the_view_counts_with_its_area():
    # 90 degrees: at 3 m the view is 6 m high, and 8 m wide at this aspect
    outcome = Explore().step(0.0, shown(3.0, np.zeros((48, 64), bool)))
    assert outcome.reward == pytest.approx(48.0)
    assert outcome.info["explored_m2"] == pytest.approx(48.0)
    assert not outcome.terminated


def test_only_what_is_new_counts():
    remembered = np.zeros((48, 64), bool)
    remembered[:24] = True
    outcome = Explore().step(100.0, shown(3.0, remembered))
    assert outcome.reward == pytest.approx(24.0)
    assert outcome.info["explored_m2"] == pytest.approx(124.0)
    assert Explore().step(0.0, shown(3.0, np.ones((48, 64), bool))).reward == 0.0


@pytest.mark.parametrize("depth", [50.0, 100.0, 0.0])
def test_sky_and_unknown_depth_have_no_area(depth):
    assert Explore().step(0.0, shown(depth, np.zeros((48, 64), bool))).reward == 0.0


def test_a_function_of_two_observations_is_a_task():
    task = make_task(lambda before, after: after.depth.mean() - before.depth.mean())
    assert isinstance(task, RewardFunction)
    everywhere = np.ones((4, 4), bool)
    state = task.begin(shown(2.0, everywhere), RNG)
    outcome = task.step(state, shown(5.0, everywhere))
    assert outcome.reward == pytest.approx(3.0)
    assert task.step(outcome.state, shown(4.0, everywhere)).reward == pytest.approx(-1.0)


def test_names_and_tasks_are_accepted_and_other_things_refused():
    assert isinstance(make_task("none"), NoTask)
    mine = Explore()
    assert make_task(mine) is mine
    with pytest.raises(ValueError, match=r"task: expected one of \['explore', 'none'\].*got 'fly'"):
        make_task("fly")
    with pytest.raises(ValueError, match="task: expected"):
        make_task(3)
