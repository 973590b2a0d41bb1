"""The homes simulator: random furnished apartments."""

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

_MOVER_SPEED = 0.05  # metres per step
_MOVER_PATH = 1.0  # metres: shortest path of a moving object
_PLAN, _FURNITURE, _LOOKS, _BODY, _MOVERS = range(5)  # streams of random numbers


class HomesSimulator:
    """Apartments of one to five furnished rooms; a :class:`mirage_sim.data.simulators.ReferenceSimulator`.

    It needs the ``homes`` extra, EGL and, except for ``"procedural"``, the furniture of ``mirage prepare furniture``.

    Args:
        environment: the furniture to choose from. ``"seen"``: pieces that training may show. ``"unseen"``: held-out
            pieces, which training never shows, in every category that has some. ``"paired"``: the same apartment as
            ``"unseen"``, with the held-out pieces replaced by the most similar seen pieces, stretched to the same size.
            ``"procedural"``: simple pieces and textures made in code.
        size: image ``(height, width)`` in pixels.
        mount: pose of the camera on the body.
        drive: scale of commands in metres and radians.
        movers: number of objects that move to and fro along straight paths, a step of theirs per call of
            :meth:`step`. They are visible, but the body does not collide with them.

    Raises:
        ValueError: for an unknown environment, or if furniture has not been prepared.
        ImportError: if the extra's libraries or EGL are missing.
    """

    training_environments: tuple[str, ...] = ("seen",)
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
        if self.environment == "paired":  # the body starts where it does in "unseen"
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
        """Return the image uint8 ``[H, W, 3]`` and its z-depth float32 ``[H, W]`` in metres, 100 for the sky."""
        rendering = self._rendered()
        return rendering.image, rendering.depth

    def static_mask(self) -> np.ndarray:
        """Return where the current image shows nothing that moves: bool ``[H, W]``."""
        return self._rendered().static

    def camera(self) -> Camera:
        """Return the true camera; the world frame has y up and is metric."""
        c2w = self.mount.camera_to_world(self._position, self._heading)
        return Camera.from_fov(torch.from_numpy(c2w).float(), self.mount.fov_deg, self.size)

    def step(self, command: np.ndarray) -> bool:
        """Hold ``(forward, turn)`` in [-1, 1]^2 for one step; a blocked step turns without moving.

        Returns:
            True if the step was blocked.
        """
        chord, turn = arc(command, self.drive)
        ahead = self._heading + turn / 2
        start = self._position[[0, 2]]
        end = start + chord * np.array([math.cos(ahead), -math.sin(ahead)])
        free = self._clearance.can_move(start, end, self.radius)
        if free:
            self._position[[0, 2]] = end
        self._heading += turn
        self._step += 1
        self._rendering = None
        return not free

    def put(self, place: np.ndarray, heading: float) -> None:
        """Put the body at ``[x, z]``, whatever is there."""
        self._position[[0, 2]], self._heading = place, heading
        self._rendering = None

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

    def move_to(self, place: np.ndarray, heading: float) -> None:
        """Put the body at ``place``, ``[x, z]`` in metres, facing ``heading`` in radians."""
        self._position[[0, 2]], self._heading = place, heading
        self._rendering = None

    def obstacle_distance(self, places: np.ndarray) -> np.ndarray:
        """Return the metres from each place ``[..., 2]`` to the nearest obstacle, to within a pixel of the map."""
        flat = [self._clearance(*place) for place in np.reshape(places, (-1, 2))]
        return np.reshape(np.array(flat), np.shape(places)[:-1])

    def rendered_by(self) -> dict[str, str]:
        """Return the versions that determine the pixels."""
        return {"moderngl": importlib.metadata.version("moderngl"), **self._renderer.description}

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()

    def _stock(self) -> Sequence[Piece]:
        """Return the pieces that the environment chooses from."""
        if self.environment == "procedural":
            return self.pieces
        seen = [piece for piece in self.pieces if not piece.held_out]
        if self.environment == "seen":
            return seen
        unseen = [piece for piece in self.pieces if piece.held_out]
        covered = {piece.category for piece in unseen}
        return unseen + [piece for piece in seen if piece.category not in covered]

    def _measure(self, plan: FloorPlan, placements: Sequence[Placement]) -> Clearance:
        """Measure the clearance of the apartment for this body."""
        return Clearance(plan, [place(each) for each in placements], self.mount.height + ABOVE_CAMERA)

    def _start(self, rng: np.random.Generator, clearance: Clearance, placements: Sequence[Placement]) -> None:
        """Put the body at the best of 24 random free places and headings, with the most furniture in view."""
        spacious = clearance.places(self.radius + 0.35)
        places = spacious if len(spacious) else clearance.places(self.radius)
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
        """Draw both ends ``[2, 2]`` of a straight path for a moving object, near the body if possible."""
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
        """Return the current poses of the moving objects, mesh to world, ``[4, 4]`` each."""
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
    """Return separate random numbers for each use, so that a change of one use does not affect the others."""
    return np.random.default_rng([seed, use])
