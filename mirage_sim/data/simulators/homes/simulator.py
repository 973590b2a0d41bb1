"""Furnished apartments, made from a seed, as a reference simulator."""

import importlib.metadata
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.data.simulators.homes.building import build_scene, place
from mirage_sim.data.simulators.homes.collision import Clearance
from mirage_sim.data.simulators.homes.floor_plan import FloorPlan, draw_floor_plan
from mirage_sim.data.simulators.homes.furnishing import furnish, substitute
from mirage_sim.data.simulators.homes.furniture import Piece, Placement, load_furniture, procedural_pieces
from mirage_sim.data.simulators.homes.rendering.renderer import Renderer, Rendering
from mirage_sim.data.simulators.simulator import ABOVE_CAMERA, CameraMount, arc
from mirage_sim.geometry import Camera, VelocityLimits

ENVIRONMENTS = ("seen", "unseen", "paired", "procedural")

_MOVER_SPEED = 0.05  # metres a step
_MOVER_PATH = 1.0  # metres: shortest way of an object that moves
_PLAN, _FURNITURE, _LOOKS, _BODY, _MOVERS = range(5)  # streams of random numbers


class HomesSimulator:
    """Apartments of one to five furnished rooms; a :class:`mirage_sim.data.simulators.ReferenceSimulator`.

    Needs the ``homes`` extra and EGL; furniture comes from ``mirage prepare furniture``, except for ``"procedural"``.

    Args:
        environment: ``"seen"``: furniture that training may show; ``"unseen"``: of every category that has some, only
            pieces that training never shows; ``"paired"``: the apartment that ``"unseen"`` makes of the same seed, with
            those pieces replaced by the nearest seen ones, of the same size; ``"procedural"``: simple pieces and
            textures of our own.
        size: image ``(height, width)`` in pixels.
        mount: how the camera is fixed to the body.
        drive: what commands mean.
        movers: number of objects that travel to and fro along straight paths, one step of theirs per call of
            :meth:`step`. They are drawn, but nothing bumps into them.

    Raises:
        ValueError: for an unknown environment, or where furniture has not been prepared.
        ImportError: where the extra's libraries or EGL are missing.
    """

    radius = 0.25  # metres
    turn_distance = 1.0

    def __init__(
        self,
        environment: str = "seen",
        size: tuple[int, int] = (96, 128),
        *,
        mount: CameraMount | None = None,
        drive: VelocityLimits | None = None,
        movers: int = 0,
    ):
        if environment not in ENVIRONMENTS:
            raise ValueError(f"environment: expected one of {ENVIRONMENTS}, got {environment!r}")
        self.environment = environment
        self.size = size
        self.mount = mount or CameraMount()
        self.drive = drive or VelocityLimits()
        self.pieces = procedural_pieces() if environment == "procedural" else load_furniture().pieces
        self._movers = movers
        self._renderer = Renderer(size)
        self._rendering: Rendering | None = None
        self._paths: list[NDArray[np.float64]] = []
        self._position = np.zeros(3)
        self._heading = 0.0
        self._step = 0

    def reset(self, seed: int) -> None:
        """Build the apartment of this seed and put the body at its start. The same seed gives the same apartment."""
        plan = draw_floor_plan(_stream(seed, _PLAN))
        placements = furnish(_stream(seed, _FURNITURE), plan, self._stock())
        start = self._clearance = self._measure(plan, placements)
        if self.environment == "paired":  # the body starts where it does among the pieces that are replaced
            placements = substitute(placements, self.pieces)
            self._clearance = self._measure(plan, placements)
        moving = self._draw_movers(_stream(seed, _MOVERS))
        scene = build_scene(_stream(seed, _LOOKS), plan, placements, moving, self.environment == "procedural")
        self._renderer.load(scene)
        self._start(_stream(seed, _BODY), start, placements)
        self._paths = [self._path(_stream(seed, _MOVERS + 1 + i)) for i in range(len(moving))]
        self._step = 0
        self._rendering = None

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 ``[H, W, 3]`` and z-depth float32 ``[H, W]`` in metres (100 where the sky is)."""
        rendering = self._rendered()
        return rendering.image, rendering.depth

    def static_mask(self) -> np.ndarray:
        """Bool ``[H, W]``: True where the image that :meth:`render` gives now shows nothing that moves."""
        return self._rendered().static

    def camera(self) -> Camera:
        """The true camera; y is up, metres."""
        c2w = self.mount.camera_to_world(self._position, self._heading)
        return Camera.from_fov(torch.from_numpy(c2w).float(), self.mount.fov_deg, self.size)

    def step(self, command: np.ndarray) -> bool:
        """Hold ``(forward, turn)`` in [-1, 1]^2 for one step; True when the way was blocked.

        A blocked step turns, as a robot would.
        """
        chord, turn = arc(command, self.drive)
        ahead = self._heading + turn / 2
        here = self._position[[0, 2]]
        there = here + chord * np.array([math.cos(ahead), -math.sin(ahead)])
        free = self._clearance.can_move(here, there, self.radius)
        if free:
            self._position[[0, 2]] = there
        self._heading += turn
        self._step += 1
        self._rendering = None
        return not free

    def free_steps(self, place: np.ndarray, direction: np.ndarray, steps: int) -> int | None:
        """Count the full-speed steps straight ahead that succeed from ``place``, without moving the body."""
        here = np.asarray(place, dtype=np.float64)
        if not self._clearance(*here) > self.radius:
            return None
        stride = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
        stride = stride * self.drive.max_speed * self.drive.dt
        free = 0
        while free < steps and self._clearance.can_move(here, here + stride, self.radius):
            here, free = here + stride, free + 1
        return free

    def rendered_by(self) -> dict[str, str]:
        """Versions that decide the pixels."""
        return {"moderngl": importlib.metadata.version("moderngl"), **self._renderer.description}

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()

    def _stock(self) -> Sequence[Piece]:
        """What a home may be furnished with."""
        if self.environment == "procedural":
            return self.pieces
        seen = [piece for piece in self.pieces if not piece.held_out]
        if self.environment == "seen":
            return seen
        unseen = [piece for piece in self.pieces if piece.held_out]
        covered = {piece.category for piece in unseen}
        return unseen + [piece for piece in seen if piece.category not in covered]

    def _measure(self, plan: FloorPlan, placements: Sequence[Placement]) -> Clearance:
        return Clearance(plan, [place(each) for each in placements], self.mount.height + ABOVE_CAMERA)

    def _start(self, rng: np.random.Generator, clearance: Clearance, placements: Sequence[Placement]) -> None:
        """Stand somewhere free, from where the most furniture is in view: of a few places and headings, the best."""
        roomy = clearance.places(self.radius + 0.35)
        places = roomy if len(roomy) else clearance.places(self.radius)
        furniture = np.array([[each.x, each.z] for each in placements if each.room >= 0]).reshape(-1, 2)
        best = -1.0
        for _ in range(24):
            here, heading = places[int(rng.integers(len(places)))], float(rng.uniform(-math.pi, math.pi))
            ahead = np.array([math.cos(heading), -math.sin(heading)])
            offset = furniture - here
            distance = np.linalg.norm(offset, axis=1).clip(0.1)
            in_view = (offset @ ahead > 0.85 * distance) & (distance > 1.5) & (distance < 5.0)
            same_room = clearance.room(*here) == np.array([clearance.room(*each) for each in furniture])
            score = float((in_view & same_room).sum())
            if score > best:
                best, self._position, self._heading = score, np.array([here[0], 0.0, here[1]]), heading

    def _draw_movers(self, rng: np.random.Generator) -> list[Piece]:
        small = [piece for piece in self._stock() if piece.category in ("chair", "office_chair", "plant", "armchair")]
        return [small[int(rng.integers(len(small)))] for _ in range(self._movers)]

    def _path(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Both ends ``[2, 2]`` of a straight way for an object that moves, near the body where that is possible."""
        places = self._clearance.places(self.radius)
        near = places[np.linalg.norm(places - self._position[[0, 2]], axis=1) < 4.0]
        places = near if len(near) else places
        ends = places[rng.integers(len(places), size=(1, 2))][0]
        for _ in range(60):
            ends = places[rng.integers(len(places), size=2)]
            if np.linalg.norm(ends[1] - ends[0]) >= _MOVER_PATH and self._clearance.can_move(ends[0], ends[1], 0.1):
                break
        return np.asarray(ends)

    def _mover_poses(self) -> list[np.ndarray]:
        """Where the objects that move are now: 4 x 4, world from mesh."""
        poses = []
        for start, end in self._paths:
            length = max(float(np.linalg.norm(end - start)), 1e-6)
            travelled = (self._step * _MOVER_SPEED) % (2 * length)
            share = min(travelled, 2 * length - travelled) / length
            pose = np.eye(4)
            pose[[0, 2], 3] = start + share * (end - start)
            poses.append(pose)
        return poses

    def _rendered(self) -> Rendering:
        if self._rendering is None:
            self._rendering = self._renderer.render(self.camera(), self._mover_poses())
        return self._rendering


def _stream(seed: int, use: int) -> np.random.Generator:
    """Random numbers of their own for each use, so that a change of one leaves the others alone."""
    return np.random.default_rng([seed, use])
