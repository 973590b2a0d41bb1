"""The ``mirage`` command. Everything it does is a function call that a program can make as well."""

import argparse
import contextlib
import importlib
import json
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import mirage_sim
from mirage_sim.build import compose, find_command
from mirage_sim.evaluation.doctor import commit, cpu
from mirage_sim.io import check_folder
from mirage_sim.paths import CONFIGS
from mirage_sim.settings import (
    BENCHMARKS,
    COMMANDS,
    CollisionSettings,
    CompareSettings,
    RecipeSettings,
    RecordSettings,
    ReportSettings,
    Settings,
)
from mirage_sim.settings.fields import groups, rows

Result = dict[str, Any]
WIDTH = 100  # columns of --help

SUMMARIES = {  # of the commands that have variants
    "prepare": "Prepare training data: clips of videos, crops of photographs, furniture.",
    "recording": "Read recordings of places and turn them into worlds.",
    "eval": "Evaluate generated worlds against ground truth.",
    "bench": "Measure speed, exactness and learning.",
    "download": "Download the public weights of a world.",
}


def _train_recipe(settings: RecipeSettings) -> Result:
    from mirage_sim.training.recipe import train_recipe

    return train_recipe(settings, _quick_protocols, commit())


def _quick_protocols(world: dict[str, Any], output: Path) -> Result:
    """Return metrics of the quick fidelity and collision protocols, with the latent memory alone."""
    settings = {"world": world, "walks": "quick", "variants": ["latent_memory"], "output": str(output)}
    return {name: _evaluate(name, settings)["marks"] for name in ("fidelity", "collision")}


def _evaluate(name: str, values: dict[str, Any]) -> Result:
    from mirage_sim.evaluation import collision, photos, runner

    if name in ("collision", "photos"):
        return {"collision": collision, "photos": photos}[name].evaluate(values)
    return runner.evaluate(name, values)


def _collision(settings: CollisionSettings) -> Result:
    from mirage_sim.evaluation import place_collision

    if settings.recording is not None:
        return place_collision.evaluate(settings)
    return _evaluate("collision", {name: value for name, value in vars(settings).items() if name != "recording"})


def _record(settings: RecordSettings) -> Result:
    from mirage_sim.data.record import record

    return {"recorded": record(**vars(settings) | {"output": Path(settings.output)}), "output": settings.output}


def _compare(settings: CompareSettings) -> Result:
    from mirage_sim.evaluation.summary import compare

    return compare(Path(settings.first), Path(settings.second))


def _report(settings: ReportSettings) -> Result:
    from mirage_sim.evaluation.report import report

    return report(Path(settings.folder))


def _benchmark(name: str) -> Callable[[Settings], Result]:
    return lambda settings: _run_benchmark(name, settings)


def _run_benchmark(name: str, settings: Settings) -> Result:
    """Run a benchmark of the source checkout: the one that holds this package, or the current folder."""
    roots = (Path(mirage_sim.__file__).resolve().parent.parent, Path.cwd())
    root = next((root for root in roots if (root / "benchmarks" / "runner.py").is_file()), None)
    if root is None:
        raise ImportError(
            "mirage bench: expected a source checkout, which has the folder benchmarks, got an installed package "
            f"without it in {roots[0]}; run the command in the root of a checkout"
        )
    sys.path.insert(0, str(root))  # processes that a benchmark starts inherit it
    try:
        result: Result = importlib.import_module("benchmarks.runner").run(name, settings)
        return result
    finally:
        sys.path.remove(str(root))


def _evaluation(name: str) -> Callable[[Settings], Result]:
    return lambda settings: _evaluate(name, dict(vars(settings)))


