"""The world session: the object that environments, ROS nodes, viewers and evaluations drive."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from mirage_sim.ambient import own_torch
from mirage_sim.geometry import Camera
from mirage_sim.world import serialization
from mirage_sim.world.body import Body, LocalObstacles
from mirage_sim.world.checks import check_seed, number, single_camera
from mirage_sim.world.images import builtin_starts, fit, fit_depth, read_depth, read_image, to_tensor
from mirage_sim.world.motion_result import Obstacles
from mirage_sim.world.observation import Observation
from mirage_sim.world.state import Chunk, WorldState
from mirage_sim.world.world_model import WorldModel

START: Any = object()  # default of `image`: use a start image


class NotReset(RuntimeError):  # noqa: N818  (named like Gymnasium's ResetNeeded)
    """Raised if a world is used before ``reset``, ``restore`` or ``load``."""


@dataclass(frozen=True)
class Snapshot:
    """A moment of a world: its complete state and its latest observation."""

    state: WorldState
    observation: Observation


class Session(Protocol):
    """What environments and tasks need of a world, learned or true; :class:`World` describes the members."""

    @property
    def model(self) -> Any:
        """What sessions share; has ``size``, ``(height, width)`` of frames, and ``dt``, seconds per step."""

    @property
    def state(self) -> Any:
        """The current state; has ``step``, the number of steps since the reset."""

    @property
    def camera(self) -> Camera:
        """The camera of the last frame."""

    def step(self, camera: Camera) -> Observation:
        """Move to a camera."""

    def obstacles(self, body: Body) -> Obstacles:
        """Return the obstacles around a body at the current camera."""

    def snapshot(self) -> Any:
        """Return the current moment, which has ``observation``."""

    def restore(self, snapshot: Any) -> Observation:
        """Return to a snapshot."""

    def fork(self, n: int) -> "Sequence[Session]":
        """Return independent sessions that start at the current moment."""


class World:
    """A session in one generated world.

    A session holds the current state, which is immutable, and a model, which several sessions can share. Unless
    ``reset`` receives a camera, the world frame is that of the first camera: +x right, +y down, +z forward, metres.

    Args:
        model: the world model.
        starts: start images, uint8 ``[N, H, W, 3]``, 60 degrees vertical field of view; None for the built-in ones.

    Raises:
        ValueError: if ``starts`` is not such an array.
    """

    def __init__(self, model: WorldModel, starts: np.ndarray | None = None):
        if starts is not None and (
            not isinstance(starts, np.ndarray)
            or starts.dtype != np.uint8
            or starts.ndim != 4
            or starts.shape[-1] != 3
            or 0 in starts.shape
        ):
            got = f"{starts.dtype} {list(starts.shape)}" if isinstance(starts, np.ndarray) else type(starts).__name__
            raise ValueError(f"starts: expected a uint8 array [N, H, W, 3] with N > 0, got {got}")
        self.model = model
        self._starts = starts
        self._now: Snapshot | None = None

    @property
    def starts(self) -> np.ndarray:
        """The start images, uint8 ``[N, H, W, 3]``."""
        return builtin_starts() if self._starts is None else self._starts

    @property
    def state(self) -> WorldState:
        """The current state.

        Raises:
            NotReset: before the first ``reset``.
        """
        return self.snapshot().state

    @property
    def camera(self) -> Camera:
        """The camera of the last frame, batch shape ``()``, on the CPU.

        Raises:
            NotReset: before the first ``reset``.
        """
        return self.snapshot().observation.camera

    @own_torch()
    def reset(
        self,
        image: np.ndarray | str | Path = START,
        start: int | None = None,
        camera: Camera | None = None,
        seed: int = 0,
        fov_deg: float = 60.0,
        prompt: str | None = None,
        depth: np.ndarray | str | Path | None = None,
    ) -> Observation:
        """Start a new world from an image.

        Args:
            image: path or uint8 RGB array ``[H, W, 3]``, sides of 16 to 8192 pixels. It is cropped around its centre to
                the model's aspect ratio and resized. None is an error, because some libraries return it for files
                that they cannot read.
            start: index of a start image to use instead of ``image``; 0 if neither is passed.
            camera: of the image, batch shape ``()``, with the image's size. None for a camera at the origin that looks
                along +z with ``fov_deg``.
            seed: of all generated content, in [0, 2^63).
            fov_deg: vertical field of view of the image in degrees, used without ``camera``.
            prompt: text prompt, for models that read one; None for the model's default.
            depth: measured z-depth of the image: an array ``[H, W]`` in metres, or a path
                (:func:`~mirage_sim.world.images.read_depth`); None to estimate it.

        Returns:
            The first observation. All of its pixels count as remembered.

        Raises:
            FileNotFoundError: if the image does not exist.
            ValueError: if an argument is invalid; the world is then unchanged.
        """
        if image is not START and start is not None:
            raise ValueError(f"image, start: expected at most one of them, got both (start={start})")
        check_seed(seed)
        if prompt is not None and not isinstance(prompt, str):
            raise ValueError(f"prompt: expected a text, got {prompt!r}")
        picture, camera, measured = self._fitted(
            self._start(start) if image is START else image, camera, depth, fov_deg
        )
        tensor = to_tensor(picture, self.model.device)
        state, chunk = self.model.init(tensor, camera.to(self.model.device), int(seed), prompt, measured)
        return self._show(state, chunk, camera, picture)

    def step(self, camera: Camera) -> Observation:
        """Move to a camera and render the way there.

        Args:
            camera: batch shape ``()``, size of the model's frames, absolute pose in the world frame. If a step has
                several frames, the camera moves there at a constant twist.

        Raises:
            NotReset: before the first ``reset``.
            ValueError: if the camera is invalid; the world is then unchanged.
        """
        return step_together([self], [camera])[0]

    @own_torch()
    def observe(
        self,
        image: np.ndarray | str | Path,
        camera: Camera | None = None,
        depth: np.ndarray | str | Path | None = None,
        *,
        move: bool = False,
        fov_deg: float = 60.0,
    ) -> Observation:
        """Add a real observation to the memory, at any moment of an episode.

        Observed points come before all generated ones. Points that the camera looked through are forgotten: wrong
        generation, and things that moved. Frames that see the same surfaces show this image's pixels from now on. Forks
        and snapshots made before are not affected.

        Args:
            image: a path or uint8 RGB ``[H, W, 3]``, as for :meth:`reset`.
            camera: of the image, batch shape ``()``, in the world frame; None for the present place.
            depth: measured z-depth, as for :meth:`reset`; None to estimate it, aligned with what is remembered.
            move: whether the world goes on from this camera and image.
            fov_deg: vertical field of view of the whole image in degrees, where no camera is passed.

        Returns:
            The image with ``move``, otherwise the last observation; the next :meth:`step` shows what was observed.

        Raises:
            NotReset: before the first ``reset``.
            FileNotFoundError: if a file does not exist.
            ValueError: naming the argument, what was expected and what came; the world is then as it was.
        """
        now = self.snapshot()
        if camera is None:
            height, width = read_image(image).shape[:2]
            camera = Camera.from_fov(now.observation.camera.c2w, number("fov_deg", fov_deg), (height, width))
        picture, camera, measured = self._fitted(image, camera, depth, fov_deg)
        tensor = to_tensor(picture, self.model.device)
        state, chunk = self.model.observe(now.state, tensor, camera.to(self.model.device), measured, move)
        if move:
            return self._show(state, chunk, camera, picture)
        info = now.observation.info | {"points": int(state.map.points), "nbytes": int(state.map.nbytes)}
        self._now = Snapshot(state, replace(now.observation, info=info))
        return self._now.observation

    @own_torch()
    def restart(self, seed: int, keyframe: int | None = None) -> Observation:
        """Begin a new episode in the present world: its memory stays, time and seed begin anew.

        Args:
            seed: of all generated content from now on, in [0, 2^63).
            keyframe: index of the keyframe to start at; None to start at the present camera.

        Raises:
            NotReset: before the first ``reset``.
            ValueError: if an argument is out of range; the world is then unchanged.
        """
        check_seed(seed)
        now = self.snapshot()
        state = replace(now.state, seed=int(seed), step=0)
        if keyframe is None:
            self._now = replace(now, state=state)
            return now.observation
        entries = state.keyframes.entries if state.keyframes else ()
        if (
            isinstance(keyframe, bool)
            or not isinstance(keyframe, (int, np.integer))
            or not 0 <= keyframe < len(entries)
        ):
            raise ValueError(f"start: expected the index of one of {len(entries)} keyframes, got {keyframe!r}")
        entry = entries[int(keyframe)]
        image = entry.image.permute(1, 2, 0).cpu().numpy()
        state, chunk = self.model.start_at(state, int(keyframe))
        return self._show(state, chunk, entry.camera.to("cpu"), image)

    def _fitted(
        self, image: Any, camera: Camera | None, depth: Any, fov_deg: float
    ) -> tuple[np.ndarray, Camera, torch.Tensor | None]:
        """Return an image, its camera and its measured depth, cut and scaled to the model's size."""
        picture = read_image(image)
        shape = (picture.shape[0], picture.shape[1])
        if camera is None:
            camera = Camera.from_fov(torch.eye(4), number("fov_deg", fov_deg), shape)
        camera = single_camera(camera, shape).to("cpu")
        picture, fitted = fit(picture, camera, self.model.size)
        if depth is None:
            return picture, fitted, None
        measured = fit_depth(read_depth(depth, shape), camera, fitted)
        return picture, fitted, torch.from_numpy(measured).to(self.model.device)

    def snapshot(self) -> Snapshot:
        """Return the current moment. Snapshots are not copied and stay valid.

        Raises:
            NotReset: before the first ``reset``.
        """
        if self._now is None:
            raise NotReset("the world has no state yet: expected reset() (or load() or restore()) first")
        return self._now

    @own_torch()
    def restore(self, snapshot: Snapshot) -> Observation:
        """Return to a snapshot of this world or of another one with the same model.

        Later steps repeat bit for bit.

        Raises:
            ValueError: if ``snapshot`` does not come from such a world.
        """
        if not isinstance(snapshot, Snapshot):
            raise ValueError(f"snapshot: expected a Snapshot of a world, got {type(snapshot).__name__}")
        try:
            self.model.check(snapshot.state)
        except ValueError as error:
            raise ValueError(f"snapshot: {error}") from error
        self._now = snapshot
        return snapshot.observation

    def fork(self, n: int) -> "list[World]":
        """Return ``n`` independent worlds that start at the current moment.

        Raises:
            NotReset: before the first ``reset``.
            ValueError: if ``n`` is not a positive integer.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n: expected a positive integer, got {n!r}")
        now = self.snapshot()
        worlds = [World(self.model, self._starts) for _ in range(n)]
        for world in worlds:
            world._now = now
        return worlds

    def obstacles(self, body: Body) -> LocalObstacles:
        """Return the obstacles in the memory around a body at the current camera.

        Raises:
            NotReset: before the first ``reset``.
        """
        return body.around(self.state.map, self.camera)

    @own_torch()
    def save(self, path: str | Path) -> None:
        """Save the current moment to one safetensors file. The file is never partially written.

        Raises:
            NotReset: before the first ``reset``.
        """
        now = self.snapshot()
        serialization.save(path, now.state, now.observation)

    @own_torch()
    def load(self, path: str | Path) -> Observation:
        """Load a moment saved with the same model. Later steps repeat bit for bit.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, of another format or of another model; the world is then unchanged.
        """
        state, observation = serialization.load(path, self.model)
        self._now = Snapshot(state, observation)
        return observation

    def _start(self, start: int | None) -> np.ndarray:
        index = 0 if start is None else start
        count = len(self.starts)
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not 0 <= index < count:
            raise ValueError(f"start: expected an index in [0, {count}), got {start!r}")
        return self.starts[int(index)]

    def _show(self, state: WorldState, chunk: Chunk, camera: Camera, image: np.ndarray) -> Observation:
        """Make an observed image the present observation."""
        everything = np.ones(self.model.size, dtype=bool)
        return self._update(state, chunk, camera, image[None].repeat(self.model.frames, axis=0), everything)

    def _update(
        self, state: WorldState, chunk: Chunk, camera: Camera, frames: np.ndarray, remembered: np.ndarray
    ) -> Observation:
        info: dict[str, Any] = {
            "remembered": float(remembered.mean()),
            "points": int(state.map.points),
            "nbytes": int(state.map.nbytes),
            "seconds": dict(chunk.seconds),
        }
        observation = Observation(frames, chunk.depth[-1].float().cpu().numpy(), remembered, camera, info)
        self._now = Snapshot(state, observation)
        return observation


@own_torch()
def step_together(worlds: Sequence[World], cameras: Sequence[Camera]) -> list[Observation]:
    """Step several worlds as one batch.

    Args:
        worlds: that share one model.
        cameras: one per world; see :meth:`World.step`.

    Returns:
        One observation per world.

    Raises:
        NotReset: if a world has no state yet.
        ValueError: if a camera is invalid, the numbers of worlds and cameras differ, or the worlds have several models;
            all worlds are then unchanged.
    """
    if not worlds or len(worlds) != len(cameras):
        raise ValueError(f"worlds, cameras: expected one or more and equally many, got {len(worlds)}, {len(cameras)}")
    model = worlds[0].model
    if any(world.model is not model for world in worlds):
        raise ValueError(f"worlds: expected {len(worlds)} of one model, got several")
    before = [world.state for world in worlds]
    cameras = [single_camera(camera, model.size).to("cpu") for camera in cameras]
    stride = model.codec.stride[0]
    paths = [model.horizon.path(world.camera, camera, stride) for world, camera in zip(worlds, cameras, strict=True)]
    states, chunks = model.advance(before, [path.to(model.device) for path in paths])
    return [
        world._update(state, chunk, camera, chunk.images(), chunk.remembered(model.size))
        for world, state, chunk, camera in zip(worlds, states, chunks, cameras, strict=True)
    ]
