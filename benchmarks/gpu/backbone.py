"""The real backbone at its real size with random weights: time and memory of a step.

The generated images are noise. Depth is a constant, because depth networks are not part of the backbone. Weights are
drawn on the device, in bfloat16.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.hooks import apply_group_offloading
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from report import Part
from timing import peak_gib, reset_peak, seconds, synchronize
from torch import Tensor

from benchmarks.runner import timed
from benchmarks.scenes import circuit
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.memory import PointMemory, RgbMemory
from mirage_sim.models import KeepAll
from mirage_sim.models.wan import published, toy_checkpoint
from mirage_sim.models.wan.branch import MemoryBranch, in_precision
from mirage_sim.models.wan.codec import WanCodec, published_config
from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.models.wan.sampler import WanSampler
from mirage_sim.world import Horizon, World, WorldModel

DEPTH = 3.0  # metres
STEPS = 3  # before a step is timed; then a chunk has its largest history, except for references
EVALUATIONS = 20  # of the network per step, as in configs/world/wan5b.yaml
TEXT = 512  # tokens of a prompt


def main() -> None:
    """Build the world, and measure."""
    part = Part("backbone", __doc__)
    reset_peak(part.device)
    model: WorldModel | None = part.attempt("build", partial(build, part.device, part.toy))
    if model is None:
        part.end()
    numbers = sum(parameter.numel() for parameter in model.denoiser.parameters())  # type: ignore[attr-defined]
    part.report.put("build", {"denoiser_parameters_b": round(numbers / 1e9, 3), "peak_gib": peak_gib(part.device)})
    colours = replace(model, memory=RgbMemory(model.codec, model.codec.stride))
    latent = part.measure("latent_memory", partial(step, part, model, part.seconds_left / 3))
    rgb = part.measure("rgb_memory", partial(step, part, colours, part.seconds_left / 3))
    if latent and rgb:
        compared = ("seconds_per_step", "conditioning_ms_per_latent_frame")
        part.report.put("rgb_over_latent", {name: round(rgb[name] / latent[name], 3) for name in compared})
    part.measure("offloaded", partial(offloaded, part, model))
    part.end()


@torch.no_grad()
def build(device: str, toy_size: bool) -> WorldModel:
    """A world of the classes of ``world=wan5b`` with the side branch and random weights."""
    transformer, vae = (
        (toy_checkpoint.TRANSFORMER, toy_checkpoint.VAE) if toy_size else (published.config(), published_config())
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # so that no float32 copy of the weights is allocated
    try:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone = WanTransformer3DModel(**transformer).eval()
            autoencoder = AutoencoderKLWan(**vae).eval()
    finally:
        torch.set_default_dtype(before)
    in_precision(backbone, backbone.patch_embedding.weight.dtype)
    codec = WanCodec(autoencoder).to(device)
    denoiser = WanDenoiser(backbone, MemoryBranch.beside(backbone), codec).eval().requires_grad_(False)
    return WorldModel(
        codec=codec,
        denoiser=denoiser,
        depth=constant_depth,
        static_filter=KeepAll(),
        memory=PointMemory(codec.channels, codec.stride),
        sampler=WanSampler(2 if toy_size else EVALUATIONS),
        size=(64, 96) if toy_size else (704, 1280),
        device=device,
        horizon=Horizon(latents=9, overlap=1, keep=1, preceding=2, fps=16.0),
        text=RandomText(backbone.config.text_dim),
    )


def constant_depth(frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
    """Return a constant depth ``[B, F, H, W]``."""
    return torch.full_like(frames[:, 0], DEPTH)


class RandomText:
    """Replaces the text encoder, whose embedding is computed once per prompt and not measured here."""

    def __init__(self, channels: int):
        self.channels = channels

    def embed(self, prompts: list[str]) -> Tensor:
        """Random embeddings ``[B, 512, channels]``."""
        return torch.randn(len(prompts), TEXT, self.channels, generator=torch.Generator().manual_seed(0))


def walked(model: WorldModel) -> tuple[World, Camera]:
    """A world a few short steps after a random image, and its next camera."""
    motion = VelocityLimits(dt=model.dt).motion(torch.tensor([0.4, 0.5]))
    walker = World(replace(model, sampler=WanSampler(1)))
    walker.reset(np.random.default_rng(0).integers(0, 256, (*model.size, 3), dtype=np.uint8), seed=0)
    for _ in range(STEPS):
        walker.step(replace(walker.camera, c2w=walker.camera.c2w @ motion))
    return walker, replace(walker.camera, c2w=walker.camera.c2w @ motion)


def step_seconds(walker: World, goal: Camera, model: WorldModel, device: str) -> float:
    """Wall time of the next step of a world with this model."""
    ahead = World(model)
    ahead.restore(walker.snapshot())
    return timed(lambda: (ahead.step(goal), synchronize(device)))


def step(part: Part, model: WorldModel, most: float) -> dict[str, Any]:
    """Measure a whole step, and its conditioning per latent frame.

    Args:
        part: whose device and time it takes.
        model: of the world.
        most: seconds for the whole step; where they are too few, it has fewer evaluations of the network.
    """
    device = part.device
    reset_peak(device)
    walker, goal = walked(model)
    one, two = (step_seconds(walker, goal, replace(model, sampler=WanSampler(n)), device) for n in (1, 2))
    affordable = 2 + int((most - two) / max(two - one, 1e-3))
    evaluations = max(2, min(model.sampler.steps, affordable))  # type: ignore[attr-defined]
    whole = step_seconds(walker, goal, replace(model, sampler=WanSampler(evaluations)), device)
    elsewhere = circuit(8, model.size)[1:2].to(device)
    with torch.inference_mode():
        read = seconds(lambda: model.memory.read(walker.state.map, elsewhere), device, most / 10)
    return {
        "evaluations": evaluations,
        "seconds_per_step": round(whole, 3),
        "seconds_per_evaluation": round((whole - one) / (evaluations - 1), 3),
        "conditioning_ms_per_latent_frame": round(1e3 * read, 3),
        "points": walker.state.map.points,
        "map_mib": round(walker.state.map.nbytes / 2**20, 1),
        "peak_gib": peak_gib(device),
    }


def offloaded(part: Part, model: WorldModel) -> dict[str, Any]:
    """Measure a step of one evaluation with the denoiser offloaded to host memory, which changes the denoiser."""
    denoiser: Any = model.denoiser
    onto = torch.device(part.device)
    denoiser.to("cpu")
    reset_peak(part.device)
    apply_group_offloading(denoiser, onto, offload_type="leaf_level", use_stream=onto.type == "cuda")
    walker, goal = walked(model)
    took = step_seconds(walker, goal, walker.model, part.device)
    return {"evaluations": 1, "seconds_per_step": round(took, 3), "peak_gib": peak_gib(part.device)}


if __name__ == "__main__":
    main()
