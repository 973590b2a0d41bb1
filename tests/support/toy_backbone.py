"""The real classes of the backbone at toy size, with random weights."""

from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.models import MiniCodec
from mirage_sim.models.wan.branch import MemoryBranch
from mirage_sim.models.wan.toy_checkpoint import CHANNELS, TRANSFORMER
from mirage_sim.protocols import Conditioning, MemoryView

TEXT, GRID, FRAMES = 12, (4, 6), 3
TOKENS = 6  # of a frame
CONFIG = TRANSFORMER | {"text_dim": TEXT}


def toy_backbone(seed: int = 0, **config: Any) -> WanTransformer3DModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return WanTransformer3DModel(**CONFIG | config).eval().requires_grad_(False)


def toy_branch(backbone: WanTransformer3DModel, awake: bool = True) -> MemoryBranch:
    """A branch whose hints are not zero, unless it shall sleep."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        branch = MemoryBranch.beside(backbone).eval().requires_grad_(False)
        if awake:
            for parameter in branch.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return branch


def toy_codec() -> MiniCodec:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        codec = MiniCodec(CHANNELS, encoder_width=16, encoder_depth=1, decoder_width=16, decoder_depth=1)
        return codec.eval().requires_grad_(False)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def toy_view(batch: int, frames: int = FRAMES, size: tuple[int, int] = GRID) -> MemoryView:
    shape = (batch, frames, *size)
    visible = randn(*shape, seed=3) < 0.5
    return MemoryView(
        latents=randn(batch, CHANNELS, *shape[1:], seed=4) * visible[:, None],
        visible=visible,
        depth=2.0 * visible,
        source=torch.arange(visible.numel()).view(shape).where(visible, -1),
        offset=torch.zeros(batch, 2, *shape[1:]),
        log_scale=torch.zeros(shape),
    )


def toy_conditioning(batch: int = 2, references: int = 0, preceding: int = 0, first: bool = False) -> Conditioning:
    camera = Camera.from_fov(torch.eye(4).expand(batch, FRAMES, 4, 4), 60.0, (16, 24))
    return Conditioning(
        view=toy_view(batch),
        preceding=randn(batch, CHANNELS, preceding, *GRID, seed=5),
        motion=torch.zeros(batch, FRAMES, 6),
        camera=camera,
        first=randn(batch, CHANNELS, 1, *GRID, seed=6) if first else None,
        references=randn(batch, CHANNELS, references, *GRID, seed=7) if references else None,
        preceding_readout=randn(batch, CHANNELS, preceding, *GRID, seed=8),
        text=randn(batch, 5, TEXT, seed=9),
    )
