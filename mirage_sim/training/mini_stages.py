"""The stages that make the mini world: codec -> depth -> denoiser. They look at no other world."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.models import MiniCodec, MiniDenoiser, MiniDepth, load_model, save_model
from mirage_sim.settings import TrainSettings
from mirage_sim.training.loop import Loss, make_accelerator
from mirage_sim.training.objectives.codec import CodecStage
from mirage_sim.training.objectives.denoiser import DenoiserStage
from mirage_sim.training.objectives.depth import DepthStage
from mirage_sim.training.stage import Stage

Model = TypeVar("Model", bound=nn.Module)


class Networks(NamedTuple):
    """The networks of the mini world."""

    codec: MiniCodec
    denoiser: MiniDenoiser
    depth: MiniDepth

    def to(self, device: torch.device) -> "Networks":
        """The networks, brought to a device."""
        return Networks(self.codec.to(device), self.denoiser.to(device), self.depth.to(device))


def build_loss(
    name: str, data: WalkDataset, networks: Networks, options: Mapping[str, Any]
) -> tuple[dict[str, nn.Module], Loss]:
    """What a stage trains, by name, and its loss.

    Args:
        name: ``"codec"``, ``"depth"`` or ``"denoiser"``.
        data: recorded walks.
        networks: to train, or to learn from, where the data are.
        options: keyword arguments of the loss.
    """
    codec, denoiser, depth = networks
    for network in networks:
        network.requires_grad_(False)
    modules: dict[str, nn.Module]
    if name == "codec":
        modules = {"codec": codec, "aligner": denoiser.aligner}
        loss: Loss = CodecStage(data, codec, denoiser.aligner, **options)
    elif name == "depth":
        modules = {"depth": depth}
        loss = DepthStage(data, codec, depth, samples_per_cell=denoiser.aligner.samples_per_cell, **options)
    else:
        modules = {"denoiser": denoiser}
        loss = DenoiserStage(data, codec, depth, denoiser, **options)
    for module in modules.values():
        module.requires_grad_(True).train()
    return modules, loss


def codec_stage(settings: TrainSettings, folder: Path, **options: Any) -> Stage:
    """The codec, and the read-out aligner of the denoiser."""
    data, networks = _walks(settings), Networks(MiniCodec(), MiniDenoiser(), MiniDepth())
    return _stage(settings, folder, data, networks, ("codec", "denoiser"), options)


def depth_stage(settings: TrainSettings, folder: Path, **options: Any) -> Stage:
    """The depth head."""
    data, codec, depth = _walks(settings), _trained(settings, "codec", MiniCodec), MiniDepth()
    networks = Networks(codec, MiniDenoiser(samples_per_cell=settings.latent["samples_per_cell"]), depth)
    return _stage(settings, folder, data, networks, ("depth",), options)


def denoiser_stage(settings: TrainSettings, folder: Path, **options: Any) -> Stage:
    """The denoiser."""
    data = _walks(settings)
    codec, denoiser = _trained(settings, "codec", MiniCodec), _trained(settings, "denoiser", MiniDenoiser)
    networks = Networks(codec, denoiser, _trained(settings, "depth", MiniDepth))
    return _stage(settings, folder, data, networks, ("denoiser",), options)


def choose_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ValueError: if there is none.
    """
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device: expected cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected cpu, since torch finds no CUDA device here, got 'cuda'")
    return torch.device(name)


def _stage(
    settings: TrainSettings,
    folder: Path,
    data: WalkDataset,
    networks: Networks,
    exports: Sequence[str],
    options: Mapping[str, Any],
) -> Stage:
    modules, loss = build_loss(settings.stage.name, data, networks.to(data.device), options)
    writers = {name: partial(save_model, getattr(networks, name)) for name in exports}
    return Stage(modules, writers, loss, make_accelerator(folder, cpu=data.device.type == "cpu"), data.device)


def _walks(settings: TrainSettings) -> WalkDataset:
    if settings.world["denoiser"]["_target_"] != "mirage_sim.models.load_model":
        raise ValueError(f"world: expected mini, which stage={settings.stage.name} makes, got another one")
    return WalkDataset(Path(settings.clips), choose_device(settings.device))


def _trained(settings: TrainSettings, name: str, kind: type[Model]) -> Model:
    """What an earlier stage left."""
    model = load_model(Path(settings.output).absolute() / f"{name}.safetensors")
    if not isinstance(model, kind):
        raise ValueError(
            f"{settings.output}: expected the {kind.__name__} that stage=codec leaves, got a {type(model).__name__}"
        )
    return model
