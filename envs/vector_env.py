"""``MirageWorld-v0`` as a vector environment: several worlds, and the networks run on all of them as one batch."""

from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate
from gymnasium.wrappers import TimeLimit

from mirage_sim.envs.begun_steps import prepare_batch
from mirage_sim.envs.world_env import MirageWorldEnv, shared_model
from mirage_sim.world import WorldModel


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
        model = shared_model(world) if isinstance(world, str) else world

        def make() -> gymnasium.Env:
            env = MirageWorldEnv(model, **arguments)
            return env if max_episode_steps is None else TimeLimit(env, max_episode_steps)

        super().__init__([make] * num_envs, autoreset_mode=autoreset_mode)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every world.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``; or if a world is done and has not been reset, with
                ``autoreset_mode="Disabled"``. No world has changed then.
            gymnasium.error.InvalidAction: if an action is not in the action space; no world has changed then.
            ValueError: if there are more or fewer actions than worlds; no world has changed then.
        """
        if np.shape(actions)[:1] != (self.num_envs,):
            raise ValueError(
                f"actions: expected {self.num_envs}, one for each world, got an array of shape {np.shape(actions)}"
            )
        if self.autoreset_mode is AutoresetMode.DISABLED and self._autoreset_envs.any():
            done = np.flatnonzero(self._autoreset_envs).tolist()
            raise ResetNeeded(f"step: expected reset(options={{'reset_mask': ...}}) first, worlds {done} are done")
        # those that start anew in this step need nothing generated
        starts = self._autoreset_envs & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        going = np.flatnonzero(~starts)
        steps = list(iterate(self.action_space, actions))
        if len(going):
            begun = prepare_batch([self.envs[i] for i in going], [steps[i] for i in going])
            for i, step in zip(going, begun, strict=True):
                steps[i] = step
        return cast(Any, super().step(steps))
