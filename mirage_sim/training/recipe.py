"""``mirage train recipe=mini``: train the mini world from recorded walks to weights within a time budget.

The parts of a run are record -> codec -> depth -> denoiser -> finish. After each training stage, validation scores
choose among the stage's initial weights, its last weights and their average. ``recipe.json`` holds the progress: a run
that was killed resumes when it is started again with the same settings.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mirage_sim.data.clips import Clip, load_clip
from mirage_sim.data.dataset import WalkDataset, load_photographs
from mirage_sim.data.record import record
from mirage_sim.models import MiniCodec, MiniDenoiser, MiniDepth, load_model, save_model
from mirage_sim.models.checkpoints import usable_device
from mirage_sim.settings import RecipeSettings, StageSettings
from mirage_sim.settings.training import SourceSettings
from mirage_sim.training.loop import Trainer, make_accelerator
from mirage_sim.training.mini_stages import Networks, build_objective, load_network
from mirage_sim.training.recipe_state import RecipeState
from mirage_sim.training.validation import STEPS, Scores, stage_scores, world_scores

logger = logging.getLogger(__name__)

KINDS: dict[str, type[nn.Module]] = {"codec": MiniCodec, "denoiser": MiniDenoiser, "depth": MiniDepth}
# stages, and the networks that they train
TRAINED: dict[str, tuple[str, ...]] = {"codec": ("codec", "denoiser"), "depth": ("depth",), "denoiser": ("denoiser",)}
PARTS = ("record", *TRAINED, "finish")  # parts of a run, which share its time
# settings that must not change when a run is resumed
SETTINGS = ("recipe", "clips", "validation", "photographs", "from", "budget", "seed")
MIN_SECONDS = 1.0  # per part
WALKS_AT_ONCE = 20  # walks to record between checks of the time
UNITS = {"s": 1, "m": 60, "h": 3600}

Weights = dict[str, Path]
Evaluate = Callable[[dict[str, Any], Path], dict[str, Any]]


def seconds_of(budget: Any) -> float:
    """Convert a budget such as ``"90s"``, ``"8m"`` or ``"2h"`` to seconds.

    Raises:
        ValueError: if it has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(budget))
    if not match or not float(match[1]):
        raise ValueError(f"budget: expected a time such as 90s, 8m or 2h, got {budget!r}")
    return float(match[1]) * UNITS[match[2]]


def train_recipe(settings: RecipeSettings, evaluate: Evaluate | None = None, commit: str = "") -> dict[str, Any]:
    """Train the mini world, or resume its training.

    Args:
        settings: of ``mirage train recipe=mini``.
        evaluate: function that runs the quick protocols on a world's configuration, writes results to a folder and
            returns scores; None skips them.
        commit: commit of the code, stored with the results.

    Returns:
        ``output``, the ``chosen`` weights of each stage, and ``validation`` scores.

    Raises:
        ImportError: if accelerate is missing, or a simulator that must record walks.
        ValueError: if settings are unusable or the output folder belongs to another run. Nothing was written then.
    """
    return _Run(settings, commit).run(evaluate)


