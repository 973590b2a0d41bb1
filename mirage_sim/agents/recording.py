"""Data sets of roll-outs: NumPy archives and Minari for learning; what writes bags is configured."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

import mirage_sim
from mirage_sim.build import instantiate
from mirage_sim.envs.registration import WORLD_ID
from mirage_sim.envs.world_env import MirageWorldEnv

if TYPE_CHECKING:
    from mirage_sim.agents.rollout import Episode
    from mirage_sim.envs.actions import ActionMode

DATASET_ID = "rollout-v0"  # of Minari
_DATASETS_PATH = "MINARI_DATASETS_PATH"


class EpisodeWriter(Protocol):
    """Writes whole episodes, each to a folder of its own.

    Which one writes ``format=mcap``, ``configs/rollout.yaml`` says: roll-outs know nothing of ROS.
    """

    def write(self, path: Path, episode: "Episode", action_mode: "ActionMode") -> None:
        """Write an episode to a folder that does not exist yet; it appears whole or not at all."""


def episode_name(index: int) -> str:
    """Of an episode's file or folder, by the count of episodes before it."""
    return f"episode_{index:04d}"


def check_no_episodes(folder: Path, episodes: int) -> None:
    """Check that a folder holds none of so many episodes yet.

    Raises:
        ValueError: naming the first that it holds.
    """
    for name in map(episode_name, range(episodes)):
        if (folder / name).exists():
            raise ValueError(f"output: expected a folder without {name}, got {folder}; delete it first")


def make_env(world: dict[str, Any], **arguments: Any) -> MirageWorldEnv:
    """The environment from plain configuration.

    Args:
        world: of the world model, as ``configs/world`` composes it.
        arguments: of :class:`~mirage_sim.envs.world_env.MirageWorldEnv`; a mapping with ``_target_`` becomes an object.
    """
    return MirageWorldEnv(world=instantiate(world), **instantiate(arguments))


def specification(world: dict[str, Any], max_episode_steps: int, **arguments: Any) -> EnvSpec:
    """For ``gymnasium.make``: :func:`make_env` as a specification that can be written as JSON.

    So a data set can tell which world, settings included, it was recorded in.
    """
    return EnvSpec(
        WORLD_ID,
        entry_point=f"{make_env.__module__}:{make_env.__name__}",
        max_episode_steps=max_episode_steps,
        kwargs={"world": world, **arguments},
    )


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to a compressed archive, which appears whole or not at all. Nothing in it is pickled.

    Raises:
        ValueError: for an array of Python objects.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"{name}: expected an array of numbers, got dtype {array.dtype}")
    partial = path.with_name(f".{path.stem}.partial{os.getpid()}.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def stacked(name: str, values: list[Any]) -> dict[str, np.ndarray]:
    """Arrays ``[steps, ...]`` of values that are alike; those of dicts one by one, as ``name/key``."""
    if isinstance(values[0], dict):
        return {f"{name}/{key}": np.stack([value[key] for value in values]) for key in values[0]}
    return {name: np.stack(values)}


@contextmanager
def minari_collector(env: gymnasium.Env, folder: Path, algorithm: str) -> Iterator[gymnasium.Env]:
    """An environment whose episodes become a Minari data set in a folder, once all went well.

        with minari_collector(env, Path("data"), "random") as env:
            ...  # any number of episodes

    It is read back with ``MINARI_DATASETS_PATH=data`` and ``minari.load_dataset("rollout-v0")``. Frames are stored as
    they are, without loss. The data set appears whole or not at all.

    Args:
        env: its specification goes into the data set, so that Minari can recover it. It is closed at the end.
        folder: what ``MINARI_DATASETS_PATH`` will be to its readers; the variable itself is as before afterwards.
        algorithm: name of what acts.

    Raises:
        ImportError: if Minari is not installed.
        ValueError: if there is a data set in the folder already.
    """
    try:
        from minari import DataCollector
    except ImportError as error:
        raise ImportError("Minari is not installed: pip install 'mirage_sim[data]' (Python 3.11 or newer)") from error
    check_no_dataset(folder)
    with tempfile.TemporaryDirectory(prefix=".partial", dir=folder) as partial, _environment(_DATASETS_PATH, partial):
        collector: Any = DataCollector(env, data_format="hdf5", jpeg_encoding=False)
        try:
            yield collector
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* is set to None")  # of what can only be known to who publishes
                collector.create_dataset(
                    DATASET_ID,
                    algorithm_name=algorithm,
                    description=f"Roll-outs of {WORLD_ID}, a world that is generated as it is walked through",
                    requirements=[f"mirage_sim=={mirage_sim.__version__}"],
                )
        finally:
            collector.close()
        (Path(partial) / DATASET_ID).replace(folder / DATASET_ID)


def check_no_dataset(folder: Path) -> None:
    """Check that a folder holds no data set yet.

    Raises:
        ValueError: if it does.
    """
    if (folder / DATASET_ID).exists():
        raise ValueError(f"output: expected a folder without the data set {DATASET_ID}, got {folder}; delete it first")


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """An environment variable of this process, for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
