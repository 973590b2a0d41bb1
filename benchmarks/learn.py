"""Whether an agent learns in a generated world: PPO on images alone, compared with random actions."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from mirage_sim.build import instantiate
from mirage_sim.envs.actions import DISCRETE_COMMANDS
from mirage_sim.evaluation.metrics import Interval
from mirage_sim.io import atomic_write
from mirage_sim.settings.benchmarks import LearnBenchSettings
from mirage_sim.world import WorldModel
from mirage_sim.world.images import builtin_starts

# with discrete actions, random exploration reaches goals often enough to learn from
ENVIRONMENT: dict[str, Any] = {"task": "goal", "action_mode": "discrete", "observation": "rgb"}
FORWARD = list(DISCRETE_COMMANDS).index("forward")
FIRST_MEASURED = 1_000_000  # seeds from here on are for evaluation, those below for training
HELD_OUT = 4  # every fourth start image is for evaluation, the others for training
Z = 1.96  # standard deviations around the mean that hold 95 % of a normal distribution
RESAMPLES = 10_000
# for short trainings: frequent updates, with many passes over their data
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 32,  # of each world between two updates
    "batch_size": 64,
    "n_epochs": 8,
    "learning_rate": 5e-4,
    "gamma": 0.95,
    "ent_coef": 0.01,
}

_log = logging.getLogger(__name__)
Choose = Callable[[np.ndarray], np.ndarray]


def bench_learn(settings: LearnBenchSettings) -> dict[str, Any]:
    """Train policies, and measure how often they reach goals in held-out episodes.

    All policies are evaluated on the same episodes, which begin with start images that were not used in training.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``steps`` of each training; the fractions of episodes that reach the goal with trained
        policies (``success``), random actions (``success_random``) and always going forward (``success_forward``), with
        95 % intervals (``_lo``, ``_hi``) over trainings and episodes; ``gain_over_random`` and ``gain_over_forward``,
        differences paired by episode, with their intervals; ``steps_per_s`` of training.

    Raises:
        ImportError: if stable-baselines3 is not installed.
        ValueError: for unusable settings.
    """
    first, most = settings.seed, FIRST_MEASURED // settings.worlds - settings.seeds
    if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first <= most:
        raise ValueError(f"seed: expected an integer in [0, {most}], got {first!r}")
    model: WorldModel = instantiate(settings.world)
    learned, chance, seconds, steps = [], [], 0.0, 0
    for seed in range(first, first + settings.seeds):
        began = time.perf_counter()
        policy = train(model, settings, seed)
        seconds += time.perf_counter() - began
        steps = policy.num_timesteps
        if settings.output is not None:
            save(policy, Path(settings.output) / f"policy_{seed}.zip")
        learned.append(successes(model, settings, partial(act, policy)))
        chance.append(successes(model, settings, partial(act_randomly, np.random.default_rng(seed))))
        _log.info("seed %d: success %.2f, with random actions %.2f", seed, learned[-1].mean(), chance[-1].mean())
    forward = successes(model, settings, lambda frames: np.full(len(frames), FORWARD))
    metrics: dict[str, float] = {"steps": steps}
    reached, by_chance = np.stack(learned), np.stack(chance)
    for name, values in (("success", reached), ("success_random", by_chance), ("success_forward", forward[None])):
        metrics |= interval_of_shares(values).metrics(name)
    for name, baseline in (("gain_over_random", by_chance), ("gain_over_forward", forward[None])):
        metrics |= interval(reached.astype(np.int64) - baseline).metrics(name)
    return {"marks": metrics | {"steps_per_s": settings.seeds * steps / seconds}}


def make_worlds(model: WorldModel, settings: LearnBenchSettings, measured: bool) -> Any:
    """The worlds for evaluation (``measured``) or for training; they share no start image."""
    starts = builtin_starts()
    held_out = np.arange(len(starts)) % HELD_OUT == HELD_OUT - 1
    return gymnasium.make_vec(
        "MirageWorld-v0",
        num_envs=settings.worlds,
        world=model,
        starts=starts[held_out if measured else ~held_out],
        max_episode_steps=settings.max_episode_steps,
        autoreset_mode="SameStep",
        **ENVIRONMENT,
    )


def train(model: WorldModel, settings: LearnBenchSettings, seed: int) -> Any:
    """Train PPO for at least ``settings.steps`` steps of the world, rounded up to whole batches.

    Raises:
        ImportError: if stable-baselines3 is not installed.
    """
    from mirage_sim.envs.sb3 import PPO, SB3VecEnv, SmallCNN

    worlds = SB3VecEnv(make_worlds(model, settings, measured=False))
    policy = PPO(
        "CnnPolicy",
        worlds,
        seed=seed * settings.worlds,  # worlds count up from it, so that no two trainings share a world
        device="cpu",
        policy_kwargs={"features_extractor_class": SmallCNN},
        **PPO_SETTINGS,
    )
    return policy.learn(settings.steps)


def act(policy: Any, frames: np.ndarray) -> np.ndarray:
    """A trained policy's most probable actions ``[worlds]`` for frames ``[worlds, H, W, 3]``."""
    return policy.predict(frames, deterministic=True)[0]


def act_randomly(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Uniformly random discrete actions, ``[worlds]``."""
    return rng.integers(0, len(DISCRETE_COMMANDS), len(frames))


def save(policy: Any, path: Path) -> None:
    """Write a policy to a zip file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial_path:
        policy.save(partial_path)


def successes(model: WorldModel, settings: LearnBenchSettings, choose: Choose) -> np.ndarray:
    """Whether each evaluation episode reached its goal, bool ``[episodes]``; the same episodes in each call.

    Args:
        model: of the worlds.
        settings: of the benchmark.
        choose: frames ``[worlds, H, W, 3]`` to actions ``[worlds]``.
    """
    count, total = settings.worlds, settings.episodes
    # a fixed number of each world's first episodes: taking those that end first would prefer short ones
    counts = [total // count + (i < total % count) for i in range(count)]
    reached: list[list[bool]] = [[] for _ in range(count)]
    worlds = make_worlds(model, settings, measured=True)
    frames, _ = worlds.reset(seed=FIRST_MEASURED)
    while any(len(episodes) < number for episodes, number in zip(reached, counts, strict=True)):
        frames, _, terminated, truncated, infos = worlds.step(choose(frames))
        for i in np.flatnonzero(terminated | truncated):
            reached[i].append(bool(infos["final_info"]["is_success"][i]))
    worlds.close()
    return np.concatenate([episodes[:number] for episodes, number in zip(reached, counts, strict=True)])


def interval(values: np.ndarray) -> Interval:
    """Mean of ``[policies, episodes]`` with its 95 % bootstrap interval over policies and episodes."""
    rng = np.random.default_rng(0)
    policies, episodes = (rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) for count in values.shape)
    means = ((policies @ values.astype(np.int64)) * episodes).sum(axis=1) / values.size
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), values.size)


def interval_of_shares(values: np.ndarray) -> Interval:
    """:func:`interval` of booleans, at least as wide as Wilson's (1927) for one policy on as many episodes.

    Where all episodes succeed, the bootstrap interval alone would have no width.
    """
    drawn, count = interval(values), values.shape[1]
    middle = (drawn.mean + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * math.sqrt(drawn.mean * (1 - drawn.mean) / count + (Z / (2 * count)) ** 2)
    return dataclasses.replace(
        drawn, low=max(min(drawn.low, middle - half), 0.0), high=min(max(drawn.high, middle + half), 1.0)
    )