#: the function of every command, which takes its settings: ``module:name``, or one of this module
RUN: dict[str, str | Callable[[Any], Result]] = {
    "rollout": "mirage_sim.agents.rollout:rollout",
    "plan": "mirage_sim.agents.plan_goals:plan_goals",
    "train": "mirage_sim.training.train:train",
    "train recipe": _train_recipe,
    "record": _record,
    "prepare vipe": "mirage_sim.data.prepare:prepare",
    "prepare realestate10k": "mirage_sim.data.prepare:prepare",
    "prepare clips": "mirage_sim.data.prepare:prepare",
    "prepare lerobot": "mirage_sim.data.prepare:prepare",
    "prepare photographs": "mirage_sim.data.photographs:prepare_photographs",
    "prepare furniture": "mirage_sim.data.simulators.homes.furniture.prepare:prepare_furniture",
    "recording info": "mirage_sim.evaluation.recordings:describe_recording",
    "recording import": "mirage_sim.evaluation.recordings:import_recording",
    "recording export": "mirage_sim.evaluation.recordings:export_world",
    "doctor": "mirage_sim.evaluation.doctor:doctor",
    "download wan5b": "mirage_sim.models.wan.download:download",
    **{f"eval {name}": _evaluation(name) for name in ("fidelity", "revisit", "photos")},
    "eval collision": _collision,
    "eval recording": "mirage_sim.evaluation.place:evaluate",
    "eval counterfactual": "mirage_sim.evaluation.counterfactual:evaluate",
    "eval calibration": "mirage_sim.evaluation.calibration:evaluate",
    "eval compare": _compare,
    "eval report": _report,
    **{f"bench {name}": _benchmark(name) for name in BENCHMARKS},
}


def run_command(name: str, settings: Settings) -> Result:
    """Run a command with its settings and return its result."""
    function = RUN[name]
    if isinstance(function, str):
        module, _, attribute = function.partition(":")
        function = getattr(importlib.import_module(module), attribute)
    return function(settings)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mirage: error: {message} (see mirage --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mirage", add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="version", version=f"mirage_sim {mirage_sim.__version__}")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("words", nargs="*")
    return parser


def help_text(words: Sequence[str] = ()) -> str:
    """Return the help of the program, of a command, or of a command with its variant.

    Raises:
        ValueError: if there is no such command.
    """
    if not words:
        return "\n".join(_overview())
    command = words[0]
    variants = [name for name in COMMANDS if name.startswith(f"{command} ")]
    if variants and len(words) == 1 and command not in COMMANDS:
        lines = [f"usage: mirage {command} VARIANT [key=value ...] [--json]", "", SUMMARIES[command], ""]
        lines += [f"variants (mirage {command} VARIANT --help lists the settings):", *_table(variants)]
        return "\n".join(lines)
    name, _ = find_command(command, words[1:])
    return "\n".join(_command_help(name, variants if name == command else []))


def _overview() -> Iterator[str]:
    yield "usage: mirage COMMAND [VARIANT] [key=value ...] [--json]"
    yield from ("", "A world model with a latent spatial memory that you can step.", "", "commands:")
    for command in dict.fromkeys(name.partition(" ")[0] for name in COMMANDS):
        variants = [name for name in COMMANDS if name.startswith(f"{command} ")]
        settings = COMMANDS.get(command) or COMMANDS[variants[0]]
        yield f"  {command:<9} {SUMMARIES.get(command) or _summary(settings)}"
        yield f"  {'':<9} {settings.example}"
    yield from ("", "options:")
    yield "  --help     with a command: its variants and settings"
    yield "  --json     print one JSON object on stdout and nothing else"
    yield "  --version  print the version"
    yield ""
    yield from textwrap.wrap(
        f"Settings have hydra's override syntax. world={_choices('world')} and memory={_choices('memory')} choose a "
        "configuration, world.sampler.steps=4 changes a value of it. Paths, prompts and other texts are taken "
        f"literally. Configurations: {CONFIGS.resolve()}",
        WIDTH,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _command_help(name: str, variants: Sequence[str]) -> Iterator[str]:
    settings = COMMANDS[name]
    words = " ".join([*map(str.upper, settings.positional), "[key=value ...]"])
    yield from (f"usage: mirage {name} {words} [--json]", "")
    yield from (settings.__doc__ or "").replace("`", "").replace("\n    ", "\n").strip().splitlines()
    yield from ("", f"  {settings.example}", "")
    if variants:
        yield from (f"variants (mirage {name} VARIANT --help lists the settings):", *_table(variants), "")
    yield "settings:"
    for row in rows(settings):
        yield f"  {row.name}={row.default}  ({row.expected})"
        yield from _indented(row.help)
    chosen = [(field, field.metadata["group"]) for field in groups(settings)]
    chosen += [(field, field.metadata["presets"]) for field in fields(settings) if "presets" in field.metadata]
    for field, default in chosen:
        yield f"  {field.name}={default}  (one of {_choices(field.name) or '|'.join(field.metadata['options'])})"
        yield from _indented(field.metadata["help"])
        options = field.metadata.get("options")
        yield from _options(field.name, options) if options else _files(field.name)
    if chosen:
        text = f"The values of these configurations are in {CONFIGS.resolve()}; NAME.KEY=VALUE changes one."
        yield from ("", *textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False))


def _table(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield f"  {name.partition(' ')[2]}"
        yield from (*_indented(_summary(COMMANDS[name])), f"      {COMMANDS[name].example}")


def _options(group: str, options: Mapping[str, type[Settings]]) -> Iterator[str]:
    """Describe the options of a group that are settings classes."""
    for option, settings in options.items():
        yield f"        {option}: {_summary(settings)}"
        for row in rows(settings, f"{group}."):
            yield f"          {row.name}={row.default}  ({row.expected})"
            yield from (f"        {line}" for line in _indented(row.help))


def _files(group: str) -> Iterator[str]:
    """Describe the options of a group that are YAML files by their first comment."""
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = next(line for line in lines if line.startswith("# ") and "@package" not in line)
        yield from (f"  {line}" for line in _indented(f"{path.stem}: {comment[2:]}"))


def _indented(text: str) -> list[str]:
    indent = " " * 6
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _summary(settings: type[Settings]) -> str:
    return (settings.__doc__ or "").partition("\n\n")[0].replace("`", "")


def _choices(group: str) -> str:
    return "|".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))


