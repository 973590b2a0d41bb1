"""Observations and info of ``MirageWorld-v0``."""

from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from mirage_sim.envs.tasks import GoalTask, Task, TaskResult
from mirage_sim.envs.tasks.goal import FAR
from mirage_sim.world import Observation


class ObservationEncoder:
    """Turns what a world shows into observations; :class:`~mirage_sim.envs.world_env.MirageWorldEnv` describes them.

    Attributes:
        space: the observation space.

    Args:
        kind: ``"rgb"`` or ``"dict"``.
        task: a goal task adds its goal.
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
        """Return the observation of a moment. It shares no memory with ``shown``."""
        if self._kind == "rgb":
            return self.render(shown, outcome)
        observation = {
            "rgb": shown.frame.copy(),
            "depth": shown.depth.copy(),
            "pose": shown.camera.c2w.numpy().copy(),
            "remembered": shown.remembered.astype(np.int8),
        }
        if self._task:
            observation["goal"] = self._task.goal(outcome.state, shown)
        return observation

    def render(self, shown: Observation, outcome: TaskResult) -> np.ndarray:
        """Return the frame, uint8 ``[H, W, 3]``, with the goal of a goal task drawn into it."""
        return self._task.picture(outcome.state, shown) if self._task else shown.frame.copy()


def make_info(shown: Observation, time: float, contact: dict[str, Any]) -> dict[str, Any]:
    """Return the environment's own entries of ``info``.

    Args:
        shown: by the world, at this moment.
        time: simulated seconds since the reset.
        contact: entries of :meth:`~mirage_sim.envs.collisions.Collisions.info`.
    """
    return {
        "c2w": shown.camera.c2w.numpy().copy(),
        "time": time,
        "frames": shown.frames.copy(),
        "remembered": shown.info["remembered"],
        "remembered_mask": shown.remembered.copy(),
        "memory_bytes": shown.info["nbytes"],
        "memory_points": shown.info["points"],
    } | contact
