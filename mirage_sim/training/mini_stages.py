"""The stages that make the mini world: codec -> depth -> denoiser. They look at no other world, and run on the CPU."""

from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.models import MiniCodec, MiniDenoiser, MiniDepth, load_model, save_model
from mirage_sim.training.codec_stage import CodecStage
from mirage_sim.training.denoiser_stage import DenoiserStage
from mirage_sim.training.depth_stage import DepthStage
from mirage_sim.training.loop import Loss, make_accelerator
from mirage_sim.training.stage import Stage

Model = TypeVar("Model", bound=nn.Module)


def codec_stage(cfg: dict[str, Any], folder: Path, **options: Any) -> Stage:
    """The codec, and the read-out aligner of the denoiser."""
    data, codec, denoiser = _walks(cfg), MiniCodec(), MiniDenoiser()
    loss = CodecStage(data, codec, denoiser.aligner, **options)
    return _stage(folder, {"codec": codec, "aligner": denoiser.aligner}, {"codec": codec, "denoiser": denoiser}, loss)


def depth_stage(cfg: dict[str, Any], folder: Path, **options: Any) -> Stage:
    """The depth head."""
    data, codec, model = _walks(cfg), _trained(cfg, "codec", MiniCodec), MiniDepth()
    loss = DepthStage(data, codec, model, detail=cfg["latent"]["detail"], **options)
    return _stage(folder, {"depth": model}, {"depth": model}, loss)


def denoiser_stage(cfg: dict[str, Any], folder: Path, **options: Any) -> Stage:
    """The denoiser."""
    data = _walks(cfg)
    codec, denoiser = _trained(cfg, "codec", MiniCodec), _trained(cfg, "denoiser", MiniDenoiser)
    denoiser.requires_grad_(True).train()
    loss = DenoiserStage(data, codec, _trained(cfg, "depth", MiniDepth), denoiser, **options)
    return _stage(folder, {"denoiser": denoiser}, {"denoiser": denoiser}, loss)


def _stage(folder: Path, modules: dict[str, nn.Module], exports: dict[str, nn.Module], loss: Loss) -> Stage:
    writers = {name: partial(save_model, model) for name, model in exports.items()}
    return Stage(modules, writers, loss, make_accelerator(folder, cpu=True))


def _walks(cfg: dict[str, Any]) -> WalkDataset:
    if cfg["world"]["denoiser"]["_target_"] != "mirage_sim.models.load_model":
        raise ValueError(f"world: expected mini, which stage={cfg['stage']['name']} makes, got another one")
    return WalkDataset(Path(cfg["clips"]))


def _trained(cfg: dict[str, Any], name: str, kind: type[Model]) -> Model:
    """What an earlier stage left."""
    model = load_model(Path(cfg["output"]).absolute() / f"{name}.safetensors")
    if not isinstance(model, kind):
        raise ValueError(
            f"{cfg['output']}: expected the {kind.__name__} that stage=codec leaves, got a {type(model).__name__}"
        )
    return model
