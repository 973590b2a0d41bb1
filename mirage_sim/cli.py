"""The ``mirage`` command. Everything it does is a function call that a program can make as well."""

import argparse
import contextlib
import importlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import mirage_sim
from mirage_sim.build import CONFIGS, compose
from mirage_sim.evaluation.provenance import commit, cpu
from mirage_sim.io import check_folder

Config = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A subcommand: what it is for, how it is called, what it does, and the variants that it offers.

    A variant in ``files`` takes these files or folders instead of settings.
    """

    help: str
    example: str
    run: Callable[[str, Config], Config]
    variants: tuple[str, ...] = ()
    group: str = ""  # of configs, or several, separated by spaces; shown by --help
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class _Parser(argparse.ArgumentParser):
    """Errors take one line, as all of ours do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mirage: error: {message} (see {self.prog} --help)\n")


def _rollout(_: str, config: Config) -> Config:
    from mirage_sim.agents.rollout import rollout

    return rollout(config)


def _train(_: str, config: Config) -> Config:
    if "recipe" in config:
        from mirage_sim.training.recipe import train_recipe

        return train_recipe(config, _quick_protocols, commit())
    from mirage_sim.training import train

    train(config)
    return {"output": config["output"]}


def _quick_protocols(world: Config, output: Path) -> Config:
    """Metrics of the quick fidelity and collision protocols, with the latent memory alone."""
    from mirage_sim.evaluation import collision, fidelity

    settings = {"world": world, "walks": "quick", "variants": ["latent_memory"], "output": str(output)}
    return {part.__name__.rpartition(".")[2]: part.evaluate(settings)["marks"] for part in (fidelity, collision)}


def _record(_: str, config: Config) -> Config:
    from mirage_sim.data.record import record

    return {"recorded": record(**config | {"output": Path(config["output"])}), "output": config["output"]}


def _prepare(variant: str, config: Config) -> Config:
    if variant == "photographs":
        from mirage_sim.data.photographs import prepare_photographs

        return prepare_photographs(config) | {"output": config["output"]}
    if variant == "furniture":
        from mirage_sim.data.simulators.homes.furniture_prepare import prepare_furniture

        return prepare_furniture(config["source"])
    from mirage_sim.data.prepare import prepare

    return prepare(config) | {"output": config["output"]}


def _eval(variant: str, config: Config) -> Config:
    if variant == "compare":
        from mirage_sim.evaluation.compare import compare

        return compare(Path(config["a.json"]), Path(config["b.json"]))
    if variant == "report":
        from mirage_sim.evaluation.report import report

        return report(Path(config["folder"]))
    if variant == "collision":
        from mirage_sim.evaluation.collision import evaluate
    elif variant == "revisit":
        from mirage_sim.evaluation.revisit import evaluate
    elif variant == "photos":
        from mirage_sim.evaluation.photos import evaluate
    else:
        from mirage_sim.evaluation.fidelity import evaluate
    return evaluate(config)


def _bench(variant: str, config: Config) -> Config:
    bench: Callable[[Config], Config] = getattr(importlib.import_module(BENCHMARKS[variant]), f"bench_{variant}")
    return bench(config)


def _doctor(_: str, config: Config) -> Config:
    from mirage_sim.evaluation.doctor import doctor

    return doctor(config)


def _download(_: str, config: Config) -> Config:
    from mirage_sim.models.wan.download import download

    return {"folder": str(download(**config))}


#: Last words of the names of settings that are text: files, folders, addresses, prompts.
TEXTS = frozenset(
    "image output source clips policy walk prompt cache folder path name branch lora latents wan5b "
    "address repository revision".split()
)

# where the function bench_NAME is
BENCHMARKS = {
    name: f"mirage_sim.evaluation.benchmarks.{name}"
    for name in (
        "step",
        "vector",
        "readout",
        "growth",
        "fork",
        "bytes",
        "retrieval",
        "conditioning",
        "learn",
        "backbone",
        "rollout",
        "simulators",
    )
} | {"ros": "mirage_sim.ros.benchmark", "all": "mirage_sim.evaluation.benchmarks.table"}

COMMANDS = {
    "rollout": Command(
        "walk an agent through a generated world: video, pictures, metrics",
        "mirage rollout world=mini steps=200 policy=scripted",
        _rollout,
    ),
    "train": Command(
        "train a stage of a world, or all of mini (recipe=mini); continues where it stopped",
        "mirage train recipe=mini budget=2h",
        _train,
        group="stage recipe",
    ),
    "record": Command(
        "record training walks in a reference simulator", "mirage record simulator=homes walks=1000", _record
    ),
    "prepare": Command(
        "make data to train on: clips of films, crops of photographs, furniture for homes",
        "mirage prepare vipe source=data/films output=data/clips",
        _prepare,
        ("vipe", "realestate10k", "clips", "photographs", "furniture"),
        group="prepare",
    ),
    "eval": Command(
        "measure the generated world against the true one",
        "mirage eval fidelity walks=quick --json",
        _eval,
        ("fidelity", "revisit", "collision", "photos", "compare", "report"),
        group="eval",
        files={"compare": ("a.json", "b.json"), "report": ("folder",)},
    ),
    "bench": Command(
        "measure speed, exactness and learning",
        "mirage bench step --json",
        _bench,
        tuple(BENCHMARKS),
        group="bench",
    ),
    "doctor": Command("tell what this machine has and lacks, and which worlds it can run", "mirage doctor", _doctor),
    "download": Command(
        "fetch the public weights of the real backbone",
        "mirage download wan5b folder=weights",
        _download,
        ("wan5b",),
        group="download",
    ),
}


