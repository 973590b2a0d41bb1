"""The task of reaching a place, given as a pose or as the picture that is seen from there."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces

from mirage_sim.envs.tasks.goal_overlay import with_inset, with_mark
from mirage_sim.envs.tasks.goal_sampling import ahead, draw_place, look_from
from mirage_sim.envs.tasks.task import EpisodeStart, TaskResult
from mirage_sim.geometry import is_rigid
from mirage_sim.world import Observation
from mirage_sim.world.images import kind_of

REACH = 100.0  # metres from the start; where the farthest that is ever remembered lies
IMAGINED: Any = object()  # in place of a picture of the goal: what the world would show there
FAR = 1e6  # metres; a bound that no world reaches, because Gymnasium warns about infinite ones


@dataclass(frozen=True)
class GoalState:
    """State of the task: where to go, how far away that was last, and what is to be seen there (image goals)."""

    pose: np.ndarray
    distance: float
    image: np.ndarray | None


@dataclass(frozen=True)
class Goal:
    """Reach a place: PointNav with ``kind="pose"``, ImageNav with ``kind="image"``.

    The goal is drawn from what the start view shows: a direction in which the way is free, and a distance along it;
    it looks on along that way. Distances are straight lines.

    ``info`` gains ``goal`` (camera-to-world float32 ``[4, 4]``), ``distance_to_goal`` (metres) and ``is_success``.

    Dict observations gain ``goal``. For poses it is float32 ``[4]``: metres forward, left and up from the camera, and
    radians by which the goal looks to the left of it. For images it is the picture. Where frames are all there is to
    see, they show it: a magenta ball that hangs at the goal, 0.25 m in radius, in front of everything and at the
    picture's edge where the goal is out of view; or the picture itself, at a third of its size, in the upper left
    corner.

    The picture of an image goal is *imagined*: a fork of the world walks to the goal and looks, at the price of that
    many steps in ``reset``. So it shows what the world made of the place on that walk; where the start view shows
    nothing of the place, another way there may find it looking otherwise. A picture of one's own, with
    ``options["goal_image"]``, is only shown. Success is always told by the pose.

    ``options`` of ``reset``: ``goal``, ``[x, z]`` in metres right and forward of the start, looking on along the way
    there, or a camera-to-world pose ``[4, 4]``; ``goal_image``, uint8 ``[H, W, 3]`` of the frames' size, for image
    goals and together with ``goal``.

    Attributes:
        kind: how the goal is given.
        reward: ``"dense"``: metres come nearer, and 1 at the goal; ``"sparse"``: 1 at the goal.
        radius: metres; nearer is success.
        angle: radians between the viewing directions below which it is; None if it does not matter.
        distance: nearest and farthest of the goals that are drawn, in metres from the start.

    Raises:
        ValueError: for unusable attributes.
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
        given, image = start.options.get("goal"), start.options.get("goal_image", IMAGINED)
        if image is not IMAGINED and given is None:
            raise ValueError("goal_image: expected together with goal, the pose that it was taken from")
        if given is None:
            pose = draw_place(start.observation, self.distance, start.rng)
        else:
            pose = _pose(given, start.observation.camera.c2w.double().numpy())
        if image is not IMAGINED:
            image = _image(image, start.world.model.size)
        else:
            image = look_from(start.world, pose) if self.kind == "image" else None
        return self._judge(GoalState(pose, math.inf, image), start.observation)

    def step(self, state: GoalState, observation: Observation) -> TaskResult:
        """See :class:`Task`."""
        return self._judge(state, observation)

    def _judge(self, aim: GoalState, observation: Observation) -> TaskResult:
        relative = _relative(aim.pose, observation)
        distance = float(np.linalg.norm(relative[:3, 3]))
        turned = math.acos(min(max(relative[2, 2], -1.0), 1.0))
        success = distance <= self.radius and (self.angle is None or turned <= self.angle)
        reward = float(success)
        if self.reward == "dense" and math.isfinite(aim.distance):
            reward += aim.distance - distance
        info = {"goal": aim.pose.astype(np.float32), "distance_to_goal": distance, "is_success": success}
        return TaskResult(GoalState(aim.pose, distance, aim.image), reward, info=info)

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
        return with_mark(observation.frame, _relative(state.pose, observation)[:3, 3], observation.camera)


def _relative(pose: np.ndarray, observation: Observation) -> np.ndarray:
    """The pose in the camera's frame."""
    c2w = observation.camera.c2w.double().numpy()
    relative = pose.copy()
    relative[:3, :3] = c2w[:3, :3].T @ pose[:3, :3]
    relative[:3, 3] = c2w[:3, :3].T @ (pose[:3, 3] - c2w[:3, 3])
    return relative


def _pose(goal: Any, start: np.ndarray) -> np.ndarray:
    """The goal of ``options``, as a pose."""
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
        raise ValueError(f"goal: expected a place in the world, at most {REACH:g} m from the start, got {away:.4g} m")
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
