"""The task of reaching a goal pose or the viewpoint of a goal image."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces

from mirage_sim.envs.tasks.goal_overlay import with_ball, with_inset
from mirage_sim.envs.tasks.goal_sampling import ahead, generate_view, sample_goal
from mirage_sim.envs.tasks.task import EpisodeStart, TaskResult
from mirage_sim.geometry import is_rigid
from mirage_sim.world import Observation
from mirage_sim.world.images import kind_of

REACH = 100.0  # metres; maximum distance of a goal from the start
GENERATED: Any = object()  # default of goal_image: the world generates the image
FAR = 1e6  # metres; bound of spaces, because Gymnasium warns about infinite bounds


@dataclass(frozen=True)
class GoalState:
    """State of the task: goal pose ``[4, 4]``, latest distance in metres, and goal image (image goals only)."""

    pose: np.ndarray
    distance: float
    image: np.ndarray | None


@dataclass(frozen=True)
class Goal:
    """Navigate to a goal: PointNav with ``kind="pose"``, ImageNav with ``kind="image"``.

    By default ``reset`` samples the goal: a direction in which the start view shows a free path, and a distance along
    it. The goal faces along that path. Distances are straight lines.

    ``info`` has ``goal`` (camera-to-world float32 ``[4, 4]``), ``distance_to_goal`` (metres) and ``is_success``.

    Dict observations have ``goal``. For pose goals it is float32 ``[4]``: metres forward, left and up from the camera,
    and the heading of the goal in radians to the left. For image goals it is the image. RGB observations show a pose
    goal as a magenta ball of radius 0.25 m, which is never occluded and stays at the edge of the frame if the goal is
    out of view. They show an image goal as an inset at a third of its size in the upper left corner.

    The world generates the image of an image goal: in ``reset``, a fork moves to the goal step by step. The image shows
    the place as generated on that path. If the start view does not show the place, the world may generate it
    differently on another path. ``options["goal_image"]`` replaces the generated image. Success depends on the pose
    alone.

    Options of ``reset``: ``goal``, either ``[x, z]`` in metres right and forward of the start, facing along the path
    there, or a camera-to-world pose ``[4, 4]``; and, for image goals with ``goal``, ``goal_image``, a uint8 array
    ``[H, W, 3]`` of the frames' size.

    Attributes:
        kind: of the goal, ``"pose"`` or ``"image"``.
        reward: ``"dense"``: decrease of the distance in metres, plus 1 at the goal; ``"sparse"``: 1 at the goal.
        radius: maximum distance from the goal for success, metres.
        angle: maximum angle between the viewing directions for success, radians; None for any.
        distance: minimum and maximum distance of sampled goals from the start, metres.

    Raises:
        ValueError: if an attribute is invalid.
    """

    kind: Literal["pose", "image"] = "pose"
    reward: Literal["dense", "sparse"] = "dense"
    radius: float = 0.5
    angle: float | None = None
    distance: tuple[float, float] = (1.0, 4.0)

    def __post_init__(self) -> None:
        if self.kind not in ("pose", "image"):
            raise ValueError(f"kind: expected 'pose' or 'image', got {self.kind!r}")
        if self.reward not in ("dense", "sparse"):
            raise ValueError(f"reward: expected 'dense' or 'sparse', got {self.reward!r}")
        if not _is_number(self.radius) or not 0.0 < self.radius <= REACH:
            raise ValueError(f"radius: expected metres in (0, {REACH:g}], got {self.radius!r}")
        if self.angle is not None and not (_is_number(self.angle) and 0.0 < self.angle <= math.pi):
            raise ValueError(f"angle: expected None or radians in (0, pi], got {self.angle!r}")
        span = self.distance
        if (
            not isinstance(span, (tuple, list))
            or len(span) != 2
            or not all(map(_is_number, span))
            or not self.radius < span[0] <= span[1] <= REACH
        ):
            raise ValueError(
                f"distance: expected nearest and farthest in metres, radius {self.radius:g} < nearest <= farthest "
                f"<= {REACH:g}, got {span!r}"
            )

    @property
    def options(self) -> tuple[str, ...]:
        """See :class:`Task`."""
        return ("goal", "goal_image") if self.kind == "image" else ("goal",)

    def begin(self, start: EpisodeStart) -> TaskResult:
        """See :class:`Task`."""
        goal, image = start.options.get("goal"), start.options.get("goal_image", GENERATED)
        if image is not GENERATED and goal is None:
            raise ValueError("goal_image: expected together with goal, the pose that it was taken from")
        if goal is None:
            pose = sample_goal(start.observation, self.distance, start.rng)
        else:
            pose = _pose(goal, start.observation.camera.c2w.double().numpy())
        if image is not GENERATED:
            image = _image(image, start.world.model.size)
        else:
            image = generate_view(start.world, pose) if self.kind == "image" else None
        return self._evaluate(GoalState(pose, math.inf, image), start.observation)

    def step(self, state: GoalState, observation: Observation) -> TaskResult:
        """See :class:`Task`."""
        return self._evaluate(state, observation)

    def _evaluate(self, state: GoalState, observation: Observation) -> TaskResult:
        relative = _relative(state.pose, observation)
        distance = float(np.linalg.norm(relative[:3, 3]))
        turned = math.acos(min(max(relative[2, 2], -1.0), 1.0))
        success = distance <= self.radius and (self.angle is None or turned <= self.angle)
        reward = float(success)
        if self.reward == "dense" and math.isfinite(state.distance):
            reward += state.distance - distance
        info = {"goal": state.pose.astype(np.float32), "distance_to_goal": distance, "is_success": success}
        return TaskResult(GoalState(state.pose, distance, state.image), reward, info=info)

    def goal_space(self, size: tuple[int, int]) -> spaces.Space:
        """See :class:`GoalTask`."""
        if self.kind == "image":
            return spaces.Box(0, 255, (*size, 3), np.uint8)
        bound = np.array([FAR, FAR, FAR, math.pi], np.float32)
        return spaces.Box(-bound, bound, dtype=np.float32)

    def goal(self, state: GoalState, observation: Observation) -> np.ndarray:
        """See :class:`GoalTask`."""
        if state.image is not None:
            return state.image.copy()
        relative = _relative(state.pose, observation)
        right, down, forward = relative[:3, 3]
        yaw = math.atan2(-relative[0, 2], relative[2, 2])
        return np.array([forward, -right, -down, yaw], np.float32)

    def picture(self, state: GoalState, observation: Observation) -> np.ndarray:
        """See :class:`GoalTask`."""
        if state.image is not None:
            return with_inset(observation.frame, state.image)
        return with_ball(observation.frame, _relative(state.pose, observation)[:3, 3], observation.camera)


def _relative(pose: np.ndarray, observation: Observation) -> np.ndarray:
    """Return the pose in camera coordinates."""
    c2w = observation.camera.c2w.double().numpy()
    relative = pose.copy()
    relative[:3, :3] = c2w[:3, :3].T @ pose[:3, :3]
    relative[:3, 3] = c2w[:3, :3].T @ (pose[:3, 3] - c2w[:3, 3])
    return relative


def _pose(goal: Any, start: np.ndarray) -> np.ndarray:
    """Convert the option ``goal`` to a pose ``[4, 4]``."""
    expected = "goal: expected [x, z] in metres or a rigid camera-to-world pose [4, 4]"
    try:
        values = np.asarray(goal)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"{expected}, got {goal!r}") from error
    if values.shape not in ((2,), (4, 4)) or values.dtype.kind not in "fiu":
        raise ValueError(f"{expected}, got {values.dtype} of shape {values.shape}")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{expected}, got values that are not finite: {values.tolist()}")
    if values.shape == (2,):
        x, z = values
        pose = start @ ahead(math.atan2(x, z), math.hypot(x, z))
    elif is_rigid(torch.from_numpy(values)):
        pose = values
    else:
        raise ValueError(f"{expected} (orthonormal, right-handed, last row 0 0 0 1), got {values.tolist()}")
    away = float(np.linalg.norm(pose[:3, 3] - start[:3, 3]))
    if away > REACH:
        raise ValueError(f"goal: expected a position at most {REACH:g} m from the start, got {away:.4g} m")
    return pose


def _image(image: Any, size: tuple[int, int]) -> np.ndarray:
    expected = (*size, 3)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != expected:
        raise ValueError(
            f"goal_image: expected a uint8 array {list(expected)}, the size of the frames, got {kind_of(image)}"
        )
    return image.copy()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
