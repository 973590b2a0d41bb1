"""The interface of a task."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from mirage_sim.world import Observation, Session


@dataclass(frozen=True)
class EpisodeStart:
    """What a task receives at the start of an episode.

    Attributes:
        world: a fork of the episode's world at its first frame, in which the task may step freely.
        observation: the first observation.
        rng: random generator for the task; depends only on the episode's seed.
        options: the entries of ``reset(options=...)`` that the task accepts.
    """

    world: Session
    observation: Observation
    rng: np.random.Generator
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskResult:
    """The result of a task at one moment.

    Attributes:
        state: of the task, passed to the next ``step``; must not be changed in place, because snapshots share it.
        reward: of the latest step, a finite number; ignored at the start.
        terminated: whether the task has succeeded or failed.
        info: merged into the environment's ``info``.
    """

    state: Any = None
    reward: float = 0.0
    terminated: bool = False
    info: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """Defines reward and termination. Keeps the state of an episode in :class:`TaskResult`, not in the instance.

    A task that accepts options of ``reset`` lists their names in an attribute ``options``, a tuple.
    """

    def begin(self, start: EpisodeStart) -> TaskResult:
        """Start an episode.

        Raises:
            ValueError: if an option is invalid; the environment is then unchanged.
        """

    def step(self, state: Any, observation: Observation) -> TaskResult:
        """Evaluate the step that led to ``observation``."""


@runtime_checkable
class GoalTask(Task, Protocol):
    """A task whose goal is part of every observation."""

    def goal_space(self, size: tuple[int, int]) -> spaces.Space:
        """Return the space of ``goal`` in dict observations, for frames of size ``(height, width)``."""

    def goal(self, state: Any, observation: Observation) -> np.ndarray:
        """Return the entry ``goal`` of dict observations."""

    def picture(self, state: Any, observation: Observation) -> np.ndarray:
        """Return the frame with the goal drawn into it, uint8 ``[H, W, 3]``, for RGB observations and rendering."""


def check_result(outcome: Any, taken: set[str]) -> TaskResult:
    """Check the result of a task and return it.

    Args:
        outcome: what the task returned.
        taken: the environment's own keys of ``info``.

    Raises:
        ValueError: if the result has a wrong type, a reward that is not finite, or a key of the environment.
    """
    if not isinstance(outcome, TaskResult):
        raise ValueError(f"task: expected a TaskResult, got {outcome!r}")
    reward = outcome.reward
    if isinstance(reward, (bool, np.bool_)) or not isinstance(reward, (int, float, np.integer, np.floating)):
        raise ValueError(f"task: expected a finite float as reward, got {reward!r} ({type(reward).__name__})")
    if not math.isfinite(reward):
        raise ValueError(f"task: expected a finite float as reward, got {reward!r}")
    if not isinstance(outcome.terminated, (bool, np.bool_)):
        raise ValueError(f"task: expected a bool as terminated, got {outcome.terminated!r}")
    if not isinstance(outcome.info, dict):
        raise ValueError(f"task: expected a dict as info, got {outcome.info!r}")
    if both := taken & set(outcome.info):
        raise ValueError(f"task: expected info without the environment's own keys, got {sorted(both)}")
    return outcome
