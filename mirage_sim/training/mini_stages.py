"""The stages of the mini world: codec -> depth -> denoiser."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.models import MiniCodec, MiniDenoiser, MiniDepth, load_model, save_model
from mirage_sim.models.checkpoints import usable_device
from mirage_sim.settings import TrainSettings
from mirage_sim.training.loop import Objective, Stage, make_accelerator
from mirage_sim.training.objectives.codec import CodecObjective
from mirage_sim.training.objectives.denoiser import DenoiserObjective
from mirage_sim.training.objectives.depth import DepthObjective

Model = TypeVar("Model", bound=nn.Module)


class Networks(NamedTuple):
    """The networks of the mini world."""

    codec: MiniCodec
    denoiser: MiniDenoiser
    depth: MiniDepth

    def to(self, device: torch.device) -> "Networks":
        """Move the networks to a device."""
        return Networks(self.codec.to(device), self.denoiser.to(device), self.depth.to(device))


def build_objective(
    name: str, data: WalkDataset, networks: Networks, options: Mapping[str, Any]
) -> tuple[dict[str, nn.Module], Objective]:
    """Build the objective of a stage.

    Args:
        name: name of the stage: ``"codec"``, ``"depth"`` or ``"denoiser"``.
        data: recorded walks.
        networks: trained and frozen networks, on the device of the data.
        options: keyword arguments of the objective.

    Returns:
        The modules that the stage trains, by name, and the objective.
    """
    codec, denoiser, depth = networks
    for network in networks:
        network.requires_grad_(False)
    modules: dict[str, nn.Module]
    if name == "codec":
        modules = {"codec": codec, "aligner": denoiser.aligner}
        objective: Objective = CodecObjective(data, codec, denoiser.aligner, **options)
    elif name == "depth":
        modules = {"depth": depth}
        objective = DepthObjective(data, codec, depth, samples_per_cell=denoiser.aligner.samples_per_cell, **options)
    else:
        modules = {"denoiser": denoiser}
        objective = DenoiserObjective(data, codec, depth, denoiser, **options)
    for module in modules.values():
        module.requires_grad_(True).train()
    return modules, objective


def load_network(path: Path, kind: type[Model]) -> Model:
    """Load a network of the mini world.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file is damaged or holds a network of another class.
    """
    model = load_model(path)
    if not isinstance(model, kind):
        raise ValueError(f"{path}: expected a {kind.__name__}, got a {type(model).__name__}")
    return model


def codec_stage(settings: TrainSettings, folder: Path, **options: Any) -> Stage:
    """Build the stage that trains the codec and the read-out aligner of the denoiser."""
    data, networks = _walks(settings), Networks(MiniCodec(), MiniDenoiser(), MiniDepth())
    return _stage(settings, folder, data, networks, ("codec", "denoiser"), options)


def depth_stage(settings: TrainSettings, folder: Path, **options: Any) -> Stage:
    """Build the stage that trains the depth head."""
    data, codec, depth = _walks(settings), _trained(settings, "codec", MiniCodec), MiniDepth()
    networks = Networks(codec, MiniDenoiser(samples_per_cell=settings.latent["samples_per_cell"]), depth)
    return _stage(settings, folder, data, networks, ("depth",), options)


def denoiser_stage(settings: TrainSettings, folder: Path, **options: Any) -> Stage:
    """Build the stage that trains the denoiser."""
    data = _walks(settings)
    codec, denoiser = _trained(settings, "codec", MiniCodec), _trained(settings, "denoiser", MiniDenoiser)
    networks = Networks(codec, denoiser, _trained(settings, "depth", MiniDepth))
    return _stage(settings, folder, data, networks, ("denoiser",), options)


def _stage(
    settings: TrainSettings,
    folder: Path,
    data: WalkDataset,
    networks: Networks,
    exports: Sequence[str],
    options: Mapping[str, Any],
) -> Stage:
    modules, objective = build_objective(settings.stage.name, data, networks.to(data.device), options)
    writers = {name: partial(save_model, getattr(networks, name)) for name in exports}
    return Stage(modules, writers, objective, make_accelerator(folder, cpu=data.device.type == "cpu"), data.device)


def _walks(settings: TrainSettings) -> WalkDataset:
    if settings.world["denoiser"]["_target_"] != "mirage_sim.models.load_model":
        raise ValueError(f"world: expected mini, which stage={settings.stage.name} trains, got another one")
    return WalkDataset(Path(settings.clips), usable_device(settings.device))


def _trained(settings: TrainSettings, name: str, kind: type[Model]) -> Model:
    """Load a network that an earlier stage trained."""
    return load_network(Path(settings.output).absolute() / f"{name}.safetensors", kind)
