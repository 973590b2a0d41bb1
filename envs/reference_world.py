"""Sessions in reference simulators, with the interface that environments and tasks need of a world."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.data.simulators import CameraMount, ReferenceSimulator, make_simulator
from mirage_sim.geometry import Camera, unproject
from mirage_sim.world import Body, MotionResult, NotReset, Observation
from mirage_sim.world.body import RANGE
from mirage_sim.world.motion_result import Response

SIZE = (96, 128)  # height, width of frames, as in the mini world
SKY = 90.0  # metres; true depth from here on is sky
LEVEL = 1e-3  # metres, and difference of unit vectors: tolerance of a level camera
_STRIDE = 0.025  # metres between the places that a motion is checked at; the resolution of the homes' obstacle map
_SURFACE = 0.1  # metres; surfaces within one cube of this side count as one
_TOUCH = 0.01  # metres; a ray that comes so close to an obstacle has hit it

Array = NDArray[np.float64]


class Scene(NamedTuple):
    """A scene of a simulator: kind and seed."""

    environment: str
    seed: int


class ReferenceModel:
    """The simulators that sessions share; they are opened when first used and hold one scene at a time.

    Args:
        simulator: name of the simulator, ``"miniworld"`` or ``"homes"``.
        mount: of the camera.
        size: ``(height, width)`` of frames.

    Attributes:
        dt: seconds per step.
    """

    dt = 0.1

    def __init__(self, simulator: str, mount: CameraMount, size: tuple[int, int] = SIZE):
        self.simulator = simulator
        self.mount = mount
        self.size = size
        self._opened: dict[str, ReferenceSimulator] = {}
        self._scenes: dict[str, tuple[int, Array]] = {}  # of each opened simulator: seed, first camera

    def enter(self, scene: Scene) -> ReferenceSimulator:
        """Return the simulator with this scene; its body may be anywhere.

        Raises:
            ImportError: if libraries of the simulator or EGL are missing.
            ValueError: if the simulator has no such environment, or furniture has not been prepared.
        """
        kind, seed = scene
        if kind not in self._opened:
            self._opened[kind] = make_simulator(self.simulator, kind, self.size, self.mount)
        simulator = self._opened[kind]
        if kind not in self._scenes or self._scenes[kind][0] != seed:
            self._scenes.pop(kind, None)
            simulator.reset(seed)
            self._scenes[kind] = seed, simulator.camera().c2w.double().numpy()
        return simulator

    def first_camera(self, scene: Scene) -> Array:
        """Return where a scene starts: camera-to-world ``[4, 4]`` in the simulator's frame."""
        self.enter(scene)
        return self._scenes[scene.environment][1]

    def close(self) -> None:
        """Close all simulators; they open again when needed."""
        for simulator in self._opened.values():
            simulator.close()
        self._opened, self._scenes = {}, {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out graphics contexts, which cannot be pickled."""
        return {**self.__dict__, "_opened": {}, "_scenes": {}}


@dataclass(frozen=True)
class TrueObservation(Observation):
    """What a reference simulator shows: true frame and depth, all of it remembered.

    Attributes:
        first_seen: bool ``[H, W]``; True where the pixel shows a surface for the first time.
    """

    first_seen: NDArray[np.bool_]

    @property
    def new(self) -> np.ndarray:
        """Which pixels show a surface for the first time."""
        return self.first_seen


@dataclass(frozen=True)
class ReferenceState:
    """The state of a session.

    Attributes:
        scene: where it takes place.
        first: camera-to-world ``[4, 4]`` of the first camera in the simulator's frame.
        image: the first frame, uint8 ``[H, W, 3]``.
        seen: sorted numbers of the cubes of 0.1 m with surfaces that have been seen.
        step: number of steps since the reset.
    """

    scene: Scene
    first: Array
    image: NDArray[np.uint8]
    seen: NDArray[np.int64]
    step: int = 0


@dataclass(frozen=True)
class ReferenceSnapshot:
    """A moment of a session: its complete state and its latest observation."""

    state: ReferenceState
    observation: TrueObservation


class ReferenceWorld:
    """A session in a reference simulator; a :class:`~mirage_sim.world.Session`.

    The world frame is that of the first camera: +x right, +y down, +z forward, metres. Cameras stay level and at the
    height of the mount.

    Args:
        model: the simulators.
    """

    def __init__(self, model: ReferenceModel):
        self.model = model
        self._now: ReferenceSnapshot | None = None

    @property
    def state(self) -> ReferenceState:
        """The current state."""
        return self.snapshot().state

    @property
    def camera(self) -> Camera:
        """The camera of the last frame, batch shape ``()``."""
        return self.snapshot().observation.camera

    def reset(self, scene: Scene) -> Observation:
        """Start at the start of a scene."""
        first = self.model.first_camera(scene)
        camera = Camera.from_fov(torch.eye(4), self.model.mount.fov_deg, self.model.size)
        image = np.zeros((*self.model.size, 3), np.uint8)
        shown = self._show(ReferenceState(scene, first, image, np.zeros(0, np.int64)), camera)
        self._now = ReferenceSnapshot(replace(self.state, image=shown.frame), shown)
        return shown

    def step(self, camera: Camera) -> Observation:
        """Move to a level camera at the height of the first one, whatever is in the way.

        Raises:
            NotReset: before the first ``reset``.
            ValueError: if the camera is tilted or at another height.
        """
        now = self.state
        c2w = camera.c2w.double().numpy()
        if abs(c2w[1, 3]) > LEVEL or np.abs(c2w[:3, 1] - [0.0, 1.0, 0.0]).max() > LEVEL:
            raise ValueError(f"camera: expected a level camera at y = 0, got {c2w.round(3).tolist()}")
        return self._show(replace(now, step=now.step + 1), camera)

    def obstacles(self, body: Body) -> "TrueObstacles":
        """Return the simulator's obstacles around a body at the current camera."""
        return TrueObstacles(self.model, self.state.scene, self.state.first, body, self.camera)

    def snapshot(self) -> ReferenceSnapshot:
        """Return the current moment.

        Raises:
            NotReset: before the first ``reset``.
        """
        if self._now is None:
            raise NotReset("the session has no state yet: expected reset() or restore() first")
        return self._now

    def restore(self, snapshot: ReferenceSnapshot) -> Observation:
        """Return to a snapshot of a session with the same simulator.

        Raises:
            ValueError: if ``snapshot`` is none.
        """
        if not isinstance(snapshot, ReferenceSnapshot):
            raise ValueError(f"snapshot: expected a ReferenceSnapshot, got {type(snapshot).__name__}")
        self._now = snapshot
        return snapshot.observation

    def fork(self, n: int) -> "list[ReferenceWorld]":
        """Return ``n`` sessions that start at the current moment and share the simulators."""
        now = self.snapshot()
        forks = [ReferenceWorld(self.model) for _ in range(n)]
        for fork in forks:
            fork._now = now
        return forks

    def _show(self, state: ReferenceState, camera: Camera) -> TrueObservation:
        """Render the scene at a camera and make this the current moment."""
        simulator = self.model.enter(state.scene)
        pose = state.first @ camera.c2w.double().numpy()
        simulator.move_to(pose[[0, 2], 3], heading_of(pose))
        frame, depth = simulator.render()
        cubes = _cubes(depth, camera)
        new = ~np.isin(cubes, state.seen) & (depth < SKY)
        state = replace(state, seen=np.union1d(state.seen, cubes))
        everything = np.ones(self.model.size, dtype=bool)
        info = {"remembered": 1.0, "points": 0, "nbytes": 0, "seconds": {}}
        observation = TrueObservation(frame[None].copy(), depth.copy(), everything, camera, info, new)
        self._now = ReferenceSnapshot(state, observation)
        return observation


def heading_of(c2w: Array) -> float:
    """Return the heading of a camera ``[4, 4]`` in a simulator's frame: radians, 0 faces +x, positive is left."""
    return math.atan2(-c2w[2, 2], c2w[0, 2])


def _cubes(depth: NDArray[np.float32], camera: Camera) -> NDArray[np.int64]:
    """Return the number of the cube that each pixel's surface lies in, int64 ``[H, W]``."""
    points = unproject(torch.from_numpy(depth), camera).double().numpy()
    x, y, z = np.moveaxis(np.floor(points / _SURFACE).astype(np.int64) + (1 << 20), -1, 0)
    return np.asarray((x << 42) | (y << 21) | z)


@dataclass(frozen=True)
class TrueObstacles:
    """The obstacles of a simulator around a body; see :class:`~mirage_sim.world.LocalObstacles`.

    Attributes:
        model: the simulators.
        scene: of the body.
        first: camera-to-world ``[4, 4]`` of the world frame in the simulator's.
        body: only its radius counts; what is an obstacle is the simulator's choice.
        camera: of the body, in the world frame.
    """

    model: ReferenceModel
    scene: Scene
    first: Array
    body: Body
    camera: Camera

    @property
    def clearance(self) -> float:
        """Metres between the body and the nearest obstacle; 0 if they touch."""
        return max(float(self._distance(self._place(self.camera))) - self.body.radius, 0.0)

    def travel(self, camera: Camera, response: Response = "report") -> MotionResult:
        """Move the body to a camera on a straight path.

        Args:
            camera: the target.
            response: to an obstacle: ``"report"`` moves through it, ``"block"`` only rotates.

        Raises:
            ValueError: for ``"slide"``, which the simulators do not do.
        """
        if response not in ("report", "block"):
            raise ValueError(f"response: expected 'report' or 'block', got {response!r}")
        start, end = self._place(self.camera), self._place(camera)
        length = float(np.linalg.norm(end - start))
        count = math.ceil(length / _STRIDE - 1e-6)  # rounding must not make two strides of one
        shares = np.linspace(0.0, 1.0, count + 1)[1:]
        hit = self._distance(start + shares[:, None] * (end - start)) <= self.body.radius
        contact = length * float(shares[int(hit.argmax())] - shares[0]) if hit.any() else math.inf
        if hit.any() and response == "block":
            c2w = camera.c2w.clone()
            c2w[:3, 3] = self.camera.c2w[:3, 3]
            camera = replace(camera, c2w=c2w)
        return MotionResult(camera, bool(hit.any()), self.clearance, contact)

    def scan(self, rays: int) -> NDArray[np.float32]:
        """Return the ranges of a planar lidar on the body's axis at -pi + 2 pi i / rays, float32 ``[rays]``.

        A ray advances by the distance to the nearest obstacle until it touches one (sphere tracing). It is infinite
        if none is within 20 m.
        """
        pose = self.first @ self.camera.c2w.double().numpy()
        angles = heading_of(pose) - math.pi + 2 * math.pi * np.arange(rays) / rays
        directions = np.stack([np.cos(angles), -np.sin(angles)], 1)
        ranges = np.zeros(rays)
        moving = np.ones(rays, dtype=bool)
        while moving.any():
            distance = self._distance(pose[[0, 2], 3] + ranges[moving, None] * directions[moving])
            ranges[moving] += np.maximum(distance, 0.0)
            moving[moving] = (distance > _TOUCH) & (ranges[moving] <= RANGE)
        return np.where(ranges <= RANGE, ranges, np.inf).astype(np.float32)

    def _place(self, camera: Camera) -> Array:
        """Return ``[x, z]`` of a camera in the simulator's frame."""
        return np.asarray((self.first @ camera.c2w.double().numpy())[[0, 2], 3])

    def _distance(self, places: Array) -> Array:
        return self.model.enter(self.scene).obstacle_distance(places)
