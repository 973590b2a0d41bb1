"""Trains the mini world on walks that this machine renders: ``mirage train recipe=mini`` with all the time left.

Every core renders walks through furnished homes and through MiniWorld, as far as their libraries and OpenGL are there.
Where nothing can be rendered, the package's own three walks show that training works, and how fast. The weights come
home, also those of a run that is stopped: of the stages that had ended by then.
"""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from report import Part

from mirage_sim.build import compose
from mirage_sim.data.record import record
from mirage_sim.evaluation.doctor import commit
from mirage_sim.paths import ASSETS
from mirage_sim.settings import RecipeSettings

SIMULATORS = ("homes", "miniworld")
FRAMES = 40  # per walk
BLOCK = 5  # walks that a process records between two checks of the time
MOST_WALKS = 100_000
VALIDATION, VALIDATION_SEED = 6, 700_000  # validation walks of each simulator
RENDERING = 0.25  # of the time of this part
PATIENCE = 90.0  # seconds after that to finish blocks in progress
RESERVE = 45.0  # seconds by which the recipe may exceed its budget, because it never interrupts validation
TOY = 20.0  # seconds of a rehearsed training, the least that the recipe takes
NETWORKS = ("codec", "depth", "denoiser")
SHIPPED = ASSETS / "mini" / "walks"


def main() -> None:
    """Render walks, train, and copy the weights to the output."""
    part = Part("train", __doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped before its end"))
    clips = render(part)
    output = part.work / "mini"
    seconds = min(part.seconds_left - RESERVE, TOY if part.toy else float("inf"))
    try:
        part.measure("training", partial(train, part, clips, output, seconds))
    finally:
        bring_home(part, output)
    part.end()


def render(part: Part) -> dict[str, Any]:
    """Record walks of all simulators that work on this machine, and return the recipe's settings for them."""
    each, block, validation = RENDERING * part.seconds_left / len(SIMULATORS), BLOCK, VALIDATION
    if part.toy:
        each, block, validation = 0.0, 1, 1
    sources = {}
    for simulator in SIMULATORS:
        folder = part.work / "clips" / simulator
        try:
            record_until(simulator, folder, each, block, validation)
        except Exception as error:  # a library, OpenGL or furniture is missing: this machine trains without it
            part.report.missing(simulator, f"{type(error).__name__}: {error}")
        else:
            sources[simulator] = source(folder)
            part.report.put(simulator, {"walks": len(list(folder.glob("*.safetensors")))})
    if not sources:
        folder = part.work / "clips" / "shipped"
        copy_shipped(folder)
        sources["shipped"] = source(folder)
        part.report.put("shipped", {"walks": len(list(folder.glob("*.safetensors")))})
    return {"clips": sources, "validation": {"walks": 0, "first_seed": VALIDATION_SEED}}


def source(folder: Path) -> dict[str, Any]:
    """One source of walks, as ``configs/recipe/mini.yaml`` describes it; there are none left to record."""
    return {"folder": str(folder), "weight": 1.0, "walks": 0, "first_seed": 0, "frames": FRAMES}


def record_until(simulator: str, folder: Path, seconds: float, block: int, validation: int) -> None:
    """Record validation walks, and training walks on every core until the time is up.

    Args:
        simulator: its name.
        folder: for the walks.
        seconds: after which no process begins another block; each records one at least.
        block: walks of a block.
        validation: walks to choose among weights by.

    Raises:
        ImportError, ValueError: where the simulator cannot work.
        TimeoutError: where it hangs.
    """
    deadline, cores = time.time() + seconds, len(os.sched_getaffinity(0))
    tasks: list[tuple[Any, ...]] = [(simulator, folder / "validation", [VALIDATION_SEED], validation, deadline)]
    for first in range(cores):
        tasks.append((simulator, folder, range(block * first, MOST_WALKS, block * cores), block, deadline))
    with multiprocessing.get_context("spawn").Pool(len(tasks)) as pool:  # GL contexts do not survive a fork
        pool.starmap_async(record_blocks, tasks, chunksize=1).get(seconds + PATIENCE)


def record_blocks(simulator: str, folder: Path, seeds: Sequence[int], block: int, deadline: float) -> None:
    """Blocks of walks from these seeds on, one after the other until the deadline, one at least."""
    for seed in seeds:
        record(folder, block, FRAMES, seed, simulator)
        if time.time() > deadline:
            return


def copy_shipped(folder: Path) -> None:
    """The package's own walks, to train on and to choose weights by."""
    for place in (folder, folder / "validation"):
        shutil.copytree(SHIPPED, place)


def train(part: Part, data: dict[str, Any], output: Path, seconds: float) -> dict[str, Any]:
    """Run the recipe on these walks, and return its report."""
    recipe = "mini" if part.device == "cpu" else "mini-gpu"
    settings = [f"recipe={recipe}", f"budget={max(seconds, 1):.0f}s", f"device={part.device}", f"output={output}"]
    if "shipped" in data["clips"]:
        settings.append("recipe.denoiser.steps_of_episode=[14,24]")  # those walks are that short
    composed = compose("train", [*settings, "recipe.protocols=false"])

    from mirage_sim.training.recipe import train_recipe

    began = time.monotonic()
    train_recipe(RecipeSettings.read(composed.plain() | data), commit=commit())
    return {"recipe": recipe, "budget_s": round(seconds), "seconds": round(time.monotonic() - began, 1)}


def bring_home(part: Part, output: Path) -> None:
    """Copy the best available weights, and report each stage of the recipe."""
    state = output / "recipe.json"
    if not state.exists():
        return
    stages = json.loads(state.read_text())["parts"]
    part.report.put("recipe", stages)
    folders = [output]  # of the result; else what the stages chose, the last one first, or have not yet chosen from
    for name in ("denoiser", "depth", "codec"):
        chosen = stages.get(name, {}).get("chosen")
        folders += [output / name / choice for choice in ([chosen] if chosen else ["average", "raw"])]
    for name in NETWORKS:
        found = [folder / f"{name}.safetensors" for folder in folders if (folder / f"{name}.safetensors").exists()]
        if found:
            shutil.copy(found[0], part.out / f"{name}.safetensors")


if __name__ == "__main__":
    main()
