"""What an agent is shown of a world: the observation space of ``MirageWorld-v0``, and observations in it."""

from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from mirage_sim.envs.tasks import GoalTask, Task, TaskResult
from mirage_sim.envs.tasks.goal import FAR
from mirage_sim.world import Observation


class ObservationEncoder:
    """How an environment observes; :class:`~mirage_sim.envs.world_env.MirageWorldEnv` describes the two kinds.

    Args:
        kind: ``"rgb"`` or ``"dict"``.
        task: whose goal is shown, if it has one.
        size: ``(height, width)`` of frames.

    Raises:
        ValueError: if the kind is unknown.
    """

    def __init__(self, kind: Literal["rgb", "dict"], task: Task, size: tuple[int, int]):
        if kind not in ("rgb", "dict"):
            raise ValueError(f"observation: expected 'rgb' or 'dict', got {kind!r}")
        self._kind = kind
        self._task = task if isinstance(task, GoalTask) else None
        entries: dict[str, spaces.Space[Any]] = {
            "rgb": spaces.Box(0, 255, (*size, 3), np.uint8),
            "depth": spaces.Box(0.0, FAR, tuple(size), np.float32),
            "pose": spaces.Box(-FAR, FAR, (4, 4), np.float32),
            "remembered": spaces.MultiBinary(tuple(size)),
        }
        if self._task:
            entries["goal"] = self._task.goal_space(size)
        self.space: spaces.Space[Any] = spaces.Dict(entries) if kind == "dict" else entries["rgb"]

    def observe(self, shown: Observation, outcome: TaskResult) -> Any:
        """The observation in :attr:`space` of a moment; shares no memory with it."""
        if self._kind == "rgb":
            return self.picture(shown, outcome)
        observation = {
            "rgb": shown.frame.copy(),
            "depth": shown.depth.copy(),
            "pose": shown.camera.c2w.numpy().copy(),
            "remembered": shown.remembered.astype(np.int8),
        }
        if self._task:
            observation["goal"] = self._task.goal(outcome.state, shown)
        return observation

    def picture(self, shown: Observation, outcome: TaskResult) -> np.ndarray:
        """The frame, uint8 ``[H, W, 3]``, with the goal drawn into it where there is one."""
        return self._task.picture(outcome.state, shown) if self._task else shown.frame.copy()
