"""``MirageWorld-v0`` as a vector environment that generates all of its worlds as one batch."""

from copy import deepcopy
from typing import Any, cast

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, iterate

from mirage_sim.envs.starting import shared_model
from mirage_sim.envs.stepping import step_envs
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.world import WorldModel


class MirageWorldVectorEnv(SyncVectorEnv):
    """Several independent ``MirageWorld-v0`` environments whose worlds are generated as one batch.

        envs = gymnasium.make_vec("MirageWorld-v0", num_envs=8)

    The interface is that of Gymnasium's ``SyncVectorEnv``; batching makes it faster.

    The same seeds, actions and number of environments give the same frames, bit for bit. A batch rounds differently
    than a single environment: frames differ by at most one grey level after one step. Each rounding can change which
    point a cell of the memory view shows, so longer episodes may differ visibly in places.

    Args:
        num_envs: number of environments.
        max_episode_steps: truncates episodes after this many steps; None for no limit.
        autoreset_mode: one of Gymnasium's: ``"NextStep"``, ``"SameStep"`` (required by stable-baselines3) or
            ``"Disabled"``.
        world: the name of a configuration, or a world model; all environments share its networks.
        arguments: further arguments of :class:`~mirage_sim.envs.world_env.MirageWorldEnv`.

    Raises:
        ValueError: if an argument is invalid.
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
            raise ValueError(f"world: expected the name of a configuration or a WorldModel, got {type(world).__name__}")
        model = shared_model(world) if isinstance(world, str) else world
        super().__init__([lambda: MirageWorldEnv(model, **arguments)] * num_envs, autoreset_mode=autoreset_mode)
        self._max_episode_steps = max_episode_steps

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment, or reset it where its episode has ended and the autoreset mode says so.

        Args:
            actions: one per environment.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``; with ``autoreset_mode="Disabled"`` also if an
                episode has ended and its environment has not been reset.
            gymnasium.error.InvalidAction: if an action is not in the action space.
            ValueError: if the number of actions is wrong, or the task or a termination condition returns an invalid
                value. After any of these errors, unless it comes from an automatic reset, all environments are
                unchanged.
        """
        if np.shape(actions)[:1] != (self.num_envs,):
            raise ValueError(
                f"actions: expected {self.num_envs}, one for each world, got an array of shape {np.shape(actions)}"
            )
        if self.autoreset_mode is AutoresetMode.DISABLED and self._autoreset_envs.any():
            done = np.flatnonzero(self._autoreset_envs).tolist()
            raise ResetNeeded(f"step: expected reset(options={{'reset_mask': ...}}) first, worlds {done} are done")
        envs = cast(list[MirageWorldEnv], self.envs)
        resets = self._autoreset_envs & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        moving, chosen = np.flatnonzero(~resets).tolist(), list(iterate(self.action_space, actions))
        stepped = step_envs([envs[i] for i in moving], [chosen[i] for i in moving]) if moving else []
        transitions = dict(zip(moving, stepped, strict=True))
        infos: dict[str, Any] = {}
        for i, env in enumerate(envs):
            if i in transitions:
                observation, reward, terminated, truncated, info = transitions[i]
                truncated |= self._max_episode_steps is not None and env.world.state.step >= self._max_episode_steps
            else:
                (observation, info), reward, terminated, truncated = env.reset(), 0.0, False, False
            if self.autoreset_mode is AutoresetMode.SAME_STEP and (terminated or truncated):
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, i)
                observation, info = env.reset()
            infos = self._add_info(infos, info, i)
            self._env_obs[i], self._rewards[i] = observation, reward
            self._terminations[i], self._truncations[i] = terminated, truncated
        self._observations = concatenate(self.single_observation_space, self._env_obs, self._observations)
        self._autoreset_envs = self._terminations | self._truncations
        observations = deepcopy(self._observations)
        return observations, self._rewards.copy(), self._terminations.copy(), self._truncations.copy(), infos
