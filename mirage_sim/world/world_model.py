"""The world model: weights are stateless, the world's state is a value, and a step maps one to the next."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.models import FlowSampler
from mirage_sim.protocols import Codec, Denoiser, DepthEstimator, MemoryView, SpatialMemory, StaticFilter
from mirage_sim.world.chunks import latents_of, spread
from mirage_sim.world.conditioning import build_conditioning
from mirage_sim.world.noise import noise


@dataclass(frozen=True)
class WorldState:
    """All that a world is between two steps. Nothing in it ever changes: keeping it is a snapshot, sharing it a fork.

    Attributes:
        map: the spatial memory's map.
        preceding: the latents made last, ``[C, P, h, w]``.
        camera: where the last frame was seen from, batch shape ``()``.
        seed: of the episode; with ``step`` it decides the noise.
        step: chunks made so far.
    """

    map: Any
    preceding: Tensor
    camera: Camera
    seed: int
    step: int


@dataclass(frozen=True)
class Chunk:
    """What one call of the denoiser made for one world.

    Attributes:
        frames: ``[3, F, H, W]`` in [-1, 1].
        depth: estimated z-depth ``[F, H, W]`` in metres, 0 where unknown.
        view: what the memory showed beforehand at the chunk's ``T`` cameras.
        known: depth of it on the latent grid ``[T, h, w]``, metres, 0 in holes.
        latents: ``[C, T, h, w]``.
        seconds: host time of each phase (read, denoise, decode, depth, write), for all worlds of the batch together.
    """

    frames: Tensor
    depth: Tensor
    view: MemoryView
    known: Tensor
    latents: Tensor
    seconds: dict[str, float]


class _Stopwatch:
    """Splits host time into named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now


