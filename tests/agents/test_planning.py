from dataclasses import replace
from typing import Any

import cv2
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from support.plan_scenes import PILLAR, pillar_view, pillar_world

from mirage_sim.agents.costs import Clearance, Collision, Geometric, ImageGoal, PoseGoal, StepReward, Unseen, imagine
from mirage_sim.agents.plan_view import PlanView, plan_pose
from mirage_sim.agents.planning import CEM, MPPI, CostModel, Drive, Planner, Search, drive, plan
from mirage_sim.envs.tasks import Goal
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.world import Body, World, WorldModel

SEARCHES = [CEM(), MPPI()]


def goal_at(x: float, y: float) -> np.ndarray:
    goal = np.eye(4)
    goal[0, 3], goal[2, 3] = -y, x
    return goal


def to_goal(x: float, y: float) -> Geometric:
    return Geometric([PoseGoal(goal_at(x, y)), Collision(), Clearance(), Unseen()])


def quadratic(world: Any, candidates: np.ndarray) -> np.ndarray:
    return ((candidates - np.array([0.5, -0.25])) ** 2).sum((1, 2))


@pytest.mark.parametrize("search", SEARCHES, ids=["cem", "mppi"])
def test_search_finds_the_least_of_a_quadratic_cost(search: Search) -> None:
    found = plan(None, quadratic, search)
    assert found.actions.shape == (20, 2) and found.actions.dtype == np.float32
    assert np.abs(found.actions - [0.5, -0.25]).mean() < 0.1
    assert found.cost == pytest.approx(quadratic(None, found.actions[None])[0])


@pytest.mark.parametrize("search", SEARCHES, ids=["cem", "mppi"])
def test_model_predictive_control_goes_around_the_pillar(model: WorldModel, search: Search) -> None:
    view, planner = pillar_view(model), Planner(to_goal(3.2, 0.0), search)
    for _ in range(60):
        paths = view.follow(planner(view)[None, None])
        assert paths.clearance.min() >= 0
        x, y = paths.xy[0, 0]
        view = replace(view, pose=(x, y, paths.heading[0, 0]))
        if np.hypot(x - 3.2, y) < 0.5:
            break
    else:
        pytest.fail("the goal was not reached")
    assert len(planner.plans) < 40


def test_the_same_seed_gives_the_same_plan(model: WorldModel) -> None:
    world, threads = pillar_world(model), (torch.get_num_threads(), cv2.getNumThreads())
    plans = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            cv2.setNumThreads(count)
            refine = ImageGoal(world.snapshot().observation.frame, stride=10)
            plans.append(plan(world, to_goal(3, 1), CEM(horizon=10), refine=refine, few=2, seed=7))
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    assert np.array_equal(plans[0].actions, plans[1].actions) and plans[0].cost == plans[1].cost
    other = plan(world, to_goal(3, 1), CEM(horizon=10), seed=8)
    assert not np.array_equal(plans[0].actions, other.actions)


def test_planning_leaves_the_world_unchanged(model: WorldModel) -> None:
    world = pillar_world(model)
    before = world.snapshot()
    plan(world, to_goal(3, 1), refine=ImageGoal(before.observation.frame, stride=20), few=2)
    assert world.snapshot() is before


def test_refinement_chooses_among_the_best_candidates() -> None:
    def last(world: Any, candidates: np.ndarray) -> np.ndarray:
        assert len(candidates) == 3
        return np.array([0.0, 0.0, -100.0])

    found = plan(None, quadratic, refine=last, few=3)
    order = np.unique(found.costs)
    assert found.cost == pytest.approx(order[2] - 100)


def test_image_goal_prefers_the_candidate_that_ends_there(model: WorldModel) -> None:
    world = pillar_world(model)
    turns = np.zeros((3, 3, 2), np.float32)
    turns[:, :, 1] = np.array([-1.0, 0.4, 1.0])[:, None]
    image = imagine(world, turns, stride=3)[1][-1].frame
    costs = ImageGoal(image, stride=3)(world, turns)
    assert costs[1] < 1e-3 and costs.argmin() == 1 and costs[0] > 10 * costs[1]
    brightness = ImageGoal(image, stride=3, features=lambda images: images.mean((1, 2)))(world, turns)
    assert brightness.argmin() == 1


def test_imagined_frames_are_those_of_the_world(model: WorldModel) -> None:
    world = pillar_world(model)
    turn = np.tile(np.array([0.0, 1.0], np.float32), (1, 2, 1))
    imagined = imagine(world, turn)[0]
    view = PlanView.of(world)
    paths = view.follow(turn)
    for step, seen in enumerate(imagined):
        shown = world.step(view.camera_at(paths.xy[0, step], paths.heading[0, step]))
        assert np.array_equal(seen.frame, shown.frame)


def test_step_reward_sums_rewards_until_the_end(model: WorldModel, starts: np.ndarray) -> None:
    env = MirageWorldEnv(model, task=Goal(radius=0.5), starts=starts, collisions="ignore")
    env.reset(seed=0, options={"goal": [0.0, 1.0]})
    candidates = np.zeros((2, 6, 2), np.float32)
    candidates[0, :, 0] = 1.0  # reaches the radius in its fourth step
    costs = StepReward()(env, candidates)
    assert costs == pytest.approx([-(4 * 0.15 + 1), 0.0], abs=1e-5)
    with pytest.raises(ValueError, match=r"^world: expected an environment with fork, got CartPoleEnv$"):
        StepReward()(gymnasium.make("CartPole-v1"), candidates)


