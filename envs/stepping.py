"""The step of ``MirageWorld-v0``, for any number of environments at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mirage_sim.ambient import own_torch
from mirage_sim.geometry import Camera
from mirage_sim.world import World, step_together

if TYPE_CHECKING:
    from mirage_sim.envs.world_env import MirageWorldEnv

#: What ``step`` returns: observation, reward, terminated, truncated, info.
Transition = tuple[Any, float, bool, bool, dict[str, Any]]


class Plan(NamedTuple):
    """A step before it is generated: a fork of the world, the camera it moves to, and whether something was hit."""

    fork: World
    camera: Camera
    collided: bool


@own_torch()
def step_envs(envs: Sequence["MirageWorldEnv"], actions: Sequence[Any]) -> list[Transition]:
    """Step several environments and generate their worlds as one batch, which is faster than one after the other.

    Either all environments step or, after an error, none.

    Args:
        envs: one or more environments that share one world model.
        actions: one per environment.

    Returns:
        What :meth:`~mirage_sim.envs.world_env.MirageWorldEnv.step` returns, per environment.

    Raises:
        gymnasium.error.ResetNeeded: if an environment has not been reset.
        gymnasium.error.InvalidAction: if an action is not in the action space.
        ValueError: if the numbers of environments and actions differ, the environments have several models, or a task
            or a termination condition returns an invalid value.
    """
    if len(actions) != len(envs):
        raise ValueError(f"actions: expected {len(envs)}, one for each environment, got {len(actions)}")
    plans = [env._plan(action) for env, action in zip(envs, actions, strict=True)]
    step_together([plan.fork for plan in plans], [plan.camera for plan in plans])
    results = [env._judge(plan) for env, plan in zip(envs, plans, strict=True)]
    for env, plan, (outcome, contact, _) in zip(envs, plans, results, strict=True):
        env._commit(plan.fork, outcome, contact)
    return [transition for _, _, transition in results]