@dataclass(frozen=True)
class WorldModel:
    """Networks and memory rules, put together. Holds no state of any world, so one instance serves all of them.

    Attributes:
        codec: frames to latents and back.
        denoiser: the velocity field.
        depth: estimates z-depth of new frames.
        static_filter: decides what may be remembered.
        memory: writes and reads the map.
        sampler: integrates the velocity field.
        size: ``(height, width)`` of all frames, in pixels.
        device: where the networks are, and where images and cameras are brought.
    """

    codec: Codec
    denoiser: Denoiser
    depth: DepthEstimator
    static_filter: StaticFilter
    memory: SpatialMemory
    sampler: FlowSampler
    size: tuple[int, int] = (96, 128)
    device: torch.device | str = field(default="cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> "WorldModel":
        # immutable, and environment specifications that hold a model are copied deeply
        return self

    @torch.inference_mode()
    def init(self, image: Tensor, camera: Camera, seed: int) -> WorldState:
        """The world in which nothing but this image has been seen.

        Args:
            image: ``[3, H, W]`` in [-1, 1].
            camera: where it was taken from, batch shape ``()``, size ``(H, W)``.
            seed: of the episode, in [0, 2^63).

        Raises:
            ValueError: if a shape or size is not the model's.
        """
        state, _ = self.observe(image, camera, seed)
        return state

    @torch.inference_mode()
    def observe(self, image: Tensor, camera: Camera, seed: int) -> tuple[WorldState, Chunk]:
        """As :meth:`init`, with the chunk that holds the image, its latents and its estimated depth."""
        if tuple(image.shape) != (3, *self.size):
            raise ValueError(f"image: expected [3, {self.size[0]}, {self.size[1]}], got {list(image.shape)}")
        if tuple(camera.size) != tuple(self.size) or tuple(camera.batch_shape) != ():
            raise ValueError(
                f"camera: expected a single camera of size {tuple(self.size)}, "
                f"got batch shape {list(camera.batch_shape)} and size {tuple(camera.size)}"
            )
        watch = _Stopwatch()
        map = self.memory.empty()
        one = Camera(camera.c2w[None], camera.K[None], camera.size)
        view = self.memory.read(map, one)
        watch.lap("read")
        frames = image[None, :, None]
        latents = self.codec.encode(frames)
        watch.lap("encode")
        return self._remember([map], latents, frames, [view], [one], [seed], [0], watch)[0]

    @torch.inference_mode()
    def advance(self, states: Sequence[WorldState], cameras: Sequence[Camera]) -> tuple[list[WorldState], list[Chunk]]:
        """Generate the next chunk of each world; the states given stay as they were.

        The networks see all worlds as one batch; maps are read and written one by one.

        Args:
            states: of ``B`` worlds.
            cameras: for each world one camera per *pixel* frame of the chunk, batch shape ``[F]``, on the model's
                device. Poses are taken as they are; :class:`~mirage_sim.world.World` checks that they are rigid.

        Returns:
            The new states and the chunks.

        Raises:
            ValueError: if numbers, sizes or batch shapes do not agree.
        """
        self._check(states, cameras)
        watch = _Stopwatch()
        stride = self.codec.stride[0]
        at_latents = [camera[::stride] for camera in cameras]
        views = [self.memory.read(s.map, camera) for s, camera in zip(states, at_latents, strict=True)]
        watch.lap("read")
        conditioning = build_conditioning(
            MemoryView.stack(views),
            torch.stack([state.preceding for state in states]),
            Camera.stack([state.camera for state in states]),
            Camera.stack(at_latents),
        )
        channels, _, height, width = states[0].preceding.shape
        shape = (channels, len(at_latents[0]), height, width)
        start = torch.stack([noise(s.seed, s.step + 1, shape, s.preceding.device) for s in states])
        latents = self.sampler.sample(self.denoiser, self.denoiser.condition(conditioning), start)
        watch.lap("denoise")
        frames = self.codec.decode(latents)
        watch.lap("decode")
        maps, seeds = [state.map for state in states], [state.seed for state in states]
        made = self._remember(maps, latents, frames, views, cameras, seeds, [s.step + 1 for s in states], watch)
        return [state for state, _ in made], [chunk for _, chunk in made]

    def _check(self, states: Sequence[WorldState], cameras: Sequence[Camera]) -> None:
        if not states or len(states) != len(cameras):
            raise ValueError(
                f"states, cameras: expected one or more and equally many, got {len(states)} and {len(cameras)}"
            )
        length = len(cameras[0])
        latents_of(length, self.codec.stride[0])
        for camera in cameras:
            if tuple(camera.size) != tuple(self.size) or tuple(camera.batch_shape) != (length,):
                raise ValueError(
                    f"cameras: expected batch shape [{length}] and size {tuple(self.size)} for each world, "
                    f"got {list(camera.batch_shape)} and {tuple(camera.size)}"
                )

    def _remember(
        self,
        maps: Sequence[Any],
        latents: Tensor,
        frames: Tensor,
        views: Sequence[MemoryView],
        cameras: Sequence[Camera],
        seeds: Sequence[int],
        steps: Sequence[int],
        watch: _Stopwatch,
    ) -> list[tuple[WorldState, Chunk]]:
        """Estimate depth, filter, write: the end of every step. Cameras are per pixel frame."""
        stride = self.codec.stride[0]
        view, camera = MemoryView.stack(list(views)), Camera.stack(cameras)
        known = view.nearest((latents.shape[-2], latents.shape[-1]))
        depth = self.depth(frames, camera, spread(known, stride))
        watch.lap("depth")
        static = self.static_filter(frames, depth, view, camera)
        made = []
        for i, map in enumerate(maps):
            written = self.memory.write(
                map,
                latents=latents[i],
                frames=frames[i, :, ::stride],
                depth=depth[i, ::stride],
                static=static[i, ::stride],
                camera=cameras[i][::stride],
            )
            state = WorldState(written, latents[i, :, -1:], cameras[i][-1], seeds[i], steps[i])
            made.append((state, Chunk(frames[i], depth[i], views[i], known[i], latents[i], watch.seconds)))
        watch.lap("write")
        return [(state, replace(chunk, seconds=dict(watch.seconds))) for state, chunk in made]
