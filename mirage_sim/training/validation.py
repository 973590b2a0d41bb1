"""Validation scores, by which a recipe chooses among weights. Higher is better."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mirage_sim.build import instantiate
from mirage_sim.data.clips import Clip
from mirage_sim.data.dataset import WalkDataset
from mirage_sim.training.mini_stages import Networks, build_objective
from mirage_sim.training.objectives.codec import to_float_images
from mirage_sim.training.objectives.denoiser import gradient_energy
from mirage_sim.world import WorldModel
from mirage_sim.world.images import to_tensor

STEPS = (4, 16)  # steps at which frames are compared with the true ones
BAND = 0.8, 1.25  # range of sharpness without a penalty
DECIBELS_PER_OCTAVE = 6.0  # penalty outside of the band: blur alone raises the PSNR by a few decibels
PSNR_CAP = 50.0  # dB per frame, so that exact copies do not dominate a mean
BATCHES, BATCH = 12, 8

Scores = dict[str, float]


@torch.no_grad()
def stage_scores(name: str, data: WalkDataset, networks: Networks, options: Mapping[str, Any]) -> Scores:
    """Compute the mean terms of a stage's objective over a few fixed batches, and ``score``, the negative loss."""
    options = {**options, "batch": BATCH, "precision": "float32"}
    _, objective = build_objective(name, data, networks.to(data.device), options)
    totals: dict[str, Tensor] = {}
    for number in range(BATCHES):
        for term, value in objective(torch.Generator(data.device).manual_seed(number)).items():
            totals[term] = totals.get(term, 0) + value / BATCHES
    means = {term: round(float(total), 5) for term, total in totals.items()}
    return means | {"score": -means["loss"]}


def world_scores(world: Mapping[str, Any], weights: Mapping[str, Path], clips: Sequence[Clip]) -> Scores:
    """Compute PSNR and sharpness of rollouts along recorded cameras, and ``score``, which combines them.

    The score is the mean PSNR minus a penalty for sharpness outside of ``BAND``.

    Args:
        world: configuration as in ``configs/world/mini.yaml``.
        weights: paths of the networks' weights, by name.
        clips: recorded walks of more than 16 steps.
    """
    parts = {name: {**world[name], "path": str(path.absolute())} for name, path in weights.items()}
    model = instantiate({**world, **parts})
    frames, true = [], []
    for first in range(0, len(clips), BATCH):
        group = clips[first : first + BATCH]
        frames.append(_drive(model, group))
        true.append(torch.stack([to_float_images(clip.frames[list(STEPS)]) for clip in group], dim=1))
    return _compare(torch.cat(frames, dim=1), torch.cat(true, dim=1))


@torch.inference_mode()
def _drive(model: WorldModel, clips: Sequence[Clip]) -> Tensor:
    """Roll out the world along the clips' cameras; return frames ``[steps, clips, 3, H, W]`` at ``STEPS``."""
    states = [
        model.init(to_tensor(clip.frames[0].numpy(), model.device), clip.cameras[0], int(clip.source["seed"]))[0]
        for clip in clips
    ]
    shown = []
    for step in range(1, max(STEPS) + 1):
        states, chunks = model.advance(states, [clip.cameras[step : step + 1] for clip in clips])
        if step in STEPS:
            shown.append(torch.stack([chunk.frames[:, -1] for chunk in chunks]).clamp(-1, 1))
    return torch.stack(shown)


def _compare(generated: Tensor, true: Tensor) -> Scores:
    squared = (generated - true).square().flatten(2).mean(2) / 4
    decibels = (-10 * torch.log10(squared.clamp(min=10 ** (-PSNR_CAP / 10)))).mean(1)
    pairs = zip(generated, true, strict=True)
    sharpness = [float(gradient_energy(frames) / gradient_energy(true_frames)) for frames, true_frames in pairs]
    octaves = [max(math.log2(BAND[0] / s), math.log2(s / BAND[1]), 0.0) for s in (max(s, 1e-6) for s in sharpness)]
    score = float(decibels.mean()) - DECIBELS_PER_OCTAVE * sum(octaves) / len(octaves)
    scores = {f"psnr_{step}": round(float(value), 3) for step, value in zip(STEPS, decibels, strict=True)}
    scores |= {f"sharpness_{step}": round(value, 3) for step, value in zip(STEPS, sharpness, strict=True)}
    return scores | {"score": round(score, 3)}