class _Run:
    """A run of the recipe."""

    def __init__(self, settings: RecipeSettings, commit: str):
        self.settings, self.output = settings, Path(settings.output)
        self.budget, self.shares = seconds_of(settings.budget), vars(settings.recipe.shares)
        self.device = usable_device(settings.device)
        self._check()
        size, photographs = tuple(settings.world["size"]), settings.photographs
        self.photographs = None if photographs is None else load_photographs(Path(photographs), size)
        missing = [name for name, path in self._start.items() if not path.exists()]
        torch.manual_seed(settings.seed)
        initial = _initial_networks(settings.start) if missing else None
        plain = settings.plain()
        kept = {key: plain[key] for key in SETTINGS}
        for source in kept["clips"].values():
            del source["workers"]  # the number of processes changes no result
        self.state = RecipeState(self.output, kept, {"commit": commit, "torch": torch.__version__})
        for name in missing:
            save_model(getattr(initial, name), self._start[name])

    def _check(self) -> None:
        """Check the settings before anything is written."""
        world, shares, validation = self.settings.world, self.shares, self.settings.validation
        if world["denoiser"]["_target_"] != "mirage_sim.models.load_model":
            raise ValueError("world: expected mini, which recipe=mini trains, got another one")
        total = sum(shares.values())
        for part, share in shares.items():
            if self.budget * share / total < MIN_SECONDS:
                raise ValueError(
                    f"budget: expected at least {MIN_SECONDS * total / share:.0f}s, so that {part} gets "
                    f"{MIN_SECONDS:.0f} s, got {self.settings.budget}"
                )
        for name, source in self.settings.clips.items():
            wanted = {Path(source.folder): source.walks, _validation_folder(source): validation.walks}
            for folder, walks in wanted.items():
                if not walks and not list(folder.glob("*.safetensors")):
                    raise ValueError(f"clips.{name}: expected clips in {folder}, or a number of walks to record")
        make_accelerator(cpu=self.device.type == "cpu")  # fails early if accelerate is missing

    @property
    def _start(self) -> Weights:
        return {name: self.output / "start" / f"{name}.safetensors" for name in KINDS}

    def run(self, evaluate: Evaluate | None) -> dict[str, Any]:
        """Run the parts that are not done yet."""
        if not self.state.part("record").get("done"):
            self._record()
        left = [name for name in TRAINED if not self.state.part(name).get("done")]
        if left:
            self._check_walks()
        for name in left:
            self._train(name)
        if not self.state.part("finish").get("done"):
            self._finish(evaluate)
        content = self.state.content
        chosen = {name: content["parts"][name]["chosen"] for name in TRAINED}
        return {"output": str(self.output), "chosen": chosen, "validation": content["parts"]["finish"]["validation"]}

    def _limit(self, name: str) -> float:
        """Seconds that a part may take: its share of the remaining time, fixed when the part begins."""
        part = self.state.part(name)
        if "limit" not in part:
            later = PARTS[PARTS.index(name) :]
            left = self.budget - self.state.spent
            limit = left * self.shares[name] / sum(self.shares[part] for part in later)
            self.state.update(name, limit=round(max(limit, MIN_SECONDS), 1))
        return float(self.state.part(name)["limit"])

    def _record(self) -> None:
        """Record missing walks: all validation walks first, then training walks until the time is up."""
        limit, validation = self._limit("record"), self.settings.validation
        before, started = self.state.part("record").get("seconds", 0.0), time.monotonic()
        total = sum(source.weight for source in self.settings.clips.values())
        counts, until = {}, 0.0
        for source in self.settings.clips.values():
            _record_walks(source, validation.walks, validation.first_seed, _validation_folder(source))
        for name, source in self.settings.clips.items():
            until += limit * source.weight / total
            for count in range(WALKS_AT_ONCE, source.walks + WALKS_AT_ONCE, WALKS_AT_ONCE):
                _record_walks(source, min(count, source.walks), source.first_seed, Path(source.folder))
                seconds = before + time.monotonic() - started
                self.state.update("record", seconds=round(seconds, 1))
                if seconds > until:
                    break
            counts[name] = len(list(Path(source.folder).glob("*.safetensors")))
        logger.info("walks to train on: %s", counts)
        self.state.update("record", seconds=round(before + time.monotonic() - started, 1), walks=counts, done=True)

    @cached_property
    def _data(self) -> WalkDataset:
        folders = {Path(source.folder): float(source.weight) for source in self.settings.clips.values()}
        return WalkDataset(folders, self.device)

    @cached_property
    def _validation(self) -> WalkDataset:
        sources = self.settings.clips.values()
        return WalkDataset({_validation_folder(source): 1.0 for source in sources}, self.device)

    @cached_property
    def _validation_clips(self) -> list[Clip]:
        folders = [_validation_folder(source) for source in self.settings.clips.values()]
        return [load_clip(path) for folder in folders for path in sorted(folder.glob("*.safetensors"))]

    def _check_walks(self) -> None:
        size, wanted = self._data.size, tuple(self.settings.world["size"])
        if size != wanted or self._validation.size != wanted:
            raise ValueError(f"clips: expected frames of the world's size {wanted}, got {size}")
        if self._validation.length <= max(STEPS):
            raise ValueError(
                f"clips: expected more than {max(STEPS)} frames in walks for validation, got {self._validation.length}"
            )

    def _weights(self) -> Weights:
        """Paths of the weights that the finished stages have chosen."""
        weights = dict(self._start)
        for name, files in TRAINED.items():
            chosen = self.state.part(name).get("chosen", "start")
            if chosen != "start":
                weights |= {file: self.output / name / chosen / f"{file}.safetensors" for file in files}
        return weights

    def _train(self, name: str) -> None:
        """Run a training stage, or the rest of it, and choose its weights."""
        started, limit, folder = time.monotonic(), self._limit(name), self.output / name
        stage: StageSettings = getattr(self.settings.recipe, name)
        options = stage.options
        weights, photographs = self._weights(), {}
        networks = _load(weights).to(self.device)
        if name == "codec" and self.photographs is not None:
            photographs = {"photographs": self.photographs}
        modules, objective = build_objective(name, self._data, networks, options | photographs)
        trainer = Trainer(
            modules,
            folder,
            seconds=limit,
            started=started,
            learning_rate=stage.learning_rate,
            seed=self.settings.seed,
            accelerator=make_accelerator(folder, cpu=self.device.type == "cpu"),
            generator_device=self.device,
        )
        trainer.run(objective, save_every=self.settings.save_every)
        ended = time.monotonic()
        candidates = {"start": weights}
        for candidate in ("raw", "average"):
            if candidate == "average":
                trainer.use_ema()
            files = {file: folder / candidate / f"{file}.safetensors" for file in TRAINED[name]}
            for file, path in files.items():
                save_model(getattr(networks, file), path)
            candidates[candidate] = weights | files
        scores = {candidate: self._score(name, paths, options) for candidate, paths in candidates.items()}
        chosen = max(scores, key=lambda candidate: scores[candidate]["score"])
        logger.info("%s: %d steps; chosen: %s of %s", name, trainer.step, chosen, scores)
        seconds = trainer.spent + time.monotonic() - ended
        done = {
            "steps": trainer.step,
            "last": _last_line(folder / "log.jsonl"),
            "scores": scores,
            "chosen": chosen,
            "done": True,
        }
        self.state.update(name, seconds=round(seconds, 1), **done)

    def _score(self, name: str, weights: Weights, options: Mapping[str, Any]) -> Scores:
        if name == "denoiser":
            return world_scores(self.settings.world, weights, self._validation_clips)
        return stage_scores(name, self._validation, _load(weights), options)

    def _finish(self, evaluate: Evaluate | None) -> None:
        """Compare the result with the initial weights, write it, and run the quick protocols on it."""
        started, weights = time.monotonic(), self._weights()
        world, parts = self.settings.world, self.state.content["parts"]
        validation = {"result": parts["denoiser"]["scores"][parts["denoiser"]["chosen"]]}
        if self.settings.start is not None:
            validation["start"] = world_scores(world, self._start, self._validation_clips)
            worse = validation["result"]["score"] < validation["start"]["score"]
            self.state.update("finish", worse_than_start=worse)
            if worse:
                logger.warning("the trained weights score lower than the initial ones: %s", validation)
        files = {name: self.output / f"{name}.safetensors" for name in weights}
        for name, path in weights.items():
            save_model(load_model(path.absolute()), files[name])
        scores = {}
        if evaluate is not None and self.settings.recipe.protocols:
            paths = {name: {**world[name], "path": str(path.absolute())} for name, path in files.items()}
            scores = evaluate({**world, **paths}, self.output / "protocols")
        seconds = round(time.monotonic() - started, 1)
        self.state.update("finish", seconds=seconds, validation=validation, protocols=scores, done=True)


def _last_line(log: Path) -> dict[str, float]:
    """Read the last line of a stage's log; empty if the stage made too few steps to log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return dict(json.loads(lines[-1])) if lines else {}


def _validation_folder(source: SourceSettings) -> Path:
    return Path(source.folder) / "validation"


def _record_walks(source: SourceSettings, walks: int, first_seed: int, folder: Path) -> None:
    """Record the missing walks of one source."""
    if walks:
        record(folder, walks, source.frames, first_seed, source.simulator, source.robot_share, source.workers)


def _initial_networks(folder: str | None) -> Networks:
    """Load the networks of a folder, or make untrained ones."""
    if folder is None:
        return Networks(MiniCodec(), MiniDenoiser(), MiniDepth())
    return _load({name: Path(folder) / f"{name}.safetensors" for name in KINDS})


def _load(weights: Weights) -> Networks:
    networks: dict[str, Any] = {name: load_network(path, KINDS[name]) for name, path in weights.items()}
    return Networks(**networks)
