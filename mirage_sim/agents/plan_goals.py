"""``mirage plan``: plan to goals in a generated world, drive there, and draw the plan."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mirage_sim.agents.costs import Clearance, Collision, Geometric, PoseGoal, Unseen
from mirage_sim.agents.plan_picture import plan_picture
from mirage_sim.agents.plan_view import PlanView
from mirage_sim.agents.planning import CEM, MPPI, Drive, Planner, Search, drive
from mirage_sim.ambient import own_torch
from mirage_sim.build import instantiate
from mirage_sim.envs.tasks import Goal
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.evaluation.media import save_image
from mirage_sim.evaluation.metrics import bootstrap_mean
from mirage_sim.io import check_folder, save_json
from mirage_sim.settings import PlanSettings

_SEEDS = 20  # start views tried per episode, before the command fails

logger = logging.getLogger(__name__)


@own_torch()
def plan_goals(settings: PlanSettings) -> dict[str, Any]:
    """Drive to sampled goals with a planner whose candidates cost no network, and save metrics and an image.

    Args:
        settings: of ``mirage plan``; :func:`mirage_sim.build.compose` makes them.

    Returns:
        The metrics and the output folder.

    Raises:
        ValueError: for unusable settings, a folder that cannot be written to, or start views without a free way.
        FileNotFoundError: for images or weights that do not exist.
    """
    check_folder("output", settings.output)
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    goal = Goal(distance=(settings.nearest, settings.farthest))
    env = MirageWorldEnv(instantiate(settings.world), task=goal, collisions="block")
    drives, seconds = [], []
    resets = tqdm(_resets(env, settings), total=settings.episodes, desc="plan", unit="episode")
    for number, (seed, start) in enumerate(resets):
        planner = Planner(goal_cost(start[1]["goal"]), make_search(settings), seed=seed)
        view = PlanView.of(env)
        drives.append(drive(env, planner, settings.steps, start))
        seconds += planner.seconds
        if number == 0:
            save_image(plan_picture(view, planner.plans[0], drives[0], goal.radius), output / "plan.png")
    marks = _metrics(drives, seconds)
    save_json(output / "plan.json", {"marks": marks, "settings": settings.plain()})
    return {"marks": marks, "output": settings.output}


def goal_cost(goal: np.ndarray) -> Geometric:
    """Return the cost of driving to a pose ``[4, 4]`` without meeting an obstacle."""
    return Geometric([PoseGoal(goal), Collision(), Clearance(), Unseen()])


def make_search(settings: PlanSettings) -> Search:
    """Return the search that the settings describe."""
    kind = CEM if settings.search == "cem" else MPPI
    return kind(horizon=settings.horizon, candidates=settings.candidates, rounds=settings.rounds)


def _resets(env: MirageWorldEnv, settings: PlanSettings) -> Iterator[tuple[int, tuple[Any, dict[str, Any]]]]:
    """Yield seed and first observation and info of each episode."""
    options: dict[str, Any] = {} if settings.start is None else {"start": settings.start}
    if settings.image is not None:
        options |= {"image": settings.image, "fov_deg": settings.fov_deg}
    seeds = itertools.count(settings.seed)
    for _ in range(settings.episodes):
        for attempt, seed in zip(range(_SEEDS), seeds, strict=False):
            try:
                start = env.reset(seed=seed, options=options)
            except ValueError as error:
                if options or attempt == _SEEDS - 1:
                    raise
                logger.info("seed %d is left out: %s", seed, error)
                continue
            yield seed, start
            break


def _metrics(drives: list[Drive], seconds: list[float]) -> dict[str, Any]:
    success = np.array([driven.success for driven in drives], np.float64)
    spl = np.array([driven.spl(driven.infos[0]["distance_to_goal"]) for driven in drives], np.float64)
    marks: dict[str, Any] = bootstrap_mean(success).metrics("success") | bootstrap_mean(spl).metrics("spl")
    return marks | {
        "ms_per_decision": 1e3 * float(np.median(seconds)),
        "collisions_per_step": float(np.mean([info["collision"] for driven in drives for info in driven.infos[1:]])),
        "steps": int(np.sum([len(driven.actions) for driven in drives])),
        "episodes": len(drives),
    }
