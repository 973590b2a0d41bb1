"""The real classes at toy size with random weights: a world that is quick to build and to step, and always the same."""

import numpy as np
import torch
from torch import nn

from mirage_sim.memory import PointMemory
from mirage_sim.models import FlowSampler, KeepAll, MiniCodec, MiniDenoiser, MiniDepth
from mirage_sim.world import WorldModel

SIZE = (48, 64)


def toy_model(channels: int = 8) -> WorldModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _assemble(
            MiniCodec(channels, encoder_width=16, encoder_depth=1, decoder_width=16, decoder_depth=1),
            MiniDenoiser(channels, widths=(16, 32), aligner_width=16, embedding=32),
            MiniDepth(widths=(16, 32)),
            SIZE,
        )


def untrained_model() -> WorldModel:
    """The mini world's own sizes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _assemble(MiniCodec(), MiniDenoiser(), MiniDepth(), (96, 128))


def _assemble(codec: MiniCodec, denoiser: MiniDenoiser, depth: MiniDepth, size: tuple[int, int]) -> WorldModel:
    for network in (codec, denoiser, depth):
        network.eval().requires_grad_(False)
        for parameter in network.parameters():  # output layers start at zero, which would hide half of the network
            parameter += 0.03 * torch.randn_like(parameter)
    memory = PointMemory(codec.channels, codec.stride, samples_per_cell=2)
    return WorldModel(codec, denoiser, depth, KeepAll(), memory, FlowSampler(2), size, reprojection=1.0)


def toy_starts(count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 6, 8)).astype(np.float32))
    fine = nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
    return fine.permute(0, 2, 3, 1).round().byte().numpy().copy()