def _run(words: Sequence[str], as_json: bool) -> str:
    """Run the command in these words and return the text for stdout."""
    name, _ = find_command(words[0], words[1:])
    settings = compose(words[0], words[1:])
    for field in settings.folders:  # before the work, whose result would be lost
        if field not in settings.positional and (folder := getattr(settings, field, None)) is not None:
            check_folder(field, folder)
    with contextlib.redirect_stdout(sys.stderr):  # libraries may print; stdout is for the result
        result = run_command(name, settings)
    if as_json:
        return json.dumps({"cpu": cpu(), "commit": commit(), **result})
    if "table" in result:
        return str(result["table"])
    if "marks" not in result:
        return "\n".join(f"{key}: {value}" for key, value in result.items())
    return "\n".join(_lines(result["marks"]))


def _lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return one line per metric, with its interval after its mean."""
    lines = []
    for key, value in metrics.items():
        mean = key.removesuffix("_lo").removesuffix("_hi")
        if mean != key and mean in metrics:
            continue
        interval = f"({metrics[f'{key}_lo']} to {metrics[f'{key}_hi']})" if f"{key}_lo" in metrics else ""
        lines.append(f"{key:<32} {value} {interval}".rstrip())
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 after one line on stderr about bad input."""
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        if arguments.help:
            output = help_text(arguments.words)
        elif not arguments.words:
            parser.error("expected a command")
        else:
            output = _run(arguments.words, arguments.json)
    except (ValueError, OSError, ImportError) as error:
        print(f"mirage: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mirage: interrupted", file=sys.stderr)
        return 130
    if output:
        print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
