"""Tasks: what an episode is rewarded for and when it is over, apart from the world it happens in."""

from collections.abc import Callable
from typing import Any

from mirage_sim.envs.tasks.builtin import Explore, NoTask, RewardFunction
from mirage_sim.envs.tasks.goal import Goal
from mirage_sim.envs.tasks.task import EpisodeStart, GoalTask, Task, TaskResult, check_result

__all__ = [
    "TASKS",
    "Explore",
    "Goal",
    "GoalTask",
    "NoTask",
    "TaskResult",
    "RewardFunction",
    "EpisodeStart",
    "Task",
    "TaskLike",
    "check_result",
    "make_task",
]

#: What stands for a task: its name, a task, its class, or a reward function of the observations before and after.
TaskLike = str | Task | type | Callable[..., Any]

TASKS: dict[str, type] = {"explore": Explore, "goal": Goal, "none": NoTask}


def make_task(task: TaskLike) -> Task:
    """The task of that name, a task as it is, one of that class, or one made of a reward function.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(task, str) and task in TASKS:
        task = TASKS[task]
    if isinstance(task, type) and issubclass(task, Task):
        task = task()
    if isinstance(task, Task):
        return task
    if callable(task) and not isinstance(task, type):
        return RewardFunction(task)
    raise ValueError(
        f"task: expected one of {sorted(TASKS)}, a Task, its class or a function of two observations, got {task!r}"
    )
