"""Formats of saved episodes: a video with images, NumPy archives, Minari and LeRobot data sets, rosbag2 folders."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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
from mirage_sim.models.pretrained import require

DATASET_ID = "rollout-v0"  # name of a data set
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
    """``format=npz``: a NumPy archive per episode.

    Args:
        folder: for the archives.
        arrays: returns the arrays of an episode.
    """

    def __init__(self, folder: Path, arrays: Callable[[Episode], dict[str, np.ndarray]] = Episode.arrays):
        self.folder, self._arrays = folder, arrays

    def path(self, number: int) -> Path:
        """Return the file of an episode."""
        return self.folder / f"{episode_name(number)}.npz"

    def has(self, number: int) -> bool:
        """See :class:`Format`."""
        return self.path(number).exists()

    def write(self, number: int, episode: Episode) -> None:
        """See :class:`Format`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_npz(self.path(number), self._arrays(episode))

    def finish(self, episodes: int) -> None:
        """See :class:`Format`."""


class DataSet:
    """``format=minari`` and ``format=lerobot``: one data set, built from archives after all episodes are saved.

    Args:
        folder: for the data set, which becomes its subfolder :data:`DATASET_ID`.
        archives: of the episodes; they are deleted at the end.
        save: writes the data set atomically to a new folder, from the archives' paths.
    """

    def __init__(self, folder: Path, archives: Archives, save: Callable[[Path, Sequence[Path]], None]):
        self._path, self._archives, self._save = folder / DATASET_ID, archives, save

    def has(self, number: int) -> bool:
        """See :class:`Format`."""
        return self._path.exists() or self._archives.has(number)

    def write(self, number: int, episode: Episode) -> None:
        """See :class:`Format`."""
        self._archives.write(number, episode)

    def finish(self, episodes: int) -> None:
        """See :class:`Format`."""
        if not self._path.exists():
            self._save(self._path, [self._archives.path(number) for number in range(episodes)])
        shutil.rmtree(self._archives.folder, ignore_errors=True)


def minari_data_set(folder: Path, archives: Path, maker: EpisodeMaker, algorithm: str) -> DataSet:
    """Return ``format=minari``.

    Args:
        folder: for the data set.
        archives: folder for archives.
        maker: of the episodes.
        algorithm: name of the policy, for the data set.

    Raises:
        ImportError: if Minari is not installed.
    """
    _minari()
    save = partial(save_minari, spec=specification(maker), algorithm=algorithm)
    return DataSet(folder, Archives(archives), save)


def lerobot_data_set(folder: Path, archives: Path, maker: EpisodeMaker, video: bool) -> DataSet:
    """Return ``format=lerobot``.

    Args:
        folder: for the data set.
        archives: folder for archives.
        maker: of the episodes.
        video: see :func:`~mirage_sim.agents.lerobot.save_lerobot`.

    Raises:
        ValueError: if the folder itself is a data set, or the world makes no whole number of steps per second.
        ImportError: if pyarrow is not installed.
    """
    from mirage_sim.agents.lerobot import integer_fps, rows_of, save_lerobot, task_of

    require("pyarrow", "'mirage_sim[data]'")
    integer_fps(maker.dt)
    if (folder / "meta" / "info.json").exists():
        raise ValueError(f"output: expected a folder that is no data set, got {folder}, which has meta/info.json")
    task = task_of(maker.arguments["task"])
    save = partial(save_lerobot, task=task, action_mode=maker.action_mode, video=video)
    return DataSet(folder, Archives(archives, rows_of), save)


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
    with atomic_write(path) as unfinished:
        np.savez_compressed(unfinished, **arrays)  # type: ignore[arg-type]


def save_minari(folder: Path, archives: Sequence[Path], spec: EnvSpec, algorithm: str) -> None:
    """Write a Minari data set of episodes atomically.

    ``minari.load_dataset(NAME)`` reads it with ``MINARI_DATASETS_PATH=PARENT``. Frames are stored losslessly.

    Args:
        folder: a new one; its name is that of the data set.
        archives: the episodes, written by :func:`save_npz`.
        spec: of the environment, which Minari can recover from the data set.
        algorithm: name of the policy.

    Raises:
        ImportError: if Minari is not installed.
    """
    create = _minari().create_dataset_from_buffers
    folder = folder.absolute()  # Minari joins a relative path with itself
    first, *others = map(_buffer, range(len(archives)), archives)
    with atomic_folder(folder) as unfinished, _environment(_DATASETS_PATH, str(unfinished.parent)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is set to None")  # author and code link, which are unknown here
            data = create(
                folder.name,
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
