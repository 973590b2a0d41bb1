"""What a task promises, and the check that it keeps it."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from mirage_sim.world import Observation, World


@dataclass(frozen=True)
class EpisodeStart:
    """What a task is given at the start of an episode.

    Attributes:
        world: a fork of the episode's world at its first frame: the task may walk about in it and leaves no trace.
        observation: the first.
        rng: whatever the task draws, it draws from here; depends on nothing but the episode's seed.
        options: those of ``reset(options=...)`` that the task takes.
    """

    world: World
    observation: Observation
    rng: np.random.Generator
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskResult:
    """What a task says about one moment.

    Attributes:
        state: the task's own state; a value like the world's, never changed in place.
        reward: of the step that led here, a finite number; of no meaning at the start.
        terminated: whether the task is over (done or failed).
        info: merged into the environment's ``info``.
    """

    state: Any = None
    reward: float = 0.0
    terminated: bool = False
    info: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """Reward and end of an episode. An instance holds no state of an episode, so that snapshots and forks can.

    A task that takes options of ``reset`` names them in an attribute ``options``, a tuple.
    """

    def begin(self, start: EpisodeStart) -> TaskResult:
        """The task at the start of an episode.

        Raises:
            ValueError: if an option is unusable; ``reset`` then changes nothing.
        """

    def step(self, state: Any, observation: Observation) -> TaskResult:
        """Judge the step that led to ``observation``."""


@runtime_checkable
class GoalTask(Task, Protocol):
    """A task with something that the agent must be told in every observation."""

    def goal_space(self, size: tuple[int, int]) -> spaces.Space:
        """Of the entry ``goal`` in dict observations, for frames of this ``(height, width)``."""

    def goal(self, state: Any, observation: Observation) -> np.ndarray:
        """The entry ``goal`` in dict observations."""

    def picture(self, state: Any, observation: Observation) -> np.ndarray:
        """The frame with the goal drawn into it, uint8 ``[H, W, 3]``, for agents that see nothing else."""


def check_result(outcome: Any, taken: set[str]) -> TaskResult:
    """The outcome, if it is a usable one.

    Args:
        outcome: what a task returned.
        taken: the environment's own keys of ``info``.

    Raises:
        ValueError: naming what was expected and what came.
    """
    if not isinstance(outcome, TaskResult):
        raise ValueError(f"task: expected an Outcome, got {outcome!r}")
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
