"""Formats of saved episodes: a video with images, NumPy archives, a Minari data set, rosbag2 folders."""

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gymnasium.envs.registration import EnvSpec

import mirage_sim
from mirage_sim.agents.episodes import Episode, EpisodeMaker
from mirage_sim.agents.visualize import save_pictures
from mirage_sim.build import instantiate
from mirage_sim.envs.actions import ActionMode
from mirage_sim.envs.registration import WORLD_ID
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.io import atomic_folder, atomic_write

DATASET_ID = "rollout-v0"  # name of the Minari data set
_DATASETS_PATH = "MINARI_DATASETS_PATH"


def episode_name(number: int) -> str:
    """Return the name of an episode's file or folder."""
    return f"episode_{number:04d}"


class Format(Protocol):
    """Saves episodes in a folder."""

    def has(self, number: int) -> bool:
        """Return whether an episode is saved."""

    def write(self, number: int, episode: Episode) -> None:
        """Save an episode atomically."""

    def finish(self, episodes: int) -> None:
        """Complete the folder after all episodes are saved."""


class Video:
    """``format=mp4``: a video, a contact sheet and a map of one episode, which is always generated again."""

    def __init__(self, folder: Path):
        self._folder = folder

    def has(self, number: int) -> bool:
        """See :class:`Format`."""
        return False

    def write(self, number: int, episode: Episode) -> None:
        """See :class:`Format`."""
        save_pictures(episode, self._folder)

    def finish(self, episodes: int) -> None:
        """See :class:`Format`."""


class Archives:
    """``format=npz``: a NumPy archive per episode."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, number: int) -> Path:
        """Return the file of an episode."""
        return self.folder / f"{episode_name(number)}.npz"

    def has(self, number: int) -> bool:
        """See :class:`Format`."""
        return self.path(number).exists()

    def write(self, number: int, episode: Episode) -> None:
        """See :class:`Format`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_npz(self.path(number), episode.arrays())

    def finish(self, episodes: int) -> None:
        """See :class:`Format`."""


class Minari:
    """``format=minari``: one data set, built from archives after all episodes are saved.

    Args:
        folder: for the data set.
        archives: of the episodes; they are deleted at the end.
        maker: of the episodes.
        algorithm: name of the policy, for the data set.

    Raises:
        ImportError: if Minari is not installed.
    """

    def __init__(self, folder: Path, archives: Archives, maker: EpisodeMaker, algorithm: str):
        _minari()
        self._folder, self._archives, self._maker, self._algorithm = folder, archives, maker, algorithm

    def has(self, number: int) -> bool:
        """See :class:`Format`."""
        return (self._folder / DATASET_ID).exists() or self._archives.has(number)

    def write(self, number: int, episode: Episode) -> None:
        """See :class:`Format`."""
        self._archives.write(number, episode)

    def finish(self, episodes: int) -> None:
        """See :class:`Format`."""
        if not (self._folder / DATASET_ID).exists():
            paths = [self._archives.path(number) for number in range(episodes)]
            save_minari(self._folder, paths, specification(self._maker), self._algorithm)
        shutil.rmtree(self._archives.folder, ignore_errors=True)


class EpisodeWriter(Protocol):
    """Writes episodes to folders of their own. ``bag`` of the settings names the one for ``format=mcap``."""

    def write(self, path: Path, episode: Episode, action_mode: ActionMode) -> None:
        """Write an episode atomically to a folder that does not exist yet."""


class Bags:
    """``format=mcap``: a rosbag2 folder per episode."""

    def __init__(self, folder: Path, maker: EpisodeMaker, writer: EpisodeWriter):
        self._folder, self._maker, self._writer = folder, maker, writer

    def has(self, number: int) -> bool:
        """See :class:`Format`."""
        return (self._folder / episode_name(number)).exists()

    def write(self, number: int, episode: Episode) -> None:
        """See :class:`Format`."""
        self._writer.write(self._folder / episode_name(number), episode, self._maker.action_mode)

    def finish(self, episodes: int) -> None:
        """See :class:`Format`."""


def make_env(world: dict[str, Any], **arguments: Any) -> MirageWorldEnv:
    """Build the environment from plain configuration; the entry point of :func:`specification`.

    Args:
        world: of the world model, as ``configs/world`` composes it.
        arguments: of :class:`~mirage_sim.envs.world_env.MirageWorldEnv`; a mapping with ``_target_`` becomes an object.
    """
    return MirageWorldEnv(world=instantiate(world), **instantiate(arguments))


def specification(maker: EpisodeMaker) -> EnvSpec:
    """Return the environment of episodes for ``gymnasium.make``, as JSON can hold it."""
    return EnvSpec(
        WORLD_ID,
        entry_point=f"{make_env.__module__}:{make_env.__name__}",
        max_episode_steps=maker.steps,
        kwargs={"world": maker.world, **maker.arguments},
    )


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to a compressed archive atomically. Nothing in it is pickled.

    Raises:
        ValueError: for an array of Python objects.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"{name}: expected an array of numbers, got dtype {array.dtype}")
    with atomic_write(path) as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]


def save_minari(folder: Path, archives: Sequence[Path], spec: EnvSpec, algorithm: str) -> None:
    """Write a Minari data set of episodes atomically.

    ``minari.load_dataset("rollout-v0")`` reads it with ``MINARI_DATASETS_PATH=FOLDER``. Frames are stored losslessly.

    Args:
        folder: that readers set ``MINARI_DATASETS_PATH`` to.
        archives: the episodes, written by :func:`save_npz`.
        spec: of the environment, which Minari can recover from the data set.
        algorithm: name of the policy.

    Raises:
        ImportError: if Minari is not installed.
    """
    create = _minari().create_dataset_from_buffers
    folder = folder.absolute()  # Minari joins a relative path with itself
    first, *others = map(_buffer, range(len(archives)), archives)
    with atomic_folder(folder / DATASET_ID) as partial, _environment(_DATASETS_PATH, str(partial.parent)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is set to None")  # author and code link, which are unknown here
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


def _minari() -> Any:
    try:
        import minari
        import minari.data_collector.episode_buffer
    except ImportError as error:
        raise ImportError("Minari is not installed: pip install 'mirage_sim[data]' (Python 3.11 or newer)") from error
    return minari


def _buffer(number: int, archive: Path) -> Any:
    """Return an episode as Minari's episode buffer."""
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
    """Set an environment variable of this process within the context."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
