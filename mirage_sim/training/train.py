"""``mirage train stage=NAME``: train one stage.

Stages of the mini world are codec -> depth -> denoiser, those of the Wan2.2 backbone branch -> lora. Each writes its
weights as ``NAME.safetensors`` to the output folder, from which the next one loads them. An interrupted stage resumes
from its last checkpoint and ends with the same bits as an uninterrupted one.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mirage_sim.training import mini_stages, wan_stages
from mirage_sim.training.loop import Stage, Trainer

logger = logging.getLogger(__name__)

STAGES: dict[str, Callable[..., Stage]] = {
    "codec": mini_stages.codec_stage,
    "depth": mini_stages.depth_stage,
    "denoiser": mini_stages.denoiser_stage,
    "branch": wan_stages.branch_stage,
    "lora": wan_stages.lora_stage,
}

LOOP = ("name", "model", "steps", "learning_rate")  # settings of a stage that its objective does not take


def build_stage(cfg: dict[str, Any]) -> Stage:
    """Build the stage that a configuration describes.

    Args:
        cfg: see :func:`train`.

    Raises:
        ImportError: if accelerate or peft is missing.
        ValueError: if the stage is unknown or does not train this world, or if there are no clips.
        FileNotFoundError: if the weights of an earlier stage are missing.
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
    """Train one stage, or resume it.

    Args:
        cfg: ``world`` (as in ``configs/world``), ``clips`` (folder of clips), ``output`` (folder), ``seed``,
            ``save_every`` (seconds between checkpoints), and ``stage``: its ``name`` (one of ``STAGES``), ``model``
            (name of the world that it is part of), ``steps``, ``learning_rate``, and keyword arguments of the stage.

    Raises:
        ImportError, ValueError, FileNotFoundError: see :func:`build_stage`.
    """
    modules, exports, objective, accelerator, generator_device = build_stage(cfg)
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
    trainer.run(objective, save_every=cfg["save_every"])
    trainer.use_ema()
    if accelerator.is_main_process:
        for file, write in exports.items():
            write(output / f"{file}.safetensors")
            logger.info("wrote %s", output / f"{file}.safetensors")
