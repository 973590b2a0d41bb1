"""Generates episodes and saves each once in a folder, however often the rollout is started, stopped or killed."""

import json
from pathlib import Path
from typing import Any

import mirage_sim
from mirage_sim.agents.episodes import EpisodeMaker, scores_of
from mirage_sim.agents.formats import (
    DATASET_ID,
    Archives,
    Bags,
    Format,
    Video,
    episode_name,
    lerobot_data_set,
    minari_data_set,
)
from mirage_sim.build import instantiate
from mirage_sim.io import remove_partial, save_json
from mirage_sim.settings import RolloutSettings

NOTES = ".rollout"  # subfolder with the settings, and the metrics of each episode
_NOT_COMPARED = ("backend", "output")  # settings that do not change an episode


class Recorder:
    """Generates the episodes of a rollout and saves them in its folder.

    The workers of one rollout can share a folder, on one machine or on several: an episode is the same whichever worker
    generates it, appears atomically, and is never overwritten. :func:`mirage_sim.agents.rollout.rollout` locks the
    folder against other rollouts.

    Args:
        settings: of the rollout.

    Raises:
        ValueError: for an unusable walk, policy or bag writer.
        FileNotFoundError: for walks and policies that do not exist.
        ImportError: if a library for the format or the policy is not installed.
    """

    def __init__(self, settings: RolloutSettings):
        self._folder = Path(settings.output)
        self._maker = EpisodeMaker(settings)
        self._format = self._open_format(settings)
        compared = {name: value for name, value in settings.plain().items() if name not in _NOT_COMPARED}
        self._settings = json.loads(json.dumps(compared | {"mirage_sim": mirage_sim.__version__}))

    def _open_format(self, settings: RolloutSettings) -> Format:
        archives = self._folder / NOTES / "archives"
        match settings.format:
            case "npz":
                return Archives(self._folder)
            case "minari":
                return minari_data_set(self._folder, archives, self._maker, settings.policy)
            case "lerobot":
                return lerobot_data_set(self._folder, archives, self._maker, settings.video)
            case "mcap":
                return Bags(self._folder, self._maker, instantiate(settings.bag))
        return Video(self._folder)

    def has(self, number: int) -> bool:
        """Return whether an episode is saved."""
        return self._format.has(number)

    def check_settings(self) -> None:
        """Check that the saved episodes were made with these settings.

        Raises:
            ValueError: naming the settings that differ.
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
        """Generate episodes as one batch and save those that are not saved yet.

        Returns:
            The number of episodes saved.
        """
        missing = [number for number in numbers if not self.has(number)]
        if not missing:
            return 0
        episodes = dict(zip(numbers, self._maker.make(numbers), strict=True))
        notes = self._folder / NOTES
        notes.mkdir(parents=True, exist_ok=True)
        save_json(notes / "settings.json", self._settings)
        for number in missing:
            # metrics are saved before the episode, whose existence says that both are there
            save_json(notes / f"{episode_name(number)}.json", scores_of(episodes[number]))
            self._format.write(number, episodes[number])
        return len(missing)

    def finish(self, episodes: int) -> list[dict[str, Any]]:
        """Complete the format after all episodes are saved.

        Returns:
            The metrics of each episode.

        Raises:
            FileNotFoundError: if an episode is missing, because a worker saw another folder.
        """
        paths = [self._folder / NOTES / f"{episode_name(number)}.json" for number in range(episodes)]
        if missing := [path for path in paths if not path.exists()]:
            raise FileNotFoundError(f"output: expected a folder that all workers see, got one without {missing[0]}")
        self._format.finish(episodes)
        for pattern in ("episode_*", DATASET_ID):
            remove_partial(self._folder, pattern)
        remove_partial(self._folder / NOTES, "*")
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
