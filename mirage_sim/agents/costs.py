"""Costs of candidates: what a planner minimises.

A cost is a function ``cost(world, candidates) -> [n]`` of action sequences ``[n, horizon, action_dim]``; lower is
better. :class:`Geometric` sums terms of the candidates' paths, without networks. :class:`ImageGoal` and
:class:`StepReward` generate what would be seen. Any other function of the same form is a cost, too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.agents.plan_view import Array, Paths, PlanView, plan_pose, world_of
from mirage_sim.envs.stepping import step_envs
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.world import Body, Observation, WorldModel, step_together
from mirage_sim.world.images import to_tensor

_TOUCH = 0.1  # metres between a body that something stopped and the place that is then taken as solid


class Cost(Protocol):
    """Evaluates candidates."""

    def __call__(self, world: Any, candidates: NDArray[np.float32]) -> Array:
        """Return the cost ``[n]`` of action sequences ``[n, horizon, action_dim]`` that begin in the present world."""


Term = Callable[[Paths], Any]  # the cost [n] of the paths of n candidates


@dataclass(frozen=True)
class PoseGoal:
    """The way that is left to a goal: its mean over the path, plus that at the end, in metres.

    The way leads around what is remembered as solid (:meth:`~mirage_sim.agents.plan_view.PlanView.way_to`).

    Attributes:
        goal: camera-to-world matrix ``[4, 4]``, as ``info["goal"]``.
        heading: metres that one radian between the last heading and the goal's counts as.
    """

    goal: NDArray[Any]
    heading: float = 0.0

    def __call__(self, paths: Paths) -> Array:
        """See :data:`Term`."""
        x, y, heading = plan_pose(self.goal)
        left = paths.way_to((x, y))
        cost = left.mean(axis=1) + left[:, -1]
        if self.heading:
            turned = paths.heading[:, -1] - heading
            cost = cost + self.heading * np.abs(np.arctan2(np.sin(turned), np.cos(turned)))
        return cost


@dataclass(frozen=True)
class Collision:
    """The share of steps that an obstacle stops, times ``weight``."""

    weight: float = 2.0

    def __call__(self, paths: Paths) -> Array:
        """See :data:`Term`."""
        return self.weight * paths.blocked.mean(axis=1)


@dataclass(frozen=True)
class Clearance:
    """How far the body is inside a margin around obstacles: from 0 to ``weight``, mean over the path.

    Attributes:
        weight: the cost of touching an obstacle.
        margin: metres between body and obstacle that cost nothing.
    """

    weight: float = 0.3
    margin: float = 0.2

    def __call__(self, paths: Paths) -> Array:
        """See :data:`Term`."""
        return self.weight * (1 - paths.clearance / self.margin).clip(0, 1).mean(axis=1, dtype=np.float64)


@dataclass(frozen=True)
class Unseen:
    """The share of poses in space that was not seen, times ``weight``."""

    weight: float = 0.5

    def __call__(self, paths: Paths) -> Array:
        """See :data:`Term`."""
        return self.weight * paths.unseen().mean(axis=1)


@dataclass(frozen=True)
class NewArea:
    """Minus the unseen area in view from the last pose, in square metres, times ``weight``."""

    weight: float = 1.0

    def __call__(self, paths: Paths) -> Array:
        """See :data:`Term`."""
        return -self.weight * paths.new_area()


@dataclass
class Geometric:
    """The sum of terms of the candidates' paths. Actions are twists: forward speed and turn rate in [-1, 1].

    Attributes:
        terms: functions of :class:`~mirage_sim.agents.plan_view.Paths`.
        body: that moves; None for the default one.
        contacts: places ``(x, y)`` in plan that are solid although the memory does not show it; see :meth:`touch`.
    """

    terms: Sequence[Term]
    body: Body | None = None
    contacts: list[tuple[float, float]] = field(default_factory=list)
    _latest: tuple[Any, PlanView] | None = field(default=None, init=False, repr=False)

    def __call__(self, world: Any, candidates: NDArray[np.float32]) -> Array:
        """See :class:`Cost`."""
        paths = self.paths(world, candidates)
        return np.sum([np.asarray(term(paths), np.float64) for term in self.terms], axis=0)

    def paths(self, world: Any, candidates: NDArray[np.float32]) -> Paths:
        """Return the paths of candidates.

        Raises:
            ValueError: if there is no world, or the candidates are not twists.
        """
        if candidates.ndim != 3 or candidates.shape[-1] != 2:
            raise ValueError(
                f"candidates: expected twists [n, horizon, 2], as action_mode='twist' has them, "
                f"got {list(candidates.shape)}"
            )
        return self.view(world).follow(candidates)

    def view(self, world: Any) -> PlanView:
        """Return the world's surroundings, which are computed once per state."""
        state = world if isinstance(world, PlanView) else world_of(world).state
        if self._latest is None or self._latest[0] is not state:
            self._latest = (state, PlanView.of(world, self.body, self.contacts))
        return self._latest[1]

    def touch(self, c2w: Any, forward: float) -> None:
        """Remember that something solid stopped the body.

        Args:
            c2w: camera-to-world matrix ``[4, 4]`` where it stopped.
            forward: the command, positive for forward.
        """
        x, y, heading = plan_pose(c2w)
        ahead = math.copysign((self.body or Body()).radius + _TOUCH, forward)
        self.contacts.append((x + ahead * math.cos(heading), y + ahead * math.sin(heading)))


