"""The world model: weights are stateless, the world's state is a value, and a step maps one to the next."""

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


def _kind(map: Any) -> tuple[Any, ...]:
    """What maps of one memory have in common."""
    return type(map).__name__, getattr(map, "channels", None), "compact" if getattr(map, "compact", False) else "full"


def _kept(value: Any) -> tuple[str]:
    return ("not kept" if value is None else "kept",)


@dataclass(frozen=True)
class WorldModel:
    """Networks and memory rules, put together. Holds no state of any world, so one instance serves all of them.

    Attributes:
        codec: frames to latents and back; one that streams, where chunks overlap.
        denoiser: the velocity field.
        depth: estimates z-depth of the new frames that latent frames end at.
        static_filter: decides what may be remembered of them.
        memory: writes and reads the map.
        sampler: integrates the velocity field.
        size: ``(height, width)`` of all frames, in pixels.
        device: where the networks are, and where images and cameras are brought.
        horizon: what the denoiser makes at once, and what of it becomes a step.
        references: how earlier frames of a place are chosen; looked at where chunks overlap.
        text: embeds prompts; None for a world that reads none.
        prompt: what an episode is asked for that asks for nothing itself.
        reprojection: how many pixels off a frame may see a surface of the picture that the episode was given, to show
            that picture's own pixels (:meth:`~mirage_sim.world.keyframes.Keyframe.reproject`). The frame is then
            encoded anew,
            so that latents and pictures agree. None: what the codec decodes is shown. Only where chunks do not overlap:
            there every frame is a latent frame, and depth is estimated of no others.

    Raises:
        ValueError: if codec, size, horizon and reprojection do not fit each other.
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
            raise ValueError(f"codec: expected one that streams, for chunks that overlap, got {type(self.codec)}")
        off = self.reprojection
        if off is not None:
            if isinstance(off, bool) or not isinstance(off, (int, float)) or not 0.0 < off < float("inf"):
                raise ValueError(f"reprojection: expected None or a positive number of pixels, got {off!r}")
            if self.horizon.overlap:
                raise ValueError(f"reprojection: expected None where chunks overlap, got {off}")

    def __deepcopy__(self, memo: dict[int, Any]) -> "WorldModel":
        # immutable, and environment specifications that hold a model are copied deeply
        return self

    @property
    def frames(self) -> int:
        """Pixel frames of a step."""
        return self.horizon.frames(self.codec.stride[0])

    @property
    def dt(self) -> float:
        """Simulated seconds of a step."""
        return self.horizon.dt(self.codec.stride[0])

    @property
    def grid(self) -> tuple[int, int]:
        """``(height, width)`` of all latents."""
        _, y, x = self.codec.stride
        return self.size[0] // y, self.size[1] // x

    def check(self, state: WorldState) -> None:
        """Refuse a state that this model cannot go on from.

        Raises:
            ValueError: naming what another kind of model made differently.
        """
        empty = self.memory.empty()
        for name, ours, its in (
            ("frames", self.size, state.camera.size),
            ("latents", (self.codec.channels, *self.grid), (*state.preceding.shape[:1], *state.preceding.shape[2:])),
            ("a map", _kind(empty), _kind(state.map)),
            ("a given picture", _kept(self.reprojection), _kept(state.keyframe)),
        ):
            if tuple(ours) != tuple(its):
                raise ValueError(f"state: expected {name} {tuple(ours)} of this model, got {tuple(its)}")

    @own_torch()
    @torch.inference_mode()
    def init(self, image: Tensor, camera: Camera, seed: int, prompt: str | None = None) -> WorldState:
        """The world in which nothing but this image has been seen.

        Args:
            image: float32 ``[3, H, W]`` in [-1, 1].
            camera: where it was taken from, batch shape ``()``, size ``(H, W)``.
            seed: of the episode, in [0, 2^63).
            prompt: what the episode is asked for; None for the model's own :attr:`prompt`.

        Raises:
            ValueError: if a shape or size is not the model's, or there is a prompt for a world that reads none.
        """
        state, _ = self.observe(image, camera, seed, prompt)
        return state

    @own_torch()
    @torch.inference_mode()
    def observe(self, image: Tensor, camera: Camera, seed: int, prompt: str | None = None) -> tuple[WorldState, Chunk]:
        """As :meth:`init`, with the chunk that holds the image, its latents and its estimated depth."""
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
        watch = _Stopwatch()
        nothing = image.new_zeros(self.codec.channels, 0, *self.grid)
        history = History(text, nothing) if self.horizon.overlap else None
        before = WorldState(self.memory.empty(), nothing, camera, seed, -1, history)
        one = Camera(camera.c2w[None], camera.K[None], camera.size)
        view = self.memory.read(before.map, one)
        watch.lap("read")
        frames = image[None, :, None]
        latents = self.codec.encode(frames)
        watch.lap("encode")
        streams = self._decode([before], latents)[1] if history else [None]  # the picture itself is there already
        state, chunk = self._remember([before], latents, frames, frames, [view], [one], streams, watch)[0]
        if self.reprojection is not None:
            state = replace(state, keyframe=Keyframe(image, chunk.depth[-1], camera))
        return state, chunk

    def _embed(self, prompt: str | None) -> Tensor | None:
        if self.text is None:
            if prompt is not None:
                raise ValueError(f"prompt: expected none for a world that reads none, got {prompt!r}")
            return None
        return self.text.embed([self.prompt if prompt is None else prompt])[0].to(self.device)

    @own_torch()
    @torch.inference_mode()
    def advance(self, states: Sequence[WorldState], cameras: Sequence[Camera]) -> tuple[list[WorldState], list[Chunk]]:
        """Make the next step of each world; the states given stay as they were.

        The networks see all worlds as one batch; maps are read and written one by one.

        Args:
            states: of ``B`` worlds.
            cameras: for each world one camera per *pixel* frame of the step (:attr:`frames`), batch shape ``[F]``, on
                the model's device; see :meth:`Horizon.path`. Poses are taken as they are;
                :class:`~mirage_sim.world.World` checks that they are rigid.

        Returns:
            The new states and the chunks.

        Raises:
            ValueError: if numbers, sizes or batch shapes do not agree.
        """
        self._check(states, cameras)
        watch = _Stopwatch()
        stride, horizon = self.codec.stride[0], self.horizon
        ahead = [horizon.ahead(s.camera, camera, stride) for s, camera in zip(states, cameras, strict=True)]
        views = [self.memory.read(s.map, camera) for s, camera in zip(states, ahead, strict=True)]
        watch.lap("read")
        kept = slice(horizon.overlap, horizon.overlap + horizon.keep)
        latents = self._denoise(states, views, ahead)[:, :, kept]
        watch.lap("denoise")
        frames, streams = self._decode(states, latents)
        watch.lap("decode")
        at_latents, seen = [camera[kept] for camera in ahead], [view.at(kept) for view in views]
        made = self._remember(
            states, latents, frames, frames[:, :, stride - 1 :: stride], seen, at_latents, streams, watch
        )
        return [state for state, _ in made], [chunk for _, chunk in made]

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

    def _denoise(self, states: Sequence[WorldState], views: Sequence[MemoryView], ahead: Sequence[Camera]) -> Tensor:
        """Chunks ``[B, C, T, h, w]`` at cameras ``[T]`` each; worlds that look back at as many frames as one batch."""
        references = [self._references(*world) for world in zip(states, views, ahead, strict=True)]
        alike: dict[tuple[int, int], list[int]] = {}
        for i, (state, chosen) in enumerate(zip(states, references, strict=True)):
            alike.setdefault((state.preceding.shape[1], chosen.shape[1]), []).append(i)
        if len(alike) == 1:
            return self._sample(states, views, ahead, references)
        chunks: dict[int, Tensor] = {}
        for group in alike.values():
            made = self._sample(
                [states[i] for i in group],
                [views[i] for i in group],
                [ahead[i] for i in group],
                [references[i] for i in group],
            )
            chunks |= zip(group, made, strict=True)
        return torch.stack([chunks[i] for i in range(len(states))])

    def _references(self, state: WorldState, view: MemoryView, ahead: Camera) -> Tensor:
        """Latents ``[C, R, h, w]`` of the earlier frames that saw most of what will be seen."""
        if state.history is None or not state.history.earlier:
            return state.preceding[:, :0]
        new = slice(self.horizon.overlap, None)
        place = self.references.place(view.at(new).surface(self.grid), ahead[new])
        chosen = self.references.choose(place, [frame.place for frame in state.history.earlier])
        return stack_references([state.history.earlier[i].latents for i in chosen], state.preceding)

    def _sample(
        self,
        states: Sequence[WorldState],
        views: Sequence[MemoryView],
        ahead: Sequence[Camera],
        references: Sequence[Tensor],
    ) -> Tensor:
        latents, context = torch.stack([state.preceding for state in states]), {}
        histories = [state.history for state in states if state.history]
        if histories:
            texts = [history.text for history in histories if history.text is not None]
            context = {
                "first": latents[:, :, -1:],
                "references": torch.stack(list(references)),
                "preceding_readout": torch.stack([history.readout[:, :-1] for history in histories]),
                "text": torch.stack(texts) if texts else None,
            }
            latents = latents[:, :, :-1]
        conditioning = build_conditioning(
            MemoryView.stack(list(views)),
            latents,
            Camera.stack([state.camera for state in states]),
            Camera.stack(ahead),
            **context,
        )
        shape = (self.codec.channels, self.horizon.latents, *self.grid)
        start = torch.stack([noise(s.seed, s.step + 1, shape) for s in states]).to(latents.device)
        return self.sampler.sample(self.denoiser, self.denoiser.condition(conditioning), start)

    def _decode(self, states: Sequence[WorldState], latents: Tensor) -> tuple[Tensor, list[Any]]:
        """Frames ``[B, 3, F, H, W]`` of latents ``[B, C, T, h, w]``, and each world's stream after them."""
        if not self.horizon.overlap:
            return self.codec.decode(latents), [None] * len(states)
        codec: Any = self.codec
        frames, streams = [], []
        for state, own in zip(states, latents, strict=True):
            stream, parts = state.history and state.history.stream, []
            for latent in own.split(1, dim=1):
                part, stream = codec.decode_next(latent[None], stream)
                parts.append(part)
            frames.append(torch.cat(parts, dim=2))
            streams.append(stream)
        return torch.cat(frames), streams

    def _remember(
        self,
        before: Sequence[WorldState],
        latents: Tensor,
        frames: Tensor,
        at_latents: Tensor,
        views: Sequence[MemoryView],
        cameras: Sequence[Camera],
        streams: Sequence[Any],
        watch: _Stopwatch,
    ) -> list[tuple[WorldState, Chunk]]:
        """Estimate depth, filter, write: the end of every step.

        Args:
            before: the states that it starts from.
            latents: ``[B, C, T, h, w]``.
            frames: all that were made, ``[B, 3, F, H, W]``.
            at_latents: those of them that latent frames end at, ``[B, 3, T, H, W]``.
            views: what the memories showed there.
            cameras: there, batch shape ``[T]`` each.
            streams: the codec's, after the frames.
            watch: times the phases.
        """
        view, camera = MemoryView.stack(list(views)), Camera.stack(cameras)
        known = view.surface(self.grid)
        depth = self.depth(at_latents, camera, known)
        watch.lap("depth")
        keyframe = [state.keyframe for state in before if state.keyframe]
        if keyframe and self.reprojection is not None:
            worlds = zip(keyframe, frames, depth, cameras, strict=True)
            frames = torch.stack([one.reproject(f, d, c, self.reprojection) for one, f, d, c in worlds])
            at_latents, latents = frames, self.codec.encode(frames)
            watch.lap("reproject")
        static = self.static_filter(at_latents, depth, view, camera)
        made = []
        for i, state in enumerate(before):
            map = self.memory.write(
                state.map,
                latents=latents[i],
                frames=at_latents[i],
                depth=depth[i],
                static=static[i],
                camera=cameras[i],
            )
            looked_back = torch.cat([state.preceding, latents[i]], dim=1)
            history = state.history
            if history:
                coarse = resample_depth(depth[i], self.grid)
                places = [self.references.place(coarse[t : t + 1], cameras[i][t : t + 1]) for t in range(len(coarse))]
                readout = views[i].resize(self.grid).latents
                history = history.on(looked_back, readout, places, streams[i], self.horizon.window)
            preceding = looked_back[:, -self.horizon.window :]
            after = WorldState(map, preceding, cameras[i][-1], state.seed, state.step + 1, history, state.keyframe)
            made.append((after, Chunk(frames[i], depth[i], views[i], known[i], latents[i], watch.seconds)))
        watch.lap("write")
        return [(state, replace(chunk, seconds=dict(watch.seconds))) for state, chunk in made]
