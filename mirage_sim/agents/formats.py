"""Files of roll-outs: NumPy archives and Minari data sets for learning; what writes bags is configured."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium.envs.registration import EnvSpec

import mirage_sim
from mirage_sim.build import instantiate
from mirage_sim.envs.registration import WORLD_ID
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.io import atomic_folder, atomic_write

if TYPE_CHECKING:
    from mirage_sim.agents.episodes import Episode
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
    with atomic_write(path) as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]


def stacked(name: str, values: list[Any]) -> dict[str, np.ndarray]:
    """Arrays ``[steps, ...]`` of values that are alike; those of dicts one by one, as ``name/key``."""
    if isinstance(values[0], dict):
        return {f"{name}/{key}": np.stack([value[key] for value in values]) for key in values[0]}
    return {name: np.stack(values)}


def save_minari(folder: Path, archives: Sequence[Path], spec: EnvSpec, algorithm: str) -> None:
    """Write a Minari data set of episodes into a folder. It appears whole or not at all.

    It is read back with ``MINARI_DATASETS_PATH=FOLDER`` and ``minari.load_dataset("rollout-v0")``. Frames are stored as
    they are, without loss.

    Args:
        folder: what ``MINARI_DATASETS_PATH`` will be to its readers; the variable itself is as before afterwards.
        archives: of the episodes, as :func:`save_npz` wrote them.
        spec: of the environment; it goes into the data set, so that Minari can recover it.
        algorithm: name of what acts.

    Raises:
        ImportError: if Minari is not installed.
    """
    create = _minari().create_dataset_from_buffers
    folder = folder.absolute()  # Minari joins a relative path with itself
    first, *others = map(_buffer, range(len(archives)), archives)
    with atomic_folder(folder / DATASET_ID) as partial, _environment(_DATASETS_PATH, str(partial.parent)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is set to None")  # of what can only be known to who publishes
            data = create(
                DATASET_ID,
                [first],
                env=spec,
                algorithm_name=algorithm,
                description=f"Roll-outs of {WORLD_ID}, a world that is generated as it is walked through",
                requirements=[f"mirage_sim=={mirage_sim.__version__}"],
                data_format="hdf5",
                jpeg_encoding=False,
            )
        for other in others:
            data.update_dataset_from_buffer([other])


def check_minari() -> None:
    """Check that data sets can be written.

    Raises:
        ImportError: if Minari is not installed.
    """
    _minari()


def _minari() -> Any:
    try:
        import minari
        import minari.data_collector.episode_buffer
    except ImportError as error:
        raise ImportError("Minari is not installed: pip install 'mirage_sim[data]' (Python 3.11 or newer)") from error
    return minari


def _buffer(number: int, archive: Path) -> Any:
    """An episode as Minari takes it."""
    with np.load(archive, allow_pickle=False) as arrays:
        parts = {name: array for name, array in arrays.items()}
    inner = {name.partition("/")[2]: parts[name] for name in parts if name.startswith("observations/")}
    return _minari().data_collector.episode_buffer.EpisodeBuffer(
        id=number,
        seed=int(parts["seed"]),
        observations=inner or parts["observations"],
        actions=parts["actions"],
        rewards=parts["rewards"],
        terminations=parts["terminations"],
        truncations=parts["truncations"],
    )


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
