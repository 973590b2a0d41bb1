"""Variants of a learned world, driven along true cameras, several walks as one batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mirage_sim.data.clips import Clip
from mirage_sim.geometry import Camera
from mirage_sim.memory import EmptyMemory, RgbMemory
from mirage_sim.world import WorldModel
from mirage_sim.world.images import to_tensor, to_uint8

LATENT, NO_MEMORY, RGB_MEMORY, FIRST_FRAME = "latent_memory", "no_memory", "rgb_memory", "first_frame"
TRUE_DEPTH = "true_depth"
VARIANTS = (LATENT, NO_MEMORY, RGB_MEMORY, TRUE_DEPTH)
TITLES = {
    LATENT: "latent memory",
    NO_MEMORY: "no memory",
    RGB_MEMORY: "RGB memory",
    TRUE_DEPTH: "true depth",
    FIRST_FRAME: "first frame repeated",
}


@dataclass(frozen=True)
class TrueDepth:
    """A depth estimator that returns the true z-depth of the scene, whatever the generated images show.

    Attributes:
        depth: at the next cameras, ``[B, 1, H, W]`` metres; empty until a drive sets it for every step.
    """

    depth: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __call__(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.DepthEstimator.__call__`."""
        return self.depth


@dataclass(frozen=True)
class Rollout:
    """The output of a variant on one walk, indexed by step; step 0 is the true first frame.

    Attributes:
        frames: uint8 ``[S + 1, H, W, 3]``.
        depth: as the variant estimates it, float32 ``[S + 1, H, W]`` in metres, 0 where unknown.
        remembered: float64 ``[S + 1]``, fraction of latent cells that the memory filled.
        nbytes: bytes of the memory after the last step.
    """

    frames: np.ndarray
    depth: np.ndarray
    remembered: np.ndarray
    nbytes: int


def variants_of(model: WorldModel, names: Sequence[str] = VARIANTS) -> dict[str, WorldModel]:
    """Make the variants of a model: the same networks with each of the memories, and with true depth.

    Raises:
        ValueError: for an unknown name.
    """
    unknown = sorted(set(names) - set(VARIANTS))
    if unknown:
        raise ValueError(f"variants: expected some of {VARIANTS}, got {unknown}")
    codec = model.codec
    models = {
        LATENT: model,
        NO_MEMORY: replace(model, memory=EmptyMemory(codec.channels, codec.stride), reprojection=None),
        RGB_MEMORY: replace(model, memory=RgbMemory(codec, codec.stride)),
        TRUE_DEPTH: replace(model, depth=TrueDepth()),
    }
    return {name: models[name] for name in VARIANTS if name in names}


def drive(model: WorldModel, clips: Sequence[Clip], steps: Sequence[int], batch: int = 8) -> list[Rollout]:
    """Start a world from the true first frame of each clip, and move it along the clip's true cameras.

    Args:
        model: the world; the scene's seed is the seed of its noise.
        clips: true walks, of the model's size.
        steps: number of steps for each clip.
        batch: clips per batch.

    Raises:
        ValueError: if a clip is too short or not of the model's size.
    """
    lengths = list(steps)
    for clip, length in zip(clips, lengths, strict=True):
        if clip.cameras.size != tuple(model.size):
            raise ValueError(f"clips: expected frames of the model's size {tuple(model.size)}, got {clip.cameras.size}")
        if not 1 <= length < len(clip):
            raise ValueError(f"steps: expected 1 to {len(clip) - 1} as in the clip, got {length}")
    # clips of similar length share a batch, so that it stays full until its end
    order = sorted(range(len(clips)), key=lambda i: lengths[i])
    rollouts: dict[int, Rollout] = {}
    for first in range(0, len(order), batch):
        group = order[first : first + batch]
        driven = _drive_group(model, [clips[i] for i in group], [lengths[i] for i in group])
        rollouts |= dict(zip(group, driven, strict=True))
    return [rollouts[i] for i in range(len(clips))]


def _model_at(model: WorldModel, clips: Sequence[Clip], step: int) -> WorldModel:
    """The model for a step of the clips, with the true depth of this step if it uses true depth."""
    if not isinstance(model.depth, TrueDepth):
        return model
    depth = torch.stack([clip.depth[step : step + 1].float() for clip in clips])
    return replace(model, depth=TrueDepth(depth.to(model.device)))


def _drive_group(model: WorldModel, clips: list[Clip], lengths: list[int]) -> list[Rollout]:
    cameras = [clip.cameras.to(model.device) for clip in clips]
    states, frames, depths, remembered = [], [], [], []
    for clip, camera in zip(clips, cameras, strict=True):
        keyframe = clip.frames[0].numpy()
        state, chunk = _model_at(model, [clip], 0).init(
            to_tensor(keyframe, model.device), camera[0], int(clip.source["seed"])
        )
        states.append(state)
        frames.append([keyframe])
        depths.append([chunk.depth[-1].cpu().numpy()])
        remembered.append([1.0])
    for step in range(1, max(lengths) + 1):
        active = [i for i, length in enumerate(lengths) if step <= length]
        ahead = [cameras[i][step : step + 1] for i in active]
        step_model = _model_at(model, [clips[i] for i in active], step)
        advanced, chunks = step_model.advance([states[i] for i in active], ahead)
        for i, state, chunk in zip(active, advanced, chunks, strict=True):
            states[i] = state
            frames[i].append(to_uint8(chunk.frames[:, -1]))
            depths[i].append(chunk.depth[-1].cpu().numpy())
            remembered[i].append(float((chunk.known > 0).float().mean()))
    return [
        Rollout(np.stack(frames[i]), np.stack(depths[i]), np.array(remembered[i]), int(states[i].map.nbytes))
        for i in range(len(clips))
    ]


def repeat_first_frame(clip: Clip, steps: int) -> Rollout:
    """The baseline without motion: the true first frame and its true depth at every step."""
    frame, depth = clip.frames[0].numpy(), clip.depth[0].float().numpy()
    return Rollout(
        frames=np.repeat(frame[None], steps + 1, axis=0),
        depth=np.repeat(depth[None], steps + 1, axis=0),
        remembered=np.ones(steps + 1),
        nbytes=0,
    )
