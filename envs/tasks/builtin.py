"""The tasks that need no goal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mirage_sim.envs.tasks.task import EpisodeStart, TaskResult
from mirage_sim.world import Observation

SKY = 50.0  # metres; what is farther is sky, and has no area


class NoTask:
    """Reward 0, no end."""

    def begin(self, start: EpisodeStart) -> TaskResult:
        """See :class:`Task`."""
        return TaskResult()

    def step(self, state: None, observation: Observation) -> TaskResult:
        """See :class:`Task`."""
        return TaskResult()


class Explore:
    """Rewards newly seen surface: square metres that the step showed and the memory did not hold. No end.

    A pixel of depth z covers ``z / fx * z / fy`` square metres of a surface that faces the camera; sky does not count.
    ``info["explored_m2"]`` is the sum over the episode, without the first frame.
    """

    def begin(self, start: EpisodeStart) -> TaskResult:
        """See :class:`Task`; the state is the area explored so far."""
        return TaskResult(0.0, info={"explored_m2": 0.0})

    def step(self, state: float, observation: Observation) -> TaskResult:
        """See :class:`Task`."""
        new = ~observation.remembered & (observation.depth < SKY)
        depth = observation.depth[new].astype(np.float64)
        focal_x, focal_y = observation.camera.K[0, 0].item(), observation.camera.K[1, 1].item()
        area = float(np.sum(depth * depth)) / (focal_x * focal_y)
        return TaskResult(state + area, area, info={"explored_m2": state + area})


@dataclass(frozen=True)
class RewardFunction:
    """A task made of one function ``(before, after) -> reward`` of two observations. No end."""

    function: Callable[[Observation, Observation], Any]

    def begin(self, start: EpisodeStart) -> TaskResult:
        """See :class:`Task`; the state is the observation before."""
        return TaskResult(start.observation)

    def step(self, state: Observation, observation: Observation) -> TaskResult:
        """See :class:`Task`."""
        return TaskResult(observation, self.function(state, observation))
