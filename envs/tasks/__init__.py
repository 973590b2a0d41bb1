"""Tasks: rewards and termination, independent of the world."""

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

#: The name of a task, a task, its class, or a reward function of the observations before and after a step.
TaskLike = str | Task | type | Callable[..., Any]

TASKS: dict[str, type] = {"explore": Explore, "goal": Goal, "none": NoTask}


def make_task(task: TaskLike) -> Task:
    """Return the task that ``task`` stands for.

    Raises:
        ValueError: if ``task`` is not a :data:`TaskLike`.
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
