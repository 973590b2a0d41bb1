"""The world model: a stateless function from one world state to the next."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mirage_sim.ambient import own_torch
from mirage_sim.geometry import Camera
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.protocols import (
    Codec,
    Conditioning,
    Denoiser,
    DepthEstimator,
    MemoryView,
    Sampler,
    SpatialMemory,
    StaticFilter,
    TextEncoder,
)
from mirage_sim.world.chunks import Horizon
from mirage_sim.world.conditioning import References, build_conditioning, stack_references
from mirage_sim.world.history import History
from mirage_sim.world.keyframes import Keyframe
from mirage_sim.world.noise import noise
from mirage_sim.world.state import Chunk, WorldState


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
    """Networks and a spatial memory that advance worlds step by step.

    A model holds no state of any world, so all worlds of a process can share one instance.

    Attributes:
        codec: encodes frames to latents and decodes them. Overlapping chunks need a
            :class:`~mirage_sim.protocols.StreamingCodec`.
        denoiser: predicts the velocity field.
        depth: estimates the z-depth of the new frames, one per latent frame.
        static_filter: decides which pixels the memory may store.
        memory: writes and reads the map.
        sampler: integrates the velocity field.
        size: ``(height, width)`` of all frames, in pixels.
        device: of the networks. Images and cameras must be on it, too.
        horizon: how many latent frames one denoising generates, and how many of them make up a step.
        references: how reference frames are chosen; used with overlapping chunks only.
        text: embeds prompts; None for a model without prompts.
        prompt: default prompt of an episode.
        reprojection: tolerance in pixels within which a frame shows the pixels of the episode's keyframe instead of
            decoded ones (:meth:`~mirage_sim.world.keyframes.Keyframe.reproject`). The composed frame is then encoded
            again, so that frames and latents agree. None disables reprojection. Requires chunks that do not overlap,
            where every frame has a depth.

    Raises:
        ValueError: if codec, size, horizon and reprojection are incompatible.
    """

    codec: Codec
    denoiser: Denoiser
    depth: DepthEstimator
    static_filter: StaticFilter
    memory: SpatialMemory
    sampler: Sampler
    size: tuple[int, int] = (96, 128)
    device: torch.device | str = field(default="cpu")
    horizon: Horizon = Horizon()
    references: References = References()
    text: TextEncoder | None = None
    prompt: str = ""
    reprojection: float | None = None

    def __post_init__(self) -> None:
        _, y, x = self.codec.stride
        if self.size[0] % y or self.size[1] % x:
            raise ValueError(f"size: expected multiples of {y} and {x}, the codec's stride, got {tuple(self.size)}")
        self.horizon.frames(self.codec.stride[0])
        if self.horizon.overlap and not hasattr(self.codec, "decode_next"):
            raise ValueError(f"codec: expected a streaming codec for overlapping chunks, got {type(self.codec)}")
        pixels = self.reprojection
        if pixels is not None:
            if isinstance(pixels, bool) or not isinstance(pixels, (int, float)) or not 0.0 < pixels < float("inf"):
                raise ValueError(f"reprojection: expected None or a positive number of pixels, got {pixels!r}")
            if self.horizon.overlap:
                raise ValueError(f"reprojection: expected None with overlapping chunks, got {pixels}")

    def __deepcopy__(self, memo: dict[int, Any]) -> "WorldModel":
        # The model is immutable, and Gymnasium deep-copies environment specifications, which may hold one.
        return self

    @property
    def frames(self) -> int:
        """Number of pixel frames per step."""
        return self.horizon.frames(self.codec.stride[0])

    @property
    def dt(self) -> float:
        """Simulated seconds per step."""
        return self.horizon.dt(self.codec.stride[0])

    @property
    def grid(self) -> tuple[int, int]:
        """``(height, width)`` of the latents."""
        _, y, x = self.codec.stride
        return self.size[0] // y, self.size[1] // x

    def check(self, state: WorldState) -> None:
        """Check that this model can advance a state.

        Raises:
            ValueError: if the state's frames, latents, map or keyframe belong to another kind of model.
        """
        for name, expected, got in (
            ("frames", self.size, state.camera.size),
            ("latents", (self.codec.channels, *self.grid), (*state.preceding.shape[:1], *state.preceding.shape[2:])),
            ("a map", _kind(self.memory.empty()), _kind(state.map)),
            ("a keyframe", _presence(self.reprojection), _presence(state.keyframe)),
        ):
            if tuple(expected) != tuple(got):
                raise ValueError(f"state: expected {name} {tuple(expected)} of this model, got {tuple(got)}")

    @own_torch()
    @torch.inference_mode()
    def init(self, image: Tensor, camera: Camera, seed: int, prompt: str | None = None) -> tuple[WorldState, Chunk]:
        """Start a world from one image.

        Args:
            image: float32 ``[3, H, W]`` in [-1, 1].
            camera: of the image, batch shape ``()``, size ``(H, W)``.
            seed: of the episode, in [0, 2^63).
            prompt: text prompt of the episode; None for the model's own :attr:`prompt`.

        Returns:
            The state, and a chunk with the image, its latents and its estimated depth.

        Raises:
            ValueError: if a shape or size is not the model's, or a prompt is passed to a model without prompts.
        """
        if not isinstance(image, Tensor) or tuple(image.shape) != (3, *self.size) or image.dtype != torch.float32:
            expected = f"a float32 tensor [3, {self.size[0]}, {self.size[1]}] in [-1, 1]"
            got = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"image: expected {expected}, got {got}")
        if tuple(camera.size) != tuple(self.size) or tuple(camera.batch_shape) != ():
            raise ValueError(
                f"camera: expected a single camera of size {tuple(self.size)}, "
                f"got batch shape {list(camera.batch_shape)} and size {tuple(camera.size)}"
            )
        text = self._embed(prompt)
        no_latents = image.new_zeros(self.codec.channels, 0, *self.grid)
        history = History(text, no_latents) if self.horizon.overlap else None
        empty = WorldState(self.memory.empty(), no_latents, camera, seed, -1, history)
        path = Camera(camera.c2w[None], camera.K[None], camera.size)
        watch = _Stopwatch()
        view = self.memory.read(empty.map, path)
        watch.lap("read")
        frames = image[None, :, None]
        latents = self.codec.encode(frames)
        watch.lap("encode")
        _, (stream,) = self._decode([empty], latents) if history else (frames, [None])
        views, cameras = MemoryView.stack([view]), Camera.stack([path])
        known = views.surface(self.grid)
        depth = self.depth(frames, cameras, known)
        watch.lap("depth")
        static = self.static_filter(frames, depth, views, cameras)
        chunk = Chunk(frames[0], depth[0], view, known[0], latents[0], watch.seconds)
        state = self._write(empty, chunk, path, static[0], stream)
        watch.lap("write")
        if self.reprojection is not None:
            state = replace(state, keyframe=Keyframe(image, chunk.depth[-1], camera))
        return state, chunk

    @own_torch()
    @torch.inference_mode()
    def advance(self, states: Sequence[WorldState], cameras: Sequence[Camera]) -> tuple[list[WorldState], list[Chunk]]:
        """Advance each of ``B`` worlds by one step; the states passed in do not change.

        The networks process all worlds as one batch. Maps are read and written one by one.

        Args:
            states: of the ``B`` worlds.
            cameras: per world one camera per *pixel* frame of the step (:attr:`frames`), batch shape ``[F]``, on the
                model's device; see :meth:`Horizon.path`. Poses are not checked here:
                :class:`~mirage_sim.world.World` checks that they are rigid.

        Returns:
            The new states and the generated chunks.

        Raises:
            ValueError: if numbers, sizes or batch shapes do not match.
        """
        self._check(states, cameras)
        stride, horizon = self.codec.stride[0], self.horizon
        kept = slice(horizon.overlap, horizon.overlap + horizon.keep)
        ahead = [horizon.ahead(state.camera, path, stride) for state, path in zip(states, cameras, strict=True)]
        watch = _Stopwatch()
        views = [self.memory.read(state.map, camera) for state, camera in zip(states, ahead, strict=True)]
        watch.lap("read")
        latents = self._denoise(states, views, ahead)[:, :, kept]
        watch.lap("denoise")
        frames, streams = self._decode(states, latents)
        watch.lap("decode")
        views, paths = [view.at(kept) for view in views], [camera[kept] for camera in ahead]
        view, camera = MemoryView.stack(views), Camera.stack(paths)
        known = view.surface(self.grid)
        depth = self.depth(self._latent_frames(frames), camera, known)
        watch.lap("depth")
        if self.reprojection is not None:
            frames, latents = self._reproject(states, frames, depth, paths)
            watch.lap("reproject")
        static = self.static_filter(self._latent_frames(frames), depth, view, camera)
        chunks = [Chunk(*parts, watch.seconds) for parts in zip(frames, depth, views, known, latents, strict=True)]
        after = [self._write(*world) for world in zip(states, chunks, paths, static, streams, strict=True)]
        watch.lap("write")
        return after, chunks

    def _check(self, states: Sequence[WorldState], cameras: Sequence[Camera]) -> None:
        if not states or len(states) != len(cameras):
            raise ValueError(
                f"states, cameras: expected one or more and equally many, got {len(states)} and {len(cameras)}"
            )
        for camera in cameras:
            if tuple(camera.size) != tuple(self.size) or tuple(camera.batch_shape) != (self.frames,):
                raise ValueError(
                    f"cameras: expected batch shape [{self.frames}] and size {tuple(self.size)} for each world, "
                    f"got {list(camera.batch_shape)} and {tuple(camera.size)}"
                )

    def _embed(self, prompt: str | None) -> Tensor | None:
        if self.text is None:
            if prompt is not None:
                raise ValueError(f"prompt: expected None for a model without prompts, got {prompt!r}")
            return None
        return self.text.embed([self.prompt if prompt is None else prompt])[0].to(self.device)

    def _denoise(self, states: Sequence[WorldState], views: Sequence[MemoryView], ahead: Sequence[Camera]) -> Tensor:
        """Generate the latents ``[B, C, T, h, w]`` of chunks at cameras ``[T]`` each.

        Worlds with equal numbers of preceding latents and reference frames are denoised as one batch.
        """
        references = [self._references(*world) for world in zip(states, views, ahead, strict=True)]
        batches: dict[tuple[int, int], list[int]] = {}
        for i, (state, chosen) in enumerate(zip(states, references, strict=True)):
            batches.setdefault((state.preceding.shape[1], chosen.shape[1]), []).append(i)
        shape = (self.codec.channels, self.horizon.latents, *self.grid)
        chunks: dict[int, Tensor] = {}
        for batch in batches.values():
            conditioning = self._conditioning(
                [states[i] for i in batch],
                MemoryView.stack([views[i] for i in batch]),
                Camera.stack([ahead[i] for i in batch]),
                torch.stack([references[i] for i in batch]),
            )
            start = torch.stack([noise(states[i].seed, states[i].step + 1, shape) for i in batch])
            start = start.to(conditioning.preceding.device)
            latents = self.sampler.sample(self.denoiser, self.denoiser.condition(conditioning), start)
            chunks |= zip(batch, latents, strict=True)
        return torch.stack([chunks[i] for i in range(len(states))])

    def _references(self, state: WorldState, view: MemoryView, ahead: Camera) -> Tensor:
        """Latents ``[C, R, h, w]`` of the earlier frames that overlap most with the coming view."""
        if state.history is None or not state.history.earlier:
            return state.preceding[:, :0]
        new = slice(self.horizon.overlap, None)
        place = self.references.place(view.at(new).surface(self.grid), ahead[new])
        chosen = self.references.choose(place, [frame.place for frame in state.history.earlier])
        return stack_references([state.history.earlier[i].latents for i in chosen], state.preceding)

    def _conditioning(
        self, states: Sequence[WorldState], view: MemoryView, ahead: Camera, references: Tensor
    ) -> Conditioning:
        latents, context = torch.stack([state.preceding for state in states]), {}
        histories = [state.history for state in states if state.history]
        if histories:
            texts = [history.text for history in histories if history.text is not None]
            context = {
                "first": latents[:, :, -1:],
                "references": references,
                "preceding_readout": torch.stack([history.readout[:, :-1] for history in histories]),
                "text": torch.stack(texts) if texts else None,
            }
            latents = latents[:, :, :-1]
        return build_conditioning(view, latents, Camera.stack([state.camera for state in states]), ahead, **context)

    def _decode(self, states: Sequence[WorldState], latents: Tensor) -> tuple[Tensor, list[Any]]:
        """Decode latents ``[B, C, T, h, w]`` to frames ``[B, 3, F, H, W]`` and the codec's streams after them."""
        if not self.horizon.overlap:
            return self.codec.decode(latents), [None] * len(states)
        codec: Any = self.codec
        frames, streams = [], []
        for state, chunk in zip(states, latents, strict=True):
            stream, parts = state.history and state.history.stream, []
            for latent in chunk.split(1, dim=1):
                part, stream = codec.decode_next(latent[None], stream)
                parts.append(part)
            frames.append(torch.cat(parts, dim=2))
            streams.append(stream)
        return torch.cat(frames), streams

    def _latent_frames(self, frames: Tensor) -> Tensor:
        """Select from frames ``[..., F, H, W]`` the last pixel frame of each latent frame, ``[..., T, H, W]``."""
        stride = self.codec.stride[0]
        return frames[..., (frames.shape[-3] - 1) % stride :: stride, :, :]

    def _reproject(
        self, states: Sequence[WorldState], frames: Tensor, depth: Tensor, paths: Sequence[Camera]
    ) -> tuple[Tensor, Tensor]:
        """Insert the keyframes' pixels into the frames and encode the result; returns frames and latents."""
        composed = list(frames)
        for i, (state, path) in enumerate(zip(states, paths, strict=True)):
            if state.keyframe is not None and self.reprojection is not None:
                composed[i] = state.keyframe.reproject(frames[i], depth[i], path, self.reprojection)
        frames = torch.stack(composed)
        return frames, self.codec.encode(frames)

    def _write(self, state: WorldState, chunk: Chunk, path: Camera, static: Tensor, stream: Any) -> WorldState:
        """Add a chunk to the memory and the history of its world.

        Args:
            state: before the chunk.
            chunk: the new frames.
            path: cameras of the latent frames, batch shape ``[T]``.
            static: bool ``[T, H, W]``; False is not written.
            stream: the codec's, after the chunk.
        """
        map = self.memory.write(
            state.map,
            latents=chunk.latents,
            frames=self._latent_frames(chunk.frames),
            depth=chunk.depth,
            static=static,
            camera=path,
        )
        latents, history = torch.cat([state.preceding, chunk.latents], dim=1), state.history
        if history:
            readout = chunk.view.resize(self.grid).latents
            places = self.references.places(resample_depth(chunk.depth, self.grid), path)
            history = history.extend(latents, readout, places, stream, self.horizon.window)
        preceding = latents[:, -self.horizon.window :]
        return WorldState(map, preceding, path[-1], state.seed, state.step + 1, history, state.keyframe)


def _kind(map: Any) -> tuple[Any, ...]:
    """Return what all maps of one kind of memory have in common."""
    return type(map).__name__, getattr(map, "channels", None), "compact" if getattr(map, "compact", False) else "full"


def _presence(value: Any) -> tuple[str]:
    return ("absent" if value is None else "present",)
