"""The built-in tasks without a goal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mirage_sim.envs.tasks.task import EpisodeStart, TaskResult
from mirage_sim.world import Observation

SKY = 50.0  # metres; pixels at this depth or beyond count as sky


class NoTask:
    """No reward and no termination."""

    def begin(self, start: EpisodeStart) -> TaskResult:
        """See :class:`Task`."""
        return TaskResult()

    def step(self, state: None, observation: Observation) -> TaskResult:
        """See :class:`Task`."""
        return TaskResult()


class Explore:
    """Rewards newly observed surface, in square metres. Never terminates.

    A pixel of depth z that shows a surface for the first time counts ``z / fx * z / fy`` square metres, the area of a
    surface facing the camera. In a learned world these are the pixels that do not come from memory. Sky does not count.
    ``info["explored_m2"]`` is the sum over the episode, without the first frame.
    """

    def begin(self, start: EpisodeStart) -> TaskResult:
        """See :class:`Task`; the state is the area explored so far."""
        return TaskResult(0.0, info={"explored_m2": 0.0})

    def step(self, state: float, observation: Observation) -> TaskResult:
        """See :class:`Task`."""
        new = observation.new & (observation.depth < SKY)
        depth = observation.depth[new].astype(np.float64)
        focal_x, focal_y = observation.camera.K[0, 0].item(), observation.camera.K[1, 1].item()
        area = float(np.sum(depth * depth)) / (focal_x * focal_y)
        return TaskResult(state + area, area, info={"explored_m2": state + area})


@dataclass(frozen=True)
class RewardFunction:
    """A task with the reward ``function(before, after)`` of two observations. Never terminates."""

    function: Callable[[Observation, Observation], Any]

    def begin(self, start: EpisodeStart) -> TaskResult:
        """See :class:`Task`; the state is the observation before."""
        return TaskResult(start.observation)

    def step(self, state: Observation, observation: Observation) -> TaskResult:
        """See :class:`Task`."""
        return TaskResult(observation, self.function(state, observation))
