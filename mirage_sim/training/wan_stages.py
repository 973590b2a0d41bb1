"""The stages of the Wan2.2 backbone: the memory side branch first, then the branch together with adapters."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mirage_sim.build import instantiate
from mirage_sim.data.latent_cache import LatentClips
from mirage_sim.models import save_model
from mirage_sim.models.wan.branch import MemoryBranch
from mirage_sim.models.wan.checkpoints import load_branch
from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.settings import TrainSettings
from mirage_sim.settings.training import DropSettings
from mirage_sim.training.chunk_samples import ChunkSamples, Drop
from mirage_sim.training.loop import Stage, make_accelerator
from mirage_sim.training.lora import add_lora, save_lora
from mirage_sim.training.objectives.chunk import ChunkObjective

PARTS = ("codec", "denoiser", "memory", "horizon", "references", "text")  # parts of a world that training needs


def branch_stage(settings: TrainSettings, folder: Path, **options: Any) -> Stage:
    """Build stage 1, which trains the side branch beside the frozen backbone.

    Training starts from the branch of ``world.denoiser.branch``, or from a fresh one.
    """
    world = _world(settings)
    backbone = world["denoiser"].backbone
    branch = world["denoiser"].branch or MemoryBranch.beside(backbone)
    return _stage(settings, folder, world, branch, {"branch": _branch_writer(branch, backbone)}, **options)


def lora_stage(settings: TrainSettings, folder: Path, *, rank: int, **options: Any) -> Stage:
    """Build stage 2, which trains the side branch together with adapters of the backbone.

    Training starts from the branch of ``world.denoiser.branch``, or from the result of stage 1 in the output folder.
    """
    world = _world(settings)
    backbone = world["denoiser"].backbone
    branch = world["denoiser"].branch or load_branch(Path(settings.output).absolute() / "branch.safetensors", backbone)
    add_lora(backbone, rank)
    exports: dict[str, Callable[[Path], None]] = {
        "lora_branch": _branch_writer(branch, backbone),
        "lora": partial(save_lora, backbone),
    }
    return _stage(settings, folder, world, branch, exports, **options)


def _world(settings: TrainSettings) -> dict[str, Any]:
    """Build the parts of the world that training needs, in host memory; accelerate moves them to each device."""
    world: dict[str, Any] = {}
    if all(name in settings.world for name in PARTS):
        parts = {name: settings.world[name] for name in PARTS}
        parts["codec"] = parts["codec"] | {"device": "cpu"}
        parts["denoiser"] = parts["denoiser"] | {"codec": parts["codec"], "device": "cpu"}
        world = instantiate(parts)
    if not isinstance(world.get("denoiser"), WanDenoiser):
        raise ValueError(f"world: expected one with a Wan backbone, such as wan5b, for stage={settings.stage.name}")
    return world


def _branch_writer(branch: MemoryBranch, backbone: Any) -> Callable[[Path], None]:
    return partial(save_model, branch, dtype=backbone.patch_embedding.weight.dtype)


def _stage(
    settings: TrainSettings,
    folder: Path,
    world: dict[str, Any],
    branch: MemoryBranch,
    exports: dict[str, Callable[[Path], None]],
    *,
    precision: str,
    gradient_accumulation_steps: int,
    gradient_checkpointing: bool,
    shift: float,
    drop: DropSettings,
    latents: str | None,
) -> Stage:
    """Build the stage that trains a branch and all parameters of the backbone that require gradients.

    Args:
        settings: see :func:`mirage_sim.training.train`.
        folder: folder of the stage.
        world: see :func:`_world`.
        branch: branch to train beside the backbone.
        exports: see :class:`Stage`.
        precision: see :func:`make_accelerator`.
        gradient_accumulation_steps: see :func:`make_accelerator`.
        gradient_checkpointing: whether to recompute blocks in the backward pass, which saves most of the memory and
            takes a third more time.
        shift: see :class:`ChunkObjective`.
        drop: see :class:`Drop`.
        latents: folder of encoded clips, see :class:`LatentClips`.
    """
    backbone, codec = world["denoiser"].backbone, world["codec"]
    if backbone.patch_embedding.weight.dtype != torch.float32 and precision == "float32":
        raise ValueError("stage.precision: expected bfloat16 for a backbone of reduced precision, got 'float32'")
    accelerator = make_accelerator(folder, precision=precision, gradient_accumulation_steps=gradient_accumulation_steps)
    if isinstance(codec, nn.Module):
        codec.to(accelerator.device)
    clips = LatentClips(
        Path(settings.clips),
        codec,
        tuple(settings.world["size"]),
        None if latents is None else Path(latents),
        accelerator.device,
    )
    prompts = [caption or settings.world["prompt"] for caption in clips.captions]
    samples = ChunkSamples(
        clips, prompts, world["memory"], world["horizon"], world["references"], world["text"], Drop(**vars(drop))
    )
    branch.float().requires_grad_(True)  # reduced precision would round small updates away
    denoiser = WanDenoiser(backbone, branch, codec)
    if gradient_checkpointing:
        for block in (*backbone.blocks, *branch.vace_blocks):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return Stage({"denoiser": denoiser}, exports, ChunkObjective(denoiser, samples, shift=shift), accelerator)
