"""Tasks: what an episode is rewarded for and when it ends, apart from the world it happens in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mirage_sim.world import Observation

SKY = 50.0  # metres; what is farther is sky, and has no area


@dataclass(frozen=True)
class Outcome:
    """What a task says about one step.

    Attributes:
        state: the task's own state after the step; a value like the world's, never changed in place.
        reward: of the step.
        terminated: whether the task is over (done or failed).
        info: merged into the environment's ``info``.
    """

    state: Any
    reward: float
    terminated: bool = False
    info: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """Reward and end of an episode. An instance holds no state of an episode, so that snapshots and forks can."""

    def begin(self, observation: Observation, rng: np.random.Generator) -> Any:
        """The task's state at the start of an episode; whatever it draws, it draws from ``rng``."""

    def step(self, state: Any, observation: Observation) -> Outcome:
        """Judge the step that led to ``observation``."""


class NoTask:
    """Reward 0, no end."""

    def begin(self, observation: Observation, rng: np.random.Generator) -> None:
        """See :meth:`Task.begin`."""

    def step(self, state: None, observation: Observation) -> Outcome:
        """See :meth:`Task.step`."""
        return Outcome(None, 0.0)


class Explore:
    """Rewards newly seen surface: square metres that the step showed and the memory did not hold. No end.

    A pixel of depth z covers ``z / fx * z / fy`` square metres of a surface that faces the camera; sky does not count.
    ``info["explored_m2"]`` is the sum over the episode, without the first frame.
    """

    def begin(self, observation: Observation, rng: np.random.Generator) -> float:
        """See :meth:`Task.begin`; the state is the area explored so far."""
        return 0.0

    def step(self, state: float, observation: Observation) -> Outcome:
        """See :meth:`Task.step`."""
        new = ~observation.remembered & (observation.depth < SKY)
        depth = observation.depth[new].astype(np.float64)
        focal_x, focal_y = observation.camera.K[0, 0].item(), observation.camera.K[1, 1].item()
        area = float(np.sum(depth * depth)) / (focal_x * focal_y)
        return Outcome(state + area, area, info={"explored_m2": state + area})


@dataclass(frozen=True)
class RewardFunction:
    """A task made of one function ``(before, after) -> reward`` of two observations. No end."""

    function: Callable[[Observation, Observation], float]

    def begin(self, observation: Observation, rng: np.random.Generator) -> Observation:
        """See :meth:`Task.begin`; the state is the observation before."""
        return observation

    def step(self, state: Observation, observation: Observation) -> Outcome:
        """See :meth:`Task.step`."""
        return Outcome(observation, float(self.function(state, observation)))


TASKS: dict[str, Callable[[], Task]] = {"explore": Explore, "none": NoTask}


def make_task(task: "str | Task | Callable[[Observation, Observation], float]") -> Task:
    """The task of that name, a task as it is, or one made of a reward function.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(task, str) and task in TASKS:
        return TASKS[task]()
    if hasattr(task, "begin") and hasattr(task, "step"):
        return task
    if callable(task):
        return RewardFunction(task)
    raise ValueError(f"task: expected one of {sorted(TASKS)}, a Task or a function of two observations, got {task!r}")
