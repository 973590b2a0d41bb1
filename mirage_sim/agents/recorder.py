"""What makes episodes and leaves them in a folder, each once, however often it is started, stopped or killed."""

import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import mirage_sim
from mirage_sim.agents.episodes import Episode, EpisodeMaker, scores_of
from mirage_sim.agents.formats import (
    DATASET_ID,
    EpisodeWriter,
    check_minari,
    episode_name,
    save_minari,
    save_npz,
)
from mirage_sim.agents.visualize import save_pictures
from mirage_sim.build import instantiate
from mirage_sim.io import remove_partial, save_json

NOTES = ".rollout"  # a folder: the settings, and the figures of each episode
_NOT_SETTINGS = ("backend", "num_workers", "address", "output")  # do not change what an episode is


class Format(Protocol):
    """How episodes are kept in a folder."""

    def has(self, number: int) -> bool:
        """Whether an episode is there."""

    def write(self, number: int, episode: Episode) -> None:
        """Keep an episode, which appears whole or not at all."""

    def finish(self, episodes: int) -> None:
        """Do what is left when all are there."""


class Pictures:
    """``format=mp4``: of one episode, made anew each time."""

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
    """``format=npz``: a file for each."""

    def __init__(self, folder: Path):
        self._folder = folder

    def path(self, number: int) -> Path:
        """Where an episode is."""
        return self._folder / f"{episode_name(number)}.npz"

    def has(self, number: int) -> bool:
        """See :class:`Format`."""
        return self.path(number).exists()

    def write(self, number: int, episode: Episode) -> None:
        """See :class:`Format`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        save_npz(self.path(number), episode.arrays())

    def finish(self, episodes: int) -> None:
        """See :class:`Format`."""


class Minari:
    """``format=minari``: one data set, made of archives when all are there."""

    def __init__(self, folder: Path, maker: EpisodeMaker, algorithm: str):
        check_minari()
        self._folder, self._maker, self._algorithm = folder, maker, algorithm
        self._parts = folder / NOTES / "archives"
        self._archives = Archives(self._parts)

    def has(self, number: int) -> bool:
        """See :class:`Format`."""
        return (self._folder / DATASET_ID).exists() or self._archives.has(number)

    def write(self, number: int, episode: Episode) -> None:
        """See :class:`Format`."""
        self._archives.write(number, episode)

    def finish(self, episodes: int) -> None:
        """See :class:`Format`."""
        if not (self._folder / DATASET_ID).exists():
            parts = [self._archives.path(number) for number in range(episodes)]
            save_minari(self._folder, parts, self._maker.specification, self._algorithm)
        shutil.rmtree(self._parts, ignore_errors=True)


class Bags:
    """``format=mcap``: a rosbag2 folder for each."""

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


class Recorder:
    """Makes the episodes of a roll-out and keeps them in its folder.

    The workers of one roll-out may work in one folder, on one machine or on several that share it: an episode is the
    same whoever makes it, appears whole or not at all, and is never written over. :func:`~mirage_sim.agents.rollout`
    keeps other roll-outs out.

    Args:
        cfg: as ``configs/rollout.yaml`` composes it.

    Raises:
        ValueError: for an unusable walk, policy or writer of bags.
        FileNotFoundError: for walks and policies that do not exist.
        ImportError: if what the format or a learned policy needs is not installed.
    """

    def __init__(self, cfg: dict[str, Any]):
        self._folder = Path(cfg["output"])
        self._maker = EpisodeMaker(cfg)
        self._format = self._format_of(cfg)
        settings = {name: value for name, value in cfg.items() if name not in _NOT_SETTINGS}
        self._settings = json.loads(json.dumps(settings | {"mirage_sim": mirage_sim.__version__}))

    def _format_of(self, cfg: dict[str, Any]) -> Format:
        match cfg["format"]:
            case "npz":
                return Archives(self._folder)
            case "minari":
                return Minari(self._folder, self._maker, cfg["policy"])
            case "mcap":
                return Bags(self._folder, self._maker, instantiate(cfg["bag"]))
        return Pictures(self._folder)

    def has(self, number: int) -> bool:
        """Whether an episode is in the folder."""
        return self._format.has(number)

    def check_settings(self) -> None:
        """Check that the episodes in the folder were made with these settings.

        Raises:
            ValueError: naming what differs.
        """
        path = self._folder / NOTES / "settings.json"
        theirs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        names = sorted({*theirs, *self._settings})
        if differ := [name for name in names if theirs.get(name) != self._settings.get(name)]:
            raise ValueError(
                f"output: expected a folder without episodes, or with some of the same settings, got {self._folder}, "
                f"whose {', '.join(differ) if theirs else 'settings'} differ; delete it or choose another"
            )

    def record(self, numbers: list[int]) -> int:
        """Make some episodes as one batch, and keep those that are not in the folder yet.

        Returns:
            How many that were.
        """
        missing = [number for number in numbers if not self.has(number)]
        if not missing:
            return 0
        episodes = dict(zip(numbers, self._maker.make(numbers), strict=True))
        notes = self._folder / NOTES
        notes.mkdir(parents=True, exist_ok=True)
        save_json(notes / "settings.json", self._settings)
        for number in missing:
            # the figures come first: an episode that is there has them
            save_json(notes / f"{episode_name(number)}.json", scores_of(episodes[number]))
            self._format.write(number, episodes[number])
        return len(missing)

    def finish(self, episodes: int) -> list[dict[str, Any]]:
        """Do what is left when all episodes are there.

        Returns:
            The figures of each.

        Raises:
            FileNotFoundError: if one is not there, because it was made where the folder is another.
        """
        figures = [self._folder / NOTES / f"{episode_name(number)}.json" for number in range(episodes)]
        if lacking := [path for path in figures if not path.exists()]:
            raise FileNotFoundError(f"output: expected a folder that all workers see, got one without {lacking[0]}")
        self._format.finish(episodes)
        for pattern in ("episode_*", DATASET_ID):
            remove_partial(self._folder, pattern)
        remove_partial(self._folder / NOTES, "*")
        return [json.loads(path.read_text(encoding="utf-8")) for path in figures]
