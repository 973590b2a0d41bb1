"""Planning: search for the actions that lead to the lowest cost, and drive with them.

:class:`CEM` and :class:`MPPI` sample candidate action sequences and improve them with a cost
(:mod:`mirage_sim.agents.costs`). :class:`Planner` repeats the search at every step (model-predictive control) and
:func:`drive` executes it, in the learned world itself or in another environment whose frames the world observes.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from mirage_sim.agents.costs import Cost, Geometric
from mirage_sim.geometry import Camera
from mirage_sim.world import World

Actions = NDArray[np.float32]

_TWIST = spaces.Box(-1.0, 1.0, (2,), np.float32)  # actions of a world that no environment wraps

_COMMANDED, _STILL = 0.2, 0.01  # a speed command beyond which a motion of fewer metres was stopped


@dataclass(frozen=True)
class Plan:
    """The result of a search.

    Attributes:
        actions: the plan, ``[horizon, action_dim]``.
        cost: of the plan.
        candidates: of the last round, ``[n, horizon, action_dim]``.
        costs: of these candidates, ``[n]``.
    """

    actions: Actions
    cost: float
    candidates: Actions
    costs: NDArray[np.float64]


class Search(Protocol):
    """Searches for a plan."""

    def __call__(
        self, world: Any, cost: Cost, space: spaces.Box, rng: np.random.Generator, start: Actions | None = None
    ) -> Plan:
        """Return a plan.

        Args:
            world: is passed to the cost; it does not change.
            cost: to minimise.
            space: of one action; plans stay within its bounds.
            rng: decides all samples.
            start: plan to improve, ``[horizon, action_dim]``; None for the middle of the space.
        """


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling of candidates around a mean in several rounds; subclasses define how the mean moves.

    The noise of ``hold`` successive actions is the same, so that candidates go somewhere instead of trembling. The
    first candidate of a round is the best of the rounds before.

    Attributes:
        horizon: actions of a plan.
        candidates: per round.
        rounds: of sampling.
        spread: standard deviation of the first round's noise, as a fraction of half the space's width.
        hold: number of successive actions with the same noise.

    Raises:
        ValueError: if an attribute is out of range.
    """

    horizon: int = 20
    candidates: int = 250
    rounds: int = 4
    spread: float = 0.8
    hold: int = 4

    def __post_init__(self) -> None:
        for name in ("horizon", "candidates", "rounds", "hold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}")
        if not 0 < self.spread < float("inf"):
            raise ValueError(f"spread: expected a positive number, got {self.spread!r}")

    def __call__(
        self, world: Any, cost: Cost, space: spaces.Box, rng: np.random.Generator, start: Actions | None = None
    ) -> Plan:
        """See :class:`Search`."""
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        shape = (self.horizon, *space.shape)
        mean = np.broadcast_to((low + high) / 2, shape) if start is None else np.asarray(start, np.float64)
        if mean.shape != shape:
            raise ValueError(f"start: expected a plan of shape {list(shape)}, got {list(mean.shape)}")
        deviation = np.broadcast_to(self.spread * (high - low) / 2, shape)
        knots = -(-self.horizon // self.hold)
        best, least = mean.clip(low, high).astype(np.float32), np.inf
        for _ in range(self.rounds):
            noise = rng.standard_normal((self.candidates, knots, *space.shape))
            noise = np.repeat(noise, self.hold, axis=1)[:, : self.horizon]
            candidates = (mean + deviation * noise).clip(low, high).astype(np.float32)
            candidates[0] = best
            costs = costs_of(cost, world, candidates)
            first = int(costs.argmin())
            if costs[first] < least:
                best, least = candidates[first], float(costs[first])
            mean, deviation = self.update(mean, deviation, candidates.astype(np.float64), costs)
        return Plan(best, least, candidates, costs)

    def update(
        self, mean: Any, deviation: Any, candidates: NDArray[np.float64], costs: NDArray[np.float64]
    ) -> tuple[Any, Any]:
        """Return mean and standard deviation of the next round, ``[horizon, action_dim]``."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class CEM(Sampling):
    """The cross-entropy method (Rubinstein 1999): the next round samples around the best candidates.

    Attributes:
        elites: number of best candidates, from which mean and deviation of the next round are computed.
        least_spread: smallest deviation, as a fraction of the current round's.
    """

    elites: int = 25
    least_spread: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.elites <= self.candidates:
            raise ValueError(f"elites: expected an integer in [1, {self.candidates}], got {self.elites!r}")

    def update(
        self, mean: Any, deviation: Any, candidates: NDArray[np.float64], costs: NDArray[np.float64]
    ) -> tuple[Any, Any]:
        """See :class:`Sampling`."""
        elite = candidates[np.argsort(costs, kind="stable")[: self.elites]]
        return elite.mean(axis=0), np.maximum(elite.std(axis=0), self.least_spread * deviation)


@dataclass(frozen=True, kw_only=True)
class MPPI(Sampling):
    """Model-predictive path integral control (Williams et al. 2017): the mean weighs candidates by ``exp(-cost)``.

    Attributes:
        temperature: difference of cost by which a candidate's weight falls to 1/e, as a fraction of the standard
            deviation of the round's costs.
        shrink: factor of the noise from round to round.
    """

    temperature: float = 0.1
    shrink: float = 0.6

    def update(
        self, mean: Any, deviation: Any, candidates: NDArray[np.float64], costs: NDArray[np.float64]
    ) -> tuple[Any, Any]:
        """See :class:`Sampling`."""
        scale = self.temperature * max(float(costs.std()), 1e-9)
        weight = np.exp(-(costs - costs.min()) / scale)
        weight = weight / weight.sum()
        return (weight[:, None, None] * candidates).sum(axis=0), deviation * self.shrink


def plan(
    world: Any,
    cost: Cost,
    search: Search | None = None,
    *,
    refine: Cost | None = None,
    few: int = 4,
    seed: int | tuple[int, ...] = 0,
    start: Actions | None = None,
) -> Plan:
    """Search for the best actions from the present moment. The same seed gives the same plan.

    Args:
        world: a world, an environment, or whatever the cost takes; it does not change.
        cost: to minimise; evaluated for all candidates.
        search: None for :class:`CEM` with its defaults.
        refine: a costly cost that is added for the ``few`` best candidates of the last round, such as
            :class:`~mirage_sim.agents.costs.ImageGoal`.
        few: number of candidates to refine.
        seed: of all samples.
        start: plan to improve.

    Raises:
        ValueError: if the action space has no bounds, or the cost returns unusable values.
    """
    space = getattr(world, "action_space", _TWIST)
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        raise ValueError(f"world: expected an environment with a bounded Box of actions, got {space}")
    found = (search or CEM())(world, cost, space, np.random.default_rng(seed), start)
    if refine is None:
        return found
    _, first = np.unique(found.candidates, axis=0, return_index=True)  # without repetitions
    first = np.sort(first)
    chosen = first[np.argsort(found.costs[first], kind="stable")[:few]]
    costs = found.costs[chosen] + costs_of(refine, world, found.candidates[chosen])
    best = int(costs.argmin())
    return Plan(found.candidates[chosen[best]], float(costs[best]), found.candidates, found.costs)


def costs_of(cost: Cost, world: Any, candidates: Actions) -> NDArray[np.float64]:
    """Return the costs ``[n]`` of candidates.

    Raises:
        ValueError: if the cost returns another shape or NaN.
    """
    costs = np.asarray(cost(world, candidates), np.float64)
    if costs.shape != (len(candidates),) or np.isnan(costs).any():
        raise ValueError(f"cost: expected {len(candidates)} numbers, got shape {list(costs.shape)} or NaN")
    return costs


@dataclass
class Planner:
    """Plans again at every step, starting from the rest of the plan before. One instance serves one episode.

    Attributes:
        cost: to minimise.
        search: :class:`CEM` or :class:`MPPI`.
        refine: costly cost for the ``few`` best candidates; see :func:`plan`.
        few: number of candidates to refine.
        seed: of the episode.
        plans: of all steps so far.
        seconds: processor time of each of them.
    """

    cost: Cost
    search: Search = field(default_factory=CEM)
    refine: Cost | None = None
    few: int = 4
    seed: int = 0
    plans: list[Plan] = field(default_factory=list, init=False)
    seconds: list[float] = field(default_factory=list, init=False)

    def __call__(self, world: Any) -> Actions:
        """Return the next action, ``[action_dim]``; arguments and errors as for :func:`plan`."""
        began = time.process_time()
        start = None
        if self.plans:
            before = self.plans[-1].actions
            start = np.concatenate([before[1:], before[-1:]])
        found = plan(
            world,
            self.cost,
            self.search,
            refine=self.refine,
            few=self.few,
            seed=(self.seed, len(self.plans)),
            start=start,
        )
        self.plans.append(found)
        self.seconds.append(time.process_time() - began)
        return found.actions[0]


@dataclass
class Drive:
    """What happened on a drive: one entry per frame in ``frames``, ``infos`` and ``c2w``, one per step elsewhere.

    Attributes:
        frames: uint8 ``[H, W, 3]``.
        infos: of the environment.
        actions: ``[action_dim]``.
        rewards: per step.
    """

    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    actions: list[Actions] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    @property
    def c2w(self) -> NDArray[np.float64]:
        """Return the camera-to-world poses ``[frames, 4, 4]``."""
        return np.stack([np.asarray(info["c2w"], np.float64) for info in self.infos])

    @property
    def length(self) -> float:
        """Return the metres driven."""
        return float(np.linalg.norm(np.diff(self.c2w[:, :3, 3], axis=0), axis=1).sum())

    @property
    def success(self) -> float | None:
        """Return 1 if the task was solved at the end, 0 if not, None if it defines no success."""
        return float(self.infos[-1]["is_success"]) if "is_success" in self.infos[-1] else None

    def spl(self, shortest: float) -> float | None:
        """Return success weighted by path length (Anderson et al. 2018); None if the task defines no success.

        Args:
            shortest: length of the shortest way to the goal in metres.
        """
        return None if self.success is None else self.success * shortest / max(self.length, shortest, 1e-9)


def drive(
    env: gymnasium.Env, planner: Planner, steps: int, start: tuple[Any, dict[str, Any]], world: World | None = None
) -> Drive:
    """Drive an environment with a planner until the episode ends.

    Where a command to move had no effect, a geometric cost takes the place before the body as solid from then on.

    Args:
        env: whose observation is a frame or has ``rgb``, and whose info has ``c2w``.
        planner: chooses the actions.
        steps: most steps.
        start: what ``env.reset`` returned.
        world: learned world to plan in, which stands at the start. It observes each frame of the environment at its
            pose, which is in the world's frame. None to plan in the environment itself.

    Raises:
        ValueError: if observation or info lack what is needed, or the planner cannot use the environment.
    """
    driven = Drive()
    _append(driven, *start)
    for _ in range(steps):
        action = planner(env if world is None else world)
        observation, reward, terminated, truncated, info = env.step(action)
        _append(driven, observation, info)
        driven.actions.append(action)
        driven.rewards.append(float(reward))
        _touch(planner.cost, driven)
        if world is not None:
            c2w = torch.from_numpy(np.asarray(info["c2w"], np.float32))
            world.observe(driven.frames[-1], Camera(c2w, world.camera.K, world.model.size), move=True)
        if terminated or truncated:
            break
    return driven


def _touch(cost: Cost, driven: Drive) -> None:
    """Let the cost know if something stopped the last action."""
    before, after = (np.asarray(info["c2w"]) for info in driven.infos[-2:])
    forward = float(driven.actions[-1][0])
    stopped = abs(forward) > _COMMANDED and np.linalg.norm(after[:3, 3] - before[:3, 3]) < _STILL
    if isinstance(cost, Geometric) and stopped:
        cost.touch(after, forward)


def _append(driven: Drive, observation: Any, info: dict[str, Any]) -> None:
    frame = observation.get("rgb") if isinstance(observation, Mapping) else observation
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
        raise ValueError("env: expected observations that are a frame uint8 [H, W, 3] or have one as rgb, got neither")
    if "c2w" not in info:
        raise ValueError(f"env: expected info with c2w, got {sorted(info)}")
    driven.frames.append(frame)
    driven.infos.append(info)


@dataclass(frozen=True)
class CostModel:
    """A cost in the form that solvers of ``stable-worldmodel`` call, for one world.

    Attributes:
        world: that the candidates begin in.
        cost: of the candidates.
    """

    world: Any
    cost: Cost

    def get_cost(self, info: Mapping[str, Any], candidates: torch.Tensor) -> torch.Tensor:
        """Return the costs ``[1, n]`` of candidates ``[1, n, horizon, action_dim]``; ``info`` is not used.

        Raises:
            ValueError: if the candidates are those of several worlds.
        """
        if candidates.ndim != 4 or len(candidates) != 1:
            raise ValueError(f"candidates: expected [1, n, horizon, action_dim], got {list(candidates.shape)}")
        costs = costs_of(self.cost, self.world, candidates[0].detach().cpu().numpy().astype(np.float32))
        return torch.from_numpy(costs).to(candidates)[None]
