"""``mirage train``: stages, each a loss for the one loop.

Of the mini world: codec -> depth -> denoiser. Of the real backbone: branch -> lora. Every stage leaves its weights as
``NAME.safetensors`` in the output folder, where the next one finds them; interrupted, it goes on from its last
checkpoint, with the very bits.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mirage_sim.training import mini_stages, wan_stages
from mirage_sim.training.loop import Trainer
from mirage_sim.training.stage import Stage

logger = logging.getLogger(__name__)

STAGES: dict[str, Callable[..., Stage]] = {
    "codec": mini_stages.codec_stage,
    "depth": mini_stages.depth_stage,
    "denoiser": mini_stages.denoiser_stage,
    "branch": wan_stages.branch_stage,
    "lora": wan_stages.lora_stage,
}

LOOP = ("name", "model", "steps", "learning_rate")  # of a stage's settings, what is not for its loss


def begin(cfg: dict[str, Any]) -> Stage:
    """A stage, ready to be trained.

    Args:
        cfg: see :func:`train`.

    Raises:
        ImportError: naming what to install, if accelerate or peft is missing.
        ValueError: for an unknown stage, a world that it does not train, or where there are no clips.
        FileNotFoundError: if the weights of the stage before are missing.
    """
    options = dict(cfg["stage"])
    for key in LOOP:
        del options[key]
    name = cfg["stage"]["name"]
    if name not in STAGES:
        raise ValueError(f"stage: expected one of {sorted(STAGES)}, got {name!r}")
    torch.manual_seed(cfg["seed"])
    return STAGES[name](cfg, Path(cfg["output"]) / name, **options)


def train(cfg: dict[str, Any]) -> None:
    """Train one stage, or go on with it.

    Args:
        cfg: ``world`` (what ``configs/world`` describes), ``clips`` (folder of clips), ``output`` (folder), ``seed``,
            ``save_every`` (seconds between checkpoints), and ``stage``: its ``name`` (one of ``STAGES``), ``model``
            (what it makes a part of), ``steps``, ``learning_rate``, and the keyword arguments of the stage.

    Raises:
        ImportError, ValueError, FileNotFoundError: see :func:`begin`.
    """
    modules, exports, loss, accelerator, generator_device = begin(cfg)
    stage, output = cfg["stage"], Path(cfg["output"])
    trainer = Trainer(
        modules,
        output / stage["name"],
        steps=stage["steps"],
        learning_rate=stage["learning_rate"],
        seed=cfg["seed"],
        accelerator=accelerator,
        generator_device=generator_device,
    )
    trainer.run(loss, save_every=cfg["save_every"])
    trainer.swap_in_average()
    if accelerator.is_main_process:
        for file, write in exports.items():
            write(output / f"{file}.safetensors")
            logger.info("wrote %s", output / f"{file}.safetensors")
