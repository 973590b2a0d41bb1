"""The world model: a stateless function from one world state to the next."""

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
    Denoiser,
    DepthEstimator,
    MemoryView,
    Sampler,
    SpatialMemory,
    StaticFilter,
    TextEncoder,
)
from mirage_sim.world.chunks import Horizon
from mirage_sim.world.conditioning import References
from mirage_sim.world.generation import decode, denoise
from mirage_sim.world.history import History
from mirage_sim.world.keyframes import MAX_BYTES, Keyframe, Keyframes
from mirage_sim.world.state import Chunk, Stopwatch, WorldState


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
        reprojection: tolerance in pixels within which a frame shows the pixels of a keyframe instead of decoded ones
            (:meth:`~mirage_sim.world.keyframes.Keyframe.locate`). The composed frame is then encoded
            again, so that frames and latents agree. None disables reprojection. Requires chunks that do not overlap,
            where every frame has a depth.
        keyframe_bytes: most bytes of the images and depth maps of a world's keyframes; whole ones are forgotten beyond,
            those shown longest ago first.

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
    keyframe_bytes: int = MAX_BYTES

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
            ("keyframes", _presence(self.reprojection), _presence(state.keyframes)),
        ):
            if tuple(expected) != tuple(got):
                raise ValueError(f"state: expected {name} {tuple(expected)} of this model, got {tuple(got)}")

    @own_torch()
    @torch.inference_mode()
    def init(
        self, image: Tensor, camera: Camera, seed: int, prompt: str | None = None, depth: Tensor | None = None
    ) -> tuple[WorldState, Chunk]:
        """Start a world from one image.

        Args:
            image: float32 ``[3, H, W]`` in [-1, 1].
            camera: of the image, batch shape ``()``, size ``(H, W)``.
            seed: of the episode, in [0, 2^63).
            prompt: text prompt of the episode; None for the model's own :attr:`prompt`.
            depth: measured z-depth ``[H, W]`` in metres, 0 where unknown; None to estimate it.

        Returns:
            The state, and a chunk with the image, its latents and its depth.

        Raises:
            ValueError: if a shape or size is not the model's, or a prompt is passed to a model without prompts.
        """
        self._check_image(image, camera, depth)
        text = self._embed(prompt)
        no_latents = image.new_zeros(self.codec.channels, 0, *self.grid)
        history = History(text, no_latents) if self.horizon.overlap else None
        keyframes = None if self.reprojection is None else Keyframes()
        empty = WorldState(self.memory.empty(), no_latents, camera, seed, -1, history, keyframes)
        state, chunk = self._observe(empty, image, camera, depth)
        if history:
            (stream,) = decode(self, [empty], chunk.latents[None])[1]
            path = Camera(camera.c2w[None], camera.K[None], camera.size)
            history = self._extend(empty, chunk, path, stream)
        return replace(state, preceding=chunk.latents, step=0, history=history), chunk

    @own_torch()
    @torch.inference_mode()
    def observe(
        self, state: WorldState, image: Tensor, camera: Camera, depth: Tensor | None = None, move: bool = False
    ) -> tuple[WorldState, Chunk]:
        """Add a real observation to a world.

        Its points come before all generated ones; points that it contradicts, because the camera looked through them,
        are forgotten. The image becomes a keyframe.

        Args:
            state: of the world; it does not change.
            image: float32 ``[3, H, W]`` in [-1, 1].
            camera: of the image, batch shape ``()``, size ``(H, W)``.
            depth: measured z-depth ``[H, W]`` in metres, 0 where unknown; None to estimate it, aligned with what the
                memory shows.
            move: whether the world goes on from this camera and image, instead of from where it was.

        Returns:
            The state, and a chunk with the image, its latents and its depth.

        Raises:
            ValueError: if a shape or size is not the model's, or ``move`` with overlapping chunks.
        """
        self._check_image(image, camera, depth)
        if move and self.horizon.overlap:
            raise ValueError("move: expected False for a model with overlapping chunks, got True")
        after, chunk = self._observe(state, image, camera, depth)
        if move:
            after = replace(after, camera=camera, preceding=chunk.latents)
        return after, chunk

    @own_torch()
    @torch.inference_mode()
    def start_at(self, state: WorldState, index: int) -> tuple[WorldState, Chunk]:
        """Move a world to one of its keyframes.

        Args:
            state: of a world with keyframes; it does not change.
            index: of the keyframe.

        Returns:
            The state, and a chunk with the keyframe's image, its latents and its depth.
        """
        entry = (state.keyframes or Keyframes()).entries[index]
        camera = Camera(entry.camera.c2w[None], entry.camera.K[None], entry.camera.size)
        frames = (entry.image.float() / 127.5 - 1.0)[:, None]
        latents = self.codec.encode(frames[None])[0]
        view = self.memory.read(state.map, camera)
        chunk = Chunk(frames, entry.depth[None], view, view.surface(self.grid), latents, {})
        return replace(state, camera=entry.camera, preceding=latents), chunk

    def _check_image(self, image: Tensor, camera: Camera, depth: Tensor | None) -> None:
        for name, tensor, shape in (("image", image, (3, *self.size)), ("depth", depth, tuple(self.size))):
            if tensor is None and name == "depth":
                continue
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                got = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
                unit = "metres" if name == "depth" else "[-1, 1]"
                raise ValueError(f"{name}: expected a float32 tensor {list(shape)} in {unit}, got {got}")
        if tuple(camera.size) != tuple(self.size) or tuple(camera.batch_shape) != ():
            raise ValueError(
                f"camera: expected a single camera of size {tuple(self.size)}, "
                f"got batch shape {list(camera.batch_shape)} and size {tuple(camera.size)}"
            )

    def _observe(
        self, state: WorldState, image: Tensor, camera: Camera, depth: Tensor | None
    ) -> tuple[WorldState, Chunk]:
        """Encode an image, estimate its depth unless it was measured, and write both; the camera stays."""
        path = Camera(camera.c2w[None], camera.K[None], camera.size)
        watch = Stopwatch()
        view = self.memory.read(state.map, path)
        watch.lap("read")
        frames = image[None, :, None]
        latents = self.codec.encode(frames)
        watch.lap("encode")
        views, cameras = MemoryView.stack([view]), Camera.stack([path])
        known = views.surface(self.grid)
        depths = self.depth(frames, cameras, known) if depth is None else depth[None, None]
        watch.lap("depth")
        # an observation that contradicts the memory is right: the filter compares it with nothing
        nothing = MemoryView.stack([self.memory.read(self.memory.empty(), path)])
        static = self.static_filter(frames, depths, nothing, cameras)
        map, keyframes = state.map, state.keyframes
        map = self.memory.observe(
            map, latents=latents[0], frames=frames[0], depth=depths[0], static=static[0], camera=path
        )
        if keyframes is not None:
            pixels = image.add(1.0).mul(127.5).round().clamp(0, 255).byte()
            keyframe = Keyframe(pixels, depths[0, 0], camera, measured=depth is not None)
            keyframes = keyframes.add(keyframe, state.step, self.keyframe_bytes)
        watch.lap("write")
        chunk = Chunk(frames[0], depths[0], view, known[0], latents[0], watch.seconds)
        return replace(state, map=map, keyframes=keyframes), chunk

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
        watch = Stopwatch()
        views = [self.memory.read(state.map, camera) for state, camera in zip(states, ahead, strict=True)]
        watch.lap("read")
        latents = denoise(self, states, views, ahead)[:, :, kept]
        watch.lap("denoise")
        frames, streams = decode(self, states, latents)
        watch.lap("decode")
        views, paths = [view.at(kept) for view in views], [camera[kept] for camera in ahead]
        view, camera = MemoryView.stack(views), Camera.stack(paths)
        known = view.surface(self.grid)
        depth = self.depth(self._latent_frames(frames), camera, known)
        watch.lap("depth")
        if self.reprojection is not None:
            states, frames, latents, depth = self._reproject(states, frames, depth, known, paths)
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

    def _latent_frames(self, frames: Tensor) -> Tensor:
        """Select from frames ``[..., F, H, W]`` the last pixel frame of each latent frame, ``[..., T, H, W]``."""
        stride = self.codec.stride[0]
        return frames[..., (frames.shape[-3] - 1) % stride :: stride, :, :]

    def _reproject(
        self, states: Sequence[WorldState], frames: Tensor, depth: Tensor, known: Tensor, paths: Sequence[Camera]
    ) -> tuple[list[WorldState], Tensor, Tensor, Tensor]:
        """Insert measured depth and the keyframes' pixels into the frames, and encode the result.

        Returns:
            The states, with what is known about when a keyframe was shown; frames, latents and depth.
        """
        after, composed, depths = list(states), list(frames), list(depth)
        for i, (state, path) in enumerate(zip(states, paths, strict=True)):
            if state.keyframes and self.reprojection is not None:
                chosen = state.keyframes.choose(known[i, 0], path[0])
                measured = state.keyframes.measured_depth(chosen, path[0])
                if measured is not None:
                    depths[i] = torch.where(measured > 0, measured, depth[i])
                composed[i], keyframes = state.keyframes.reproject(
                    chosen, frames[i], depths[i], path, self.reprojection, state.step + 1
                )
                after[i] = replace(state, keyframes=keyframes)
        frames = torch.stack(composed)
        return after, frames, self.codec.encode(frames), torch.stack(depths)

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
        history = self._extend(state, chunk, path, stream)
        preceding = torch.cat([state.preceding, chunk.latents], dim=1)[:, -self.horizon.window :]
        return WorldState(map, preceding, path[-1], state.seed, state.step + 1, history, state.keyframes)

    def _extend(self, state: WorldState, chunk: Chunk, path: Camera, stream: Any) -> History | None:
        """Return the history of a world after a chunk, for a model with overlapping chunks; None for others."""
        if state.history is None:
            return None
        latents = torch.cat([state.preceding, chunk.latents], dim=1)
        readout = chunk.view.resize(self.grid).latents
        places = self.references.places(resample_depth(chunk.depth, self.grid), path)
        return state.history.extend(latents, readout, places, stream, self.horizon.window)


def _kind(map: Any) -> tuple[Any, ...]:
    """Return what all maps of one kind of memory have in common."""
    return type(map).__name__, getattr(map, "channels", None), "compact" if getattr(map, "compact", False) else "full"


def _presence(value: Any) -> tuple[str]:
    return ("absent" if value is None else "present",)
