"""What a world is between two steps, and what a step makes of it: values, which nothing ever writes to."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.protocols import MemoryView
from mirage_sim.world.history import History
from mirage_sim.world.keyframes import Keyframes


@dataclass(frozen=True)
class WorldState:
    """All that a world is between two steps. Nothing in it ever changes: keeping it is a snapshot, sharing it a fork.

    Attributes:
        map: the spatial memory's map.
        preceding: the latents made last, ``[C, P, h, w]``.
        camera: where the last frame was seen from, batch shape ``()``.
        seed: of the episode; with ``step`` it decides the noise.
        step: steps made so far.
        history: what else a backbone looks back at whose chunks overlap; None for others.
        keyframes: observed images, for a model that reprojects them; None for others.
    """

    map: Any
    preceding: Tensor
    camera: Camera
    seed: int
    step: int
    history: History | None = None
    keyframes: Keyframes | None = None


@dataclass(frozen=True)
class Chunk:
    """What one step made of one world: of a chunk of the denoiser the part that is kept.

    Attributes:
        frames: ``[3, F, H, W]`` in [-1, 1].
        depth: estimated z-depth ``[T, H, W]`` in metres, 0 where unknown, of the frames that latent frames end at.
        view: what the memory showed beforehand at the cameras of the ``T`` latent frames.
        known: depth of it on the latent grid ``[T, h, w]``, metres, 0 in holes.
        latents: ``[C, T, h, w]``.
        seconds: host time of each phase (read, denoise, decode, depth, reproject, write), for all worlds of the batch
            together; reproject only where the model does.
    """

    frames: Tensor
    depth: Tensor
    view: MemoryView
    known: Tensor
    latents: Tensor
    seconds: dict[str, float]
