"""``mirage train``: the stages that make the mini world, each a loss for the one loop.

codec -> depth -> denoiser -> depth_episodes. Every stage leaves its weights as ``NAME.safetensors`` in the output
folder, where the next one finds them; interrupted, it goes on from its last checkpoint.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.models import MiniCodec, MiniDenoiser, MiniDepth, load_model, save_model
from mirage_sim.training.codec_stage import CodecStage
from mirage_sim.training.denoiser_stage import DenoiserStage
from mirage_sim.training.depth_episodes_stage import DepthEpisodesStage
from mirage_sim.training.depth_stage import DepthStage
from mirage_sim.training.loop import Loss, Trainer

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)
# what a stage trains (by name), the models it exports (by file name), and its loss
Stage = tuple[dict[str, nn.Module], dict[str, nn.Module], Loss]


def _codec_stage(data: WalkDataset, output: Path, **options: Any) -> Stage:
    codec, denoiser = MiniCodec(), MiniDenoiser()
    modules = {"codec": codec, "aligner": denoiser.aligner}
    return modules, {"codec": codec, "denoiser": denoiser}, CodecStage(data, codec, denoiser.aligner, **options)


def _trained(output: Path, name: str, kind: type[Model]) -> Model:
    """What an earlier stage left."""
    model = load_model(output / f"{name}.safetensors")
    if not isinstance(model, kind):
        raise ValueError(
            f"{output}: expected the {kind.__name__} that stage=codec leaves, got a {type(model).__name__}"
        )
    return model


def _depth_stage(data: WalkDataset, output: Path, **options: Any) -> Stage:
    codec, model = _trained(output, "codec", MiniCodec), MiniDepth()
    return {"depth": model}, {"depth": model}, DepthStage(data, codec, model, **options)


def _denoiser_stage(data: WalkDataset, output: Path, **options: Any) -> Stage:
    codec, denoiser = _trained(output, "codec", MiniCodec), _trained(output, "denoiser", MiniDenoiser)
    denoiser.requires_grad_(True).train()
    stage = DenoiserStage(data, codec, _trained(output, "depth", MiniDepth), denoiser, **options)
    return {"denoiser": denoiser}, {"denoiser": denoiser}, stage


def _depth_episodes_stage(data: WalkDataset, output: Path, **options: Any) -> Stage:
    codec, denoiser = _trained(output, "codec", MiniCodec), _trained(output, "denoiser", MiniDenoiser)
    model = _trained(output, "depth", MiniDepth).requires_grad_(True).train()
    return {"depth": model}, {"depth": model}, DepthEpisodesStage(data, codec, denoiser, model, **options)


STAGES: dict[str, Callable[..., Stage]] = {
    "codec": _codec_stage,
    "depth": _depth_stage,
    "denoiser": _denoiser_stage,
    "depth_episodes": _depth_episodes_stage,
}


def train(cfg: dict[str, Any]) -> None:
    """Train one stage of the mini world, or go on with it.

    Args:
        cfg: ``world`` (``"mini"``), ``clips`` (folder of recorded walks), ``output`` (folder), ``seed``, and ``stage``:
            its ``name`` (one of ``STAGES``), ``steps``, ``learning_rate``, and the keyword arguments of its loss.

    Raises:
        ValueError: for an unknown world or stage, or where there are no clips.
        FileNotFoundError: if the weights of the stage before are missing.
    """
    if cfg["world"] != "mini":
        raise ValueError(f"world: expected 'mini', the only world that is trained here, got {cfg['world']!r}")
    options = dict(cfg["stage"])
    name, steps, learning_rate = (options.pop(key) for key in ("name", "steps", "learning_rate"))
    if name not in STAGES:
        raise ValueError(f"stage: expected one of {sorted(STAGES)}, got {name!r}")
    torch.manual_seed(cfg["seed"])
    output = Path(cfg["output"])
    data = WalkDataset(Path(cfg["clips"]))
    logger.info("%d walks of %d frames", len(data), data.length)
    modules, exports, loss = STAGES[name](data, output, **options)
    trainer = Trainer(modules, output / name, steps=steps, learning_rate=learning_rate, seed=cfg["seed"])
    trainer.run(loss)
    trainer.swap_in_average()
    for file, model in exports.items():
        save_model(model, output / f"{file}.safetensors")
        logger.info("wrote %s", output / f"{file}.safetensors")
