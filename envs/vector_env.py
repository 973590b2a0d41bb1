"""``MirageWorld-v0`` as a vector environment: several worlds, and the networks run on all of them as one batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate
from gymnasium.wrappers import TimeLimit

from mirage_sim.envs.world_env import MirageWorldEnv, shared_model
from mirage_sim.geometry import Camera
from mirage_sim.world import Chunk, WorldModel, WorldState


class _Wanted(Exception):  # noqa: N818  (a question, not an error)
    """Raised in place of generating: what a world wants to have generated."""

    def __init__(self, state: WorldState, camera: Camera):
        super().__init__()
        self.state, self.camera = state, camera


@dataclass
class _Desk:
    """What passes between a vector environment and the model of one of its worlds."""

    asking: bool = False
    ready: tuple[_Wanted, WorldState, Chunk] | None = None


@dataclass(frozen=True)
class _DeskModel(WorldModel):
    """A world model that can be asked what it would generate, and be given it; else it is as any other."""

    desk: _Desk = field(default_factory=_Desk)

    def advance(self, states: Sequence[WorldState], cameras: Sequence[Camera]) -> tuple[list[WorldState], list[Chunk]]:
        """See :meth:`WorldModel.advance`."""
        if self.desk.asking:
            raise _Wanted(states[0], cameras[0])
        if self.desk.ready is not None:
            wanted, state, chunk = self.desk.ready
            if states[0] is wanted.state and torch.equal(cameras[0].c2w, wanted.camera.c2w):
                return [state], [chunk]
        return super().advance(states, cameras)


class MirageWorldVectorEnv(SyncVectorEnv):
    """Several independent ``MirageWorld-v0`` that step together.

    Everything is as in Gymnasium's ``SyncVectorEnv`` of the same environments, but what is generated is generated as
    one batch, which takes less time. ``gymnasium.make_vec("MirageWorld-v0", num_envs=8)`` makes one.

    The same seeds, actions and number of worlds give the same frames, bit for bit. A batch rounds otherwise than a
    single world does (frames agree to one grey level after a step); what the memory shows is decided cell by cell, so
    that a rounding may tip a cell to another point, and on a longer walk frames differ visibly in places.

    An action that is refused is refused before any of the worlds has moved.

    Args:
        num_envs: how many worlds.
        max_episode_steps: truncates episodes; None for no limit.
        autoreset_mode: Gymnasium's: a world that is done starts anew in the next step, in the same step
            (stable-baselines3 wants that) or when it is told to.
        world: a name or a world model; the networks are loaded once.
        arguments: further arguments of :class:`~mirage_sim.envs.world_env.MirageWorldEnv`.

    Raises:
        ValueError: for unusable arguments.
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        world: str | WorldModel = "mini",
        **arguments: Any,
    ):
        for name, number in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise ValueError(f"{name}: expected a positive integer, got {number!r}")
        if arguments.get("render_mode") == "human":
            raise ValueError("render_mode: expected None or 'rgb_array' for several worlds, got 'human'")
        if not isinstance(world, (str, WorldModel)):
            raise ValueError(f"world: expected a name or a WorldModel, got {type(world).__name__}")
        self._model = shared_model(world) if isinstance(world, str) else world
        self._desks = [_Desk() for _ in range(num_envs)]

        def make(desk: _Desk) -> gymnasium.Env:
            parts = {part.name: getattr(self._model, part.name) for part in fields(WorldModel)}
            env: gymnasium.Env = MirageWorldEnv(_DeskModel(**parts, desk=desk), **arguments)
            return env if max_episode_steps is None else TimeLimit(env, max_episode_steps)

        makers: list[Callable[[], gymnasium.Env]] = [lambda desk=desk: make(desk) for desk in self._desks]  # type: ignore[misc]
        super().__init__(makers, autoreset_mode=autoreset_mode)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every world.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            gymnasium.error.InvalidAction: if an action is not in the action space; no world has changed then.
            ValueError: if there are more or fewer actions than worlds; no world has changed then.
        """
        if np.shape(actions)[:1] != (self.num_envs,):
            raise ValueError(
                f"actions: expected {self.num_envs}, one for each world, got an array of shape {np.shape(actions)}"
            )
        wanted = self._ask(list(iterate(self.action_space, actions)))
        if wanted:
            states, chunks = self._model.advance(
                [want.state for want in wanted.values()], [want.camera for want in wanted.values()]
            )
            for i, state, chunk in zip(wanted, states, chunks, strict=True):
                self._desks[i].ready = (wanted[i], state, chunk)
        try:
            return cast(Any, super().step(actions))
        finally:
            for desk in self._desks:
                desk.ready = None

    def _ask(self, actions: list[Any]) -> dict[int, _Wanted]:
        """What each world wants generated for its action; those that start anew instead want nothing.

        An environment changes nothing before its world has been generated, so that a step can be begun, left where it
        asks, and done again when the answer is there.
        """
        wanted = {}
        starts_anew = self._autoreset_envs if self.autoreset_mode is AutoresetMode.NEXT_STEP else np.zeros(len(actions))
        for i, (env, desk, action) in enumerate(zip(self.envs, self._desks, actions, strict=True)):
            if starts_anew[i]:
                continue
            desk.asking = True
            try:
                env.unwrapped.step(action)
            except _Wanted as want:
                wanted[i] = want
            finally:
                desk.asking = False
        return wanted