def test_drive_in_the_environment_reaches_the_goal(model: WorldModel) -> None:
    env = MirageWorldEnv(model, task="goal", collisions="ignore", observation="dict")
    start = env.reset(seed=0, options={"start": 0, "goal": [0.3, 1.2]})
    driven = drive(env, Planner(Geometric([PoseGoal(start[1]["goal"])]), CEM(candidates=60)), 20, start)
    assert driven.success == 1.0 and len(driven.frames) == len(driven.actions) + 1 < 15
    assert driven.infos[-1]["distance_to_goal"] <= 0.5
    assert driven.spl(1.237) == pytest.approx(1.237 / max(driven.length, 1.237))


class PoseOnly(gymnasium.Env):
    """A true environment beside the learned world: it has no world, its frames are grey."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, view: PlanView):
        self._view = view

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        return self._now()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        paths = self._view.follow(np.asarray(action)[None, None])
        self._view = replace(self._view, pose=(*paths.xy[0, 0], paths.heading[0, 0]))
        return *self._now()[:1], 0.0, False, False, self._now()[1]

    def _now(self) -> tuple[Any, dict[str, Any]]:
        x, y, heading = self._view.pose
        turned = replace(self._view, pose=plan_pose(self._view.camera.c2w.numpy()))
        c2w = turned.camera_at(np.array([x, y]), heading).c2w.numpy()
        return {"rgb": np.full((*self._view.camera.size, 3), 128, np.uint8)}, {"c2w": c2w}


class Walled(PoseOnly):
    """Cannot move backwards."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return super().step(np.array([max(action[0], 0.0), action[1]]))


def test_drive_lets_the_world_observe_true_frames(model: WorldModel) -> None:
    world = pillar_world(model)
    env = PoseOnly(PlanView.of(world))
    driven = drive(env, Planner(Geometric([PoseGoal(goal_at(3, 0))]), CEM(candidates=40)), 3, env.reset(), world)
    assert driven.success is None and driven.spl(1.0) is None and driven.length > 0.2
    assert np.allclose(world.camera.c2w.numpy(), driven.c2w[-1], atol=1e-5)
    assert (world.snapshot().observation.frame == 128).all()
    assert len(world.state.keyframes.entries) == 4


def test_what_stopped_the_body_is_solid_from_then_on(model: WorldModel) -> None:
    world = pillar_world(model)
    cost, env = Geometric([PoseGoal(goal_at(-3, 0))]), Walled(PlanView.of(world))
    driven = drive(env, Planner(cost, CEM(candidates=40)), 6, env.reset(), world)
    assert cost.contacts and all(x < 0 for x, _ in cost.contacts)
    back = np.tile(np.array([-1.0, 0.0], np.float32), (1, 5, 1))
    assert Geometric([], contacts=[(-0.5, 0.0)]).paths(pillar_world(model), back).blocked.all()
    assert not Geometric([]).paths(pillar_world(model), back).blocked.any()
    assert driven.length < 6 * 0.15


def test_cost_model_has_the_shapes_of_stable_worldmodel() -> None:
    candidates = torch.rand(1, 5, 8, 2)
    costs = CostModel(None, quadratic).get_cost({}, candidates)
    assert costs.shape == (1, 5) and costs.dtype == candidates.dtype
    assert costs[0].numpy() == pytest.approx(quadratic(None, candidates[0].numpy()), rel=1e-5)


def test_spl_counts_the_way_that_was_driven() -> None:
    infos = [{"c2w": goal_at(x, 0), "is_success": x == 2} for x in (0.0, 3.0, 2.0)]
    assert Drive(infos=infos).spl(2.0) == pytest.approx(2 / 4)
    assert Drive(infos=infos[:2]).spl(2.0) == 0.0


def test_bad_input_is_one_clear_error(model: WorldModel, world: World) -> None:
    cases: list[tuple[str, Any]] = [
        (r"elites: expected an integer in \[1, 10\], got 25", lambda: CEM(candidates=10)),
        (r"horizon: expected a positive integer, got 0", lambda: MPPI(horizon=0)),
        (
            r"start: expected a plan of shape \[20, 2\], got \[3, 2\]",
            lambda: plan(None, quadratic, start=np.zeros((3, 2))),
        ),
        (r"cost: expected 250 numbers, got shape \[\] or NaN", lambda: plan(None, lambda *_: np.float64(1))),
        (
            r"world: expected an environment with a bounded Box of actions, got Discrete\(4\)",
            lambda: plan(MirageWorldEnv(model, action_mode="discrete"), quadratic),
        ),
        (
            r"candidates: expected twists \[n, horizon, 2\].*got \[250, 20, 6\]",
            lambda: plan(MirageWorldEnv(model, action_mode="se3"), to_goal(1, 0)),
        ),
        (r"env: expected info with c2w, got \[\]", lambda: drive(None, None, 1, (np.zeros((4, 4, 3), np.uint8), {}))),
        (r"env: expected observations that are a frame", lambda: drive(None, None, 1, (np.zeros(4), {}))),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


def test_another_body_changes_what_is_blocked(model: WorldModel) -> None:
    world = pillar_world(model)
    ahead = np.tile(np.array([1.0, 0.0], np.float32), (1, 20, 1))
    thin, wide = (Geometric([], Body(radius=radius)).paths(world, ahead).xy[0, -1, 0] for radius in (0.2, 0.8))
    assert thin - wide == pytest.approx(0.6, abs=0.2) and thin < PILLAR[0]
