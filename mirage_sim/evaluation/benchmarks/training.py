"""Whether training works: that the side branch learns at toy size, and that a killed run goes on as if it had not been.

Both train on the walks that the package ships.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mirage_sim.build import compose
from mirage_sim.data.prepare import prepare
from mirage_sim.models.checkpoints import read_weights
from mirage_sim.paths import ASSETS
from mirage_sim.settings import TrainSettings
from mirage_sim.training.loop import Loss, Trainer
from mirage_sim.training.objectives.chunk import ChunkStage
from mirage_sim.training.train import begin

WALKS = ASSETS / "mini" / "walks"
SIZE, FRAMES = [64, 96], 25  # of the toy world, of the walks
STEPS, LEARNING_RATE, DRAWS = 150, 3e-3, 32
# of the interrupted run: it is killed once KILLED steps are on disk
RESUMED = ("stage=denoiser", "stage.steps=6", "stage.batch=3", "stage.steps_of_episode=[3,5]", "save_every=0")
KILLED = 2


def stage1_loss_drop() -> float:
    """By which share stage 1 at toy size lowers the loss on a walk that it was not trained on.

    The loss is the mean of 32 chunks, the same before and after 150 steps on two other walks.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = compose("prepare clips", [f"source={WALKS}", f"output={folder / 'clips'}"])
        prepare(replace(clips, size=SIZE, frames=FRAMES))
        first, *rest = sorted((folder / "clips").iterdir())
        (folder / "held").mkdir()
        held_out = first.replace(folder / "held" / first.name)
        stage = begin(_config(folder, folder / "clips"))
        others: Any = begin(_config(folder, held_out.parent)).loss
        held = ChunkStage(stage.modules["denoiser"], others.samples)  # type: ignore[arg-type]
        before = _mean(held)
        trainer = Trainer(
            stage.modules, folder / "branch", steps=STEPS, learning_rate=LEARNING_RATE, accelerator=stage.accelerator
        )
        trainer.run(stage.loss)
        trainer.swap_in_average()
        return 1.0 - _mean(held) / before


def _config(folder: Path, clips: Path) -> TrainSettings:
    quick = ("stage.precision=float32", "stage.gradient_checkpointing=false", f"stage.latents={folder / 'latents'}")
    # the walks are shorter than a chunk of the real backbone
    world = ("world=wan5b-toy", "world.horizon.latents=5")
    settings: TrainSettings = compose("train", ["stage=branch", *world, f"clips={clips}", f"output={folder}", *quick])
    return settings


@torch.no_grad()
def _mean(loss: Loss) -> float:
    return sum(loss(torch.Generator().manual_seed(draw), 0.0)["loss"].item() for draw in range(DRAWS)) / DRAWS


def resume_identical() -> bool:
    """Whether a run of the mini world's denoiser that was killed (SIGKILL) and continued ends with the very bits.

    Compared are the whole state, the episodes under way included, and the weights that are left.

    Raises:
        RuntimeError: if a run fails, or is over before it can be killed.
    """
    with tempfile.TemporaryDirectory() as name:
        straight, killed = Path(name) / "straight", Path(name) / "killed"
        for folder in (straight, killed):
            folder.mkdir()
            for part in ("codec", "denoiser", "depth"):
                shutil.copy(ASSETS / "mini" / f"{part}.safetensors", folder)
        _finish(_start(straight))
        _kill(_start(killed), killed / "denoiser" / "state.safetensors")
        _finish(_start(killed))
        return all(
            _same(straight / file, killed / file) for file in ("denoiser.safetensors", "denoiser/state.safetensors")
        )


def _start(output: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mirage_sim.cli", "train", *RESUMED, f"clips={WALKS}", f"output={output}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _finish(process: "subprocess.Popen[str]") -> None:
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"mirage train: {said.strip().splitlines()[-1]}")


def _kill(process: "subprocess.Popen[str]", state: Path) -> None:
    """Kill a run in the middle."""
    while process.poll() is None and _steps(state) < KILLED:
        time.sleep(0.01)
    process.kill()
    _, said = process.communicate()
    if process.returncode >= 0:
        raise RuntimeError(f"mirage train: over before it was killed: {said.strip().splitlines()[-1]}")


def _steps(state: Path) -> int:
    try:
        with safe_open(state, framework="pt") as file:
            return int(file.metadata()["step"])
    except (SafetensorError, OSError):
        return 0


def _same(one: Path, other: Path) -> bool:
    (facts, tensors), (others, found) = read_weights(one), read_weights(other)
    return (
        facts == others
        and tensors.keys() == found.keys()
        and all(torch.equal(tensor, found[key]) for key, tensor in tensors.items())
    )
