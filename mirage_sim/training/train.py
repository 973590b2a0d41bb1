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

from mirage_sim.settings import TrainSettings
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


def begin(settings: TrainSettings) -> Stage:
    """A stage, ready to be trained.

    Args:
        settings: see :func:`train`.

    Raises:
        ImportError: naming what to install, if accelerate or peft is missing.
        ValueError: for a world that the stage does not train, or where there are no clips.
        FileNotFoundError: if the weights of the stage before are missing.
    """
    torch.manual_seed(settings.seed)
    name = settings.stage.name
    return STAGES[name](settings, Path(settings.output) / name, **settings.stage.options)


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train one stage, or go on with it.

    Args:
        settings: the world, the stage, its data and where the results go.

    Returns:
        ``output``, the folder of the results.

    Raises:
        ImportError, ValueError, FileNotFoundError: see :func:`begin`.
    """
    modules, exports, loss, accelerator, generator_device = begin(settings)
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
    trainer.run(loss, save_every=settings.save_every)
    trainer.swap_in_average()
    if accelerator.is_main_process:
        for file, write in exports.items():
            write(output / f"{file}.safetensors")
            logger.info("wrote %s", output / f"{file}.safetensors")
    return {"output": settings.output}
