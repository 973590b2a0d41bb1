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

from mirage_sim.settings import TrainSettings
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


def build_stage(settings: TrainSettings) -> Stage:
    """Build the stage that the settings describe.

    Args:
        settings: see :func:`train`.

    Raises:
        ImportError: if accelerate or peft is missing.
        ValueError: if the stage does not train this world, or if there are no clips.
        FileNotFoundError: if the weights of an earlier stage are missing.
    """
    torch.manual_seed(settings.seed)
    name = settings.stage.name
    return STAGES[name](settings, Path(settings.output) / name, **settings.stage.options)


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train one stage, or resume it.

    Args:
        settings: of ``mirage train``.

    Returns:
        ``output``, the folder of the results.

    Raises:
        ImportError, ValueError, FileNotFoundError: see :func:`build_stage`.
    """
    modules, exports, objective, accelerator, generator_device = build_stage(settings)
    stage, output = settings.stage, Path(settings.output)
    trainer = Trainer(
        modules,
        output / stage.name,
        steps=stage.steps,
        learning_rate=stage.learning_rate,
        seed=settings.seed,
        accelerator=accelerator,
        generator_device=generator_device,
    )
    trainer.run(objective, save_every=settings.save_every)
    trainer.use_ema()
    if accelerator.is_main_process:
        for file, write in exports.items():
            write(output / f"{file}.safetensors")
            logger.info("wrote %s", output / f"{file}.safetensors")
    return {"output": settings.output}
