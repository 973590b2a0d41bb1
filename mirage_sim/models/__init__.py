"""The networks of a world and their weights: codec, denoiser, sampler, depth estimator, static filter."""

from mirage_sim.models.checkpoints import load_model, save_model
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser
from mirage_sim.models.depth import MiniDepth
from mirage_sim.models.sampler import FlowSampler
from mirage_sim.models.static_filter import KeepAll

__all__ = [
    "KeepAll",
    "FlowSampler",
    "MiniCodec",
    "MiniDenoiser",
    "MiniDepth",
    "load_model",
    "save_model",
]
