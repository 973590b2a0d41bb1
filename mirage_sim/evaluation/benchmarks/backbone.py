"""The real backbone without its weights: its size, the names of published weights, a fresh branch's silence, a walk."""

from typing import Any

import gymnasium
import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from mirage_sim.evaluation.benchmarks.training import resume_identical, stage1_loss_drop
from mirage_sim.evaluation.benchmarks.vae import vae_marks
from mirage_sim.geometry import Camera
from mirage_sim.models import MiniCodec
from mirage_sim.models.wan import published
from mirage_sim.models.wan.branch import MemoryBranch
from mirage_sim.models.wan.checkpoints import diffusers_name
from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.protocols import Conditioning, MemoryView

CHANNELS, FRAMES, GRID, TEXT = 8, 9, (6, 10), 64
TOY = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": TEXT,
    "freq_dim": 64,
    "ffn_dim": 512,
    "num_layers": 6,
}


def bench_backbone(cfg: dict[str, Any]) -> dict[str, Any]:
    """Run the benchmark.

    Args:
        cfg: ``vae``, what of the codec to measure: ``"encode"``, ``"decode"`` (both) or None.

    Returns:
        ``{"metrics": ...}``: ``params_b`` and ``side_branch_b``, billions of parameters at full size, counted on
        torch's
        meta device; ``keys_unmatched``, how many names of published weights and of ours, with their shapes, have no
        partner; ``zero_branch_max_diff``, by how much a fresh side branch changes the output at toy size;
        ``toy_chunks``, see :func:`toy_chunks`; ``toy_stage1_loss_drop`` and ``resume_identical``, see
        :mod:`mirage_sim.evaluation.benchmarks.training`; and those of
        :func:`~mirage_sim.evaluation.benchmarks.vae.vae_marks`, if wanted.

    Raises:
        ValueError: for an unknown ``vae``.
        ImportError: if what loads the toy world is not installed.
    """
    if cfg["vae"] not in (None, "encode", "decode"):
        raise ValueError(f"vae: expected 'encode', 'decode' or null, got {cfg['vae']!r}")
    with torch.device("meta"):
        backbone = WanTransformer3DModel(**published.config())
    branch = MemoryBranch.beside(backbone)
    metrics: dict[str, Any] = {
        "params_b": round(_parameters(backbone) / 1e9, 4),
        "side_branch_b": round(_parameters(branch) / 1e9, 4),
        "keys_unmatched": keys_unmatched(backbone, branch),
        "zero_branch_max_diff": fresh_branch_difference(),
        "toy_chunks": toy_chunks(),
        "toy_stage1_loss_drop": round(stage1_loss_drop(), 3),
        "resume_identical": resume_identical(),
    }
    return {"marks": metrics | (vae_marks(cfg["vae"] == "decode") if cfg["vae"] else {})}


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def keys_unmatched(backbone: nn.Module, branch: nn.Module) -> int:
    """How many names with shapes, of the published backbone, side branch and adapters or of ours, have no partner."""
    ours = [{(name, tuple(tensor.shape)) for name, tensor in part.state_dict().items()} for part in (backbone, branch)]
    theirs = [_renamed(published.shapes("backbone")), _renamed(published.shapes("branch"))]
    layers = _renamed({f"{name}.weight": shape for name, shape in published.shapes("lora").items()})
    unmatched = sum(len(a ^ b) for a, b in zip(ours, theirs, strict=True)) + len(layers - ours[0])
    given = sum(len(published.shapes(part)) for part in ("backbone", "branch", "lora"))
    return unmatched + given - sum(map(len, (*theirs, layers)))  # two names may have become one


def _renamed(shapes: published.Shapes) -> set[tuple[str, tuple[int, ...]]]:
    return {(diffusers_name(name), shape) for name, shape in shapes.items()}


@torch.no_grad()
def fresh_branch_difference() -> float:
    """Largest change of the output by a fresh side branch, with and without context frames.

    Without, the output is compared with that of diffusers' own forward.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = WanTransformer3DModel(**TOY).eval()
        codec = MiniCodec(CHANNELS, encoder_width=16, encoder_depth=1, decoder_width=16, decoder_depth=1).eval()
        denoiser = WanDenoiser(backbone, MemoryBranch.beside(backbone), codec)
        x, sigma = torch.randn(1, CHANNELS, FRAMES, *GRID), torch.rand(1, FRAMES)
        without, within = _conditioning(0, 0), _conditioning(3, 2)
    timestep = (1000 * sigma).repeat_interleave(GRID[0] * GRID[1] // 4, dim=1)
    (expected,) = backbone(x, timestep, without.text, return_dict=False)
    alone = WanDenoiser(backbone)
    differences = (
        denoiser.velocity(x, sigma, denoiser.condition(without)) - expected,
        denoiser.velocity(x, sigma, denoiser.condition(within)) - alone.velocity(x, sigma, alone.condition(within)),
    )
    return float(torch.stack([difference.abs().max() for difference in differences]).max())  # not a number stays one


def toy_chunks(steps: int = 5) -> int:
    """How many of so many steps of ``world=wan5b-toy``, from files to frames, show a new picture and remember more."""
    env = gymnasium.make("MirageWorld-v0", world="wan5b-toy")
    last, info = env.reset(seed=0)
    points, made = info["memory_points"], 0
    for _ in range(steps):
        picture, *_, info = env.step(np.array([1.0, 0.5], np.float32))
        made += bool((picture != last).any() and info["memory_points"] >= points > 0)
        last, points = picture, info["memory_points"]
    return made


def _conditioning(references: int, preceding: int) -> Conditioning:
    """Random, everything remembered."""
    shape = (1, FRAMES, *GRID)
    view = MemoryView(
        latents=torch.randn(1, CHANNELS, *shape[1:]),
        visible=torch.ones(shape, dtype=torch.bool),
        depth=torch.ones(shape),
        source=torch.zeros(shape, dtype=torch.int64),
        offset=torch.zeros(1, 2, *shape[1:]),
        log_scale=torch.zeros(shape),
    )
    return Conditioning(
        view=view,
        preceding=torch.randn(1, CHANNELS, preceding, *GRID),
        motion=torch.zeros(1, FRAMES, 6),
        camera=Camera.from_fov(torch.eye(4).expand(1, FRAMES, 4, 4), 60.0, GRID),
        references=torch.randn(1, CHANNELS, references, *GRID),
        text=torch.randn(1, 16, TEXT),
    )
