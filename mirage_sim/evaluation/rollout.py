"""Driving a learned world along true cameras, several walks as one batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mirage_sim.data.clips import Clip
from mirage_sim.memory import EmptyMemory, RgbMemory
from mirage_sim.world import WorldModel
from mirage_sim.world.images import to_tensor, to_uint8

LATENT, NO_MEMORY, RGB_MEMORY, FIRST_FRAME = "latent_memory", "no_memory", "rgb_memory", "first_frame"
VARIANTS = (LATENT, NO_MEMORY, RGB_MEMORY)


@dataclass(frozen=True)
class Rollout:
    """What a variant showed on one walk; index = step, index 0 is the true first frame that it was given.

    Attributes:
        frames: uint8 ``[S + 1, H, W, 3]``.
        depth: its own estimate, float32 ``[S + 1, H, W]`` in metres, 0 where unknown.
        remembered: float64 ``[S + 1]``, the part of the latent cells that the memory filled.
        nbytes: size of the memory after the last step.
    """

    frames: np.ndarray
    depth: np.ndarray
    remembered: np.ndarray
    nbytes: int


def variants_of(model: WorldModel, names: Sequence[str] = VARIANTS) -> dict[str, WorldModel]:
    """The same networks with each of the memories; the model's own memory is the one under test.

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
    }
    return {name: models[name] for name in VARIANTS if name in names}


def drive(model: WorldModel, clips: Sequence[Clip], steps: Sequence[int], batch: int = 8) -> list[Rollout]:
    """Give a world the true first frame and the true cameras of each clip, and keep what it shows.

    Args:
        model: the world; it draws its noise from the clip's scene seed.
        clips: true walks, of the model's size.
        steps: how many steps to drive, per clip.
        batch: how many clips go through the networks together.

    Raises:
        ValueError: if a clip is too short or not of the model's size.
    """
    lengths = list(steps)
    for clip, length in zip(clips, lengths, strict=True):
        if clip.cameras.size != tuple(model.size):
            raise ValueError(f"clips: expected frames of the model's size {tuple(model.size)}, got {clip.cameras.size}")
        if not 1 <= length < len(clip):
            raise ValueError(f"steps: expected 1 to {len(clip) - 1} as in the clip, got {length}")
    # alike lengths share a batch, so that it stays full until its end
    order = sorted(range(len(clips)), key=lambda i: lengths[i])
    rollouts: dict[int, Rollout] = {}
    for first in range(0, len(order), batch):
        group = order[first : first + batch]
        made = _drive_group(model, [clips[i] for i in group], [lengths[i] for i in group])
        rollouts |= dict(zip(group, made, strict=True))
    return [rollouts[i] for i in range(len(clips))]


def _drive_group(model: WorldModel, clips: list[Clip], lengths: list[int]) -> list[Rollout]:
    cameras = [clip.cameras.to(model.device) for clip in clips]
    states, frames, depths, remembered = [], [], [], []
    for clip, camera in zip(clips, cameras, strict=True):
        given = clip.frames[0].numpy()
        state, chunk = model.observe(to_tensor(given, model.device), camera[0], int(clip.source["seed"]))
        states.append(state)
        frames.append([given])
        depths.append([chunk.depth[-1].cpu().numpy()])
        remembered.append([1.0])
    for step in range(1, max(lengths) + 1):
        active = [i for i, length in enumerate(lengths) if step <= length]
        advanced, chunks = model.advance([states[i] for i in active], [cameras[i][step : step + 1] for i in active])
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
    """The baseline that never moves: the true first frame, and its true depth, at every step."""
    frame, depth = clip.frames[0].numpy(), clip.depth[0].float().numpy()
    return Rollout(
        frames=np.repeat(frame[None], steps + 1, axis=0),
        depth=np.repeat(depth[None], steps + 1, axis=0),
        remembered=np.ones(steps + 1),
        nbytes=0,
    )