def _choices(group: str) -> str:
    return "|".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<8} {command.help}\n           {command.example}" for name, command in COMMANDS.items()]
    parser = _Parser(
        prog="mirage",
        description="A world model with a latent spatial memory that you can step.",
        epilog="commands, with an example each:\n"
        + "\n".join(lines)
        + "\n\nSettings are given as key=value (hydra's override syntax): "
        f"`world={_choices('world')}` and\n`memory={_choices('memory')}` choose a configuration, "
        "`world.sampler.steps=4` changes a value.\nPaths, prompts and other texts are taken as they are."
        "\n`mirage COMMAND --help` lists the settings of a command; those of worlds, memories and so on are in"
        f"\n{CONFIGS.resolve()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="mirage COMMAND [VARIANT] [key=value ...] [--json]",
    )
    parser.add_argument("--version", action="version", version=f"mirage_sim {mirage_sim.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    for name, command in COMMANDS.items():
        groups = (sorted((CONFIGS / group).glob("*.yaml")) for group in command.group.split())
        files = [CONFIGS / f"{name}.yaml", *(file for group in groups for file in group)]
        sub = subparsers.add_parser(
            name,
            description=f"{command.help}\n\n  {command.example}",
            prog=f"mirage {name}",
            epilog="settings and their defaults:\n\n"
            + "\n".join(f"--- {path.relative_to(CONFIGS)}\n{path.read_text(encoding='utf-8')}" for path in files),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command.files:
            calls = "\n".join(
                f"  mirage {name} {variant} {' '.join(files)}" for variant, files in command.files.items()
            )
            sub.description = f"{sub.description}\n{calls}"
        if command.variants:
            sub.add_argument("variant", choices=command.variants, metavar="|".join(command.variants))
        sub.add_argument("--json", action="store_true", help="print one JSON object on stdout, nothing else")
        sub.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="settings, see below")
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """Do what was asked; returns what goes to stdout."""
    command = COMMANDS[arguments.command]
    variant = arguments.variant if command.variants else ""
    if variant in command.files:
        config = _files(f"{arguments.command} {variant}", command.files[variant], arguments.overrides)
    else:
        choice = [f"{arguments.command}={variant}"] if variant else []
        settings, texts = _taken_apart(arguments.overrides)
        config = compose(arguments.command, [*choice, *settings], texts)
        for name in ("output", "folder"):  # before any work, which would be lost
            if isinstance(folder := config.get(name), str):
                check_folder(name, folder)
    with contextlib.redirect_stdout(sys.stderr):  # libraries may print; stdout is for the result
        result = command.run(variant, config)
    if arguments.json:
        return json.dumps({"cpu": cpu(), "commit": commit(), **result})
    if "table" in result:
        return str(result["table"])
    if "marks" not in result:
        return "\n".join(f"{key}: {value}" for key, value in result.items())
    return "\n".join(_lines(result["marks"]))


def _taken_apart(overrides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Settings in hydra's syntax, and those that are text by their names (:data:`TEXTS`), which hydra must not parse.

    Text in quotes is left to hydra, and so is ``null``, which means none, and a number of a walk.

    Raises:
        ValueError: for ``null`` where a file has that name.
    """
    settings, texts = [], {}
    for override in overrides:
        key, equals, text = override.partition("=")
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        if (
            not equals
            or key.rpartition(".")[2] not in TEXTS
            or quoted
            or (key == "walk" and text.lstrip("-").isdecimal())
        ):
            settings.append(override)
        elif text == "null":
            if Path(text).exists():
                raise ValueError(f"{key}: expected ./null for the file of that name, got null, which means none")
            settings.append(override)
        else:
            texts[key] = text
    return settings, texts


def _files(call: str, names: Sequence[str], given: Sequence[str]) -> Config:
    if len(given) != len(names):
        raise ValueError(f"{call}: expected {' '.join(names)}, got {' '.join(given) or 'nothing'}")
    return dict(zip(names, given, strict=True))


def _lines(metrics: Mapping[str, Any]) -> list[str]:
    """One line per mark; an interval stands beside its mean."""
    lines = []
    for key, value in metrics.items():
        mean = key.removesuffix("_lo").removesuffix("_hi")
        if mean != key and mean in metrics:
            continue
        interval = f"({metrics[f'{key}_lo']} to {metrics[f'{key}_hi']})" if f"{key}_lo" in metrics else ""
        lines.append(f"{key:<32} {value} {interval}".rstrip())
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 after one line on stderr about bad input."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)  # argparse gives up on key=value after an option; we do not
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.overrides = [*arguments.overrides, *rest]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        output = _run(arguments)
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
