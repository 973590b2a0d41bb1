"""Policies of rollouts: functions from the last observation to the next action, which may keep state."""

from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

from mirage_sim.data.clips import Clip
from mirage_sim.geometry import VelocityLimits, invert, se3_log


class Policy(Protocol):
    """Chooses actions."""

    def __call__(self, observation: dict[str, np.ndarray]) -> Any:
        """Return the next action for an observation of ``MirageWorld-v0`` with ``observation="dict"``."""


class RandomPolicy:
    """Samples an action space.

    Args:
        space: the action space, which is seeded.
        seed: of all samples.
    """

    def __init__(self, space: gymnasium.Space, seed: int):
        self._space = space
        self._space.seed(seed)

    def __call__(self, observation: dict[str, np.ndarray]) -> Any:
        """See :class:`Policy`."""
        return self._space.sample()


class ScriptedPolicy:
    """Looks around, walks to open space, and returns on the same path. For ``action_mode="twist"``.

    The first third of the walk (at most a full turn) looks around. Then the policy turns to the most open direction it
    saw and walks, turning away from near obstacles. The last part reverses every command of the way out, which retraces
    the arcs exactly, so the walk ends where the way out began.

    Args:
        steps: of the whole walk.
        drive: limits that scale the commands.
    """

    NEAR = 1.2  # metres; an obstacle nearer than this makes the policy turn

    def __init__(self, steps: int, drive: VelocityLimits | None = None):
        drive = drive or VelocityLimits()
        self._turn = drive.max_turn_rate * drive.dt  # radians per step
        self._look = min(round(2 * np.pi / self._turn), steps // 3)
        self._out = (steps - self._look) // 2
        self._step = 0
        self._clearances: list[float] = []
        self._to_turn = 0.0  # steps of left turn that remain to the chosen direction
        self._commands: list[np.ndarray] = []

    def __call__(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """See :class:`Policy`; reads ``depth``."""
        left, middle, right = (clearance(part) for part in np.array_split(observation["depth"], 3, axis=1))
        step, self._step = self._step, self._step + 1
        if step < self._look:
            self._clearances.append(middle)
            return np.array([0.0, 1.0], dtype=np.float32)
        if step == self._look:
            self._to_turn = self._steps_to_most_open()
        if step < self._look + self._out:
            command = self._walk(left, middle, right)
            self._commands.append(command)
            return command
        return -self._commands.pop() if self._commands else np.zeros(2, dtype=np.float32)

    def _steps_to_most_open(self) -> float:
        if not self._clearances:
            return 0.0
        best, turned = int(np.argmax(self._clearances)), len(self._clearances)
        circle = 2 * np.pi / self._turn
        return (best - turned + circle / 2) % circle - circle / 2

    def _walk(self, left: float, middle: float, right: float) -> np.ndarray:
        if abs(self._to_turn) > 0.5:
            turn = float(np.clip(self._to_turn, -1.0, 1.0))
            self._to_turn -= turn
            return np.array([0.0, turn], dtype=np.float32)
        if middle < self.NEAR:
            return np.array([0.0, 1.0 if left >= right else -1.0], dtype=np.float32)
        steer = 0.3 * np.clip(np.log(left / right), -1.0, 1.0)
        return np.array([1.0, steer], dtype=np.float32)


def clearance(depth: np.ndarray) -> float:
    """Return the distance to obstacles in metres: the lower quartile of the middle rows; unknown depth counts as near.

    Args:
        depth: z-depth ``[H, W]`` in metres, 0 where unknown.
    """
    rows = depth[round(0.35 * len(depth)) : round(0.6 * len(depth))]
    return max(float(np.quantile(rows, 0.25)), 0.1)


class ReplayPolicy:
    """Follows the cameras of a recorded walk and then returns along them. For ``action_mode="se3"``.

    Args:
        clip: the walk.
        drive: limits that scale the actions; see the environment.

    Raises:
        ValueError: if the walk moves faster than the environment can.
    """

    def __init__(self, clip: Clip, drive: VelocityLimits | None = None):
        drive = drive or VelocityLimits()
        there_and_back = torch.cat([clip.c2w, clip.c2w.flip(0)[1:]])
        twists = se3_log(invert(there_and_back[:-1]) @ there_and_back[1:])
        step, turn = drive.max_speed * drive.dt, drive.max_turn_rate * drive.dt
        actions = (twists / torch.tensor([step, step, step, turn, turn, turn])).numpy()
        if np.abs(actions).max(initial=0.0) > 1.001:
            factor = np.abs(actions).max()
            raise ValueError(
                f"walk: expected steps of at most {step:.3f} m and {turn:.3f} rad, got {factor:.2f} times that"
            )
        self._actions = iter(np.clip(actions, -1.0, 1.0))

    def __call__(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """See :class:`Policy`."""
        return next(self._actions)