@dataclass(frozen=True)
class ImageGoal:
    """The mean squared difference between an image and the last generated frame, in features.

    Costly: for a few candidates, after a geometric search.

    Attributes:
        image: uint8 ``[H, W, 3]``, of the frames' size.
        weight: of the difference.
        stride: actions per generated frame.
        features: function of images uint8 ``[n, H, W, 3]`` that returns ``[n, ...]``, such as
            :func:`mirage_sim.evaluation.perceptual.features`; None for the codec's latents.
        body: that moves; None for the default one.
    """

    image: NDArray[np.uint8]
    weight: float = 1.0
    stride: int = 5
    features: Callable[[NDArray[np.uint8]], Any] | None = None
    body: Body | None = None

    def __call__(self, world: Any, candidates: NDArray[np.float32]) -> Array:
        """See :class:`Cost`."""
        world = world_of(world)
        frames = [path[-1].frame for path in imagine(world, candidates, self.stride, self.body)]
        if frames[0].shape != self.image.shape:
            raise ValueError(f"image: expected the frames' shape {list(frames[0].shape)}, got {list(self.image.shape)}")
        images = np.stack([self.image, *frames])
        encoded = np.asarray(self.features(images) if self.features else latents_of(world.model, images), np.float64)
        different = (encoded[1:] - encoded[0]).reshape(len(frames), -1)
        return np.asarray(self.weight * (different**2).mean(axis=1))


def imagine(
    world: Any, candidates: NDArray[np.float32], stride: int = 1, body: Body | None = None
) -> list[list[Observation]]:
    """Generate what would be seen along the paths of a few candidates, as one batch. The world does not change.

    Args:
        world: a world or an environment that has one.
        candidates: twists ``[n, horizon, 2]``.
        stride: actions per generated step of the world. The last pose is always generated.
        body: that moves; None for the default one.

    Returns:
        The observations of each candidate.
    """
    world = world_of(world)
    paths = PlanView.of(world, body).follow(candidates)
    forks = world.fork(len(candidates))
    horizon = candidates.shape[1]
    seen = []
    for step in range((horizon - 1) % stride, horizon, stride):
        cameras = [
            paths.view.camera_at(xy[step], heading[step]) for xy, heading in zip(paths.xy, paths.heading, strict=True)
        ]
        seen.append(step_together(forks, cameras))
    return [list(path) for path in zip(*seen, strict=True)]


def latents_of(model: WorldModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the codec's latents ``[n, C, h, w]`` of images uint8 ``[n, H, W, 3]``, each encoded alone."""
    with torch.inference_mode():
        encoded = [model.codec.encode(to_tensor(image, model.device)[None, :, None]) for image in images]
    return torch.cat(encoded)[:, :, 0].float().cpu().numpy()


class StepReward:
    """Minus the sum of rewards of an environment's own steps, in forks: for any environment with ``fork``.

    Costly: for a few candidates. A candidate's sum ends with its episode.
    """

    def __call__(self, world: gymnasium.Env, candidates: NDArray[np.float32]) -> Array:
        """See :class:`Cost`."""
        env: Any = world.unwrapped
        if not hasattr(env, "fork"):
            raise ValueError(f"world: expected an environment with fork, got {type(env).__name__}")
        forks, rewards = env.fork(len(candidates)), np.zeros(len(candidates))
        running = np.arange(len(candidates))
        for step in range(candidates.shape[1]):
            envs, actions = [forks[i] for i in running], candidates[running, step]
            results = _step(envs, actions)
            rewards[running] += [result[1] for result in results]
            running = running[[not (result[2] or result[3]) for result in results]]
            if not len(running):
                break
        return -rewards


def _step(envs: Sequence[Any], actions: NDArray[np.float32]) -> list[Any]:
    if all(isinstance(env, MirageWorldEnv) for env in envs):
        return step_envs(envs, list(actions))
    return [env.step(action) for env, action in zip(envs, actions, strict=True)]
