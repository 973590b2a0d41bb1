"""Collisions, clearance and range scans of a body among the points of the memory."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.geometry import Camera
from mirage_sim.memory import LatentMap
from mirage_sim.world.motion_result import MotionResult, Response

Array = NDArray[np.float32]

RANGE = 20.0  # metres; points farther away, mostly sky, are ignored
_CELL = 0.1  # metres; points this close together support each other
_OCTAVES = 5  # maximum number of times a cell is doubled, for points written from far away
_GROUND = 0.2  # metres between the positions where ground is required
_STRIPS = 4  # number of strips across the path, each of which must be observed
_GAP = 1e-3  # metres between a sliding body and the obstacle
_SECTORS = 1440  # directions for which a scan keeps the nearest points
_SLIDES = 4  # maximum number of contacts per motion


class _Points(NamedTuple):
    """Points in the ground plane: ``x``, ``z`` from the camera, height above the floor, footprint; metres, ``[n]``."""

    x: Array
    z: Array
    height: Array
    footprint: Array

    def where(self, mask: NDArray[np.bool_]) -> "_Points":
        """Return the points where the mask is True."""
        return self if mask.all() else _Points(*(column[mask] for column in self))

    def within(self, reach: float) -> Array:
        """Return plan coordinates ``[n, 2]`` of the points within ``reach`` metres of the body's axis."""
        return np.stack(self.where(self.x * self.x + self.z * self.z <= reach * reach)[:2], 1)

    def along(self, direction: Array, start: Array) -> tuple[Array, Array]:
        """Return the distances from ``start`` along a unit vector, and across it (positive to the left)."""
        x, z = np.float32(direction[0]), np.float32(direction[1])
        right, forward = self.x - np.float32(start[0]), self.z - np.float32(start[1])
        return right * x + forward * z, forward * x - right * z


@dataclass(frozen=True)
class Body:
    """An upright cylinder with the camera on its axis, in a world whose y axis points down.

    The defaults match MiniWorld's agent.

    Attributes:
        radius: metres.
        height: metres from the floor to the top. Ceilings and lintels above it are not obstacles.
        camera_height: metres from the floor to the camera; may exceed ``height``.
        step: metres; points up to this height above the floor count as floor. Depth is not exact, so the floor in the
            memory is a few centimetres thick.
        support: minimum number of neighbouring points of an obstacle; fewer count as noise.
        unseen: whether space is ``"free"`` or ``"blocked"`` where :meth:`LocalObstacles.is_seen` is False.

    Raises:
        ValueError: if an argument is out of range.
    """

    radius: float = 0.4
    height: float = 1.6
    camera_height: float = 1.5
    step: float = 0.15
    support: int = 3
    unseen: Literal["free", "blocked"] = "free"

    def __post_init__(self) -> None:
        for name in ("radius", "height", "camera_height", "step"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0.0 < value < RANGE:
                raise ValueError(f"{name}: expected metres in (0, {RANGE:g}), got {value!r}")
        if not self.step < self.height:
            raise ValueError(f"step: expected less than the height {self.height}, got {self.step}")
        if isinstance(self.support, bool) or not isinstance(self.support, int) or self.support < 1:
            raise ValueError(f"support: expected a positive integer, got {self.support!r}")
        if self.unseen not in ("free", "blocked"):
            raise ValueError(f"unseen: expected 'free' or 'blocked', got {self.unseen!r}")

    def around(self, map: LatentMap, camera: Camera) -> "LocalObstacles":
        """Return the obstacles of a map around this body.

        Args:
            map: of the memory.
            camera: of the body, batch shape ``()``; the floor lies ``camera_height`` below it.
        """
        return LocalObstacles(self, map, camera)


@dataclass(frozen=True)
class LocalObstacles:
    """The obstacles around a body at one position, computed from the map at first use.

    Plan coordinates are metres from the camera along the world's x and z axes.

    Attributes:
        body: the body.
        map: of the memory.
        camera: of the body, batch shape ``()``.
    """

    body: Body
    map: LatentMap
    camera: Camera

    @cached_property
    def _nearby(self) -> _Points:
        """All points within range."""
        origin = self.camera.c2w[:3, 3].cpu()
        boxes = self.map.boxes.cpu()
        near = (boxes[:, [0, 2]] <= origin[[0, 2]] + RANGE) & (boxes[:, [3, 5]] >= origin[[0, 2]] - RANGE)
        xyz, _, footprint = (tensor.cpu() for tensor in self.map.select(near.all(1).nonzero().squeeze(1).tolist()))
        x, y, z = (xyz[:, i].sub(origin[i]).numpy() for i in range(3))
        points = _Points(x, z, np.float32(self.body.camera_height) - y, footprint.float().numpy())
        return points.where(x * x + z * z <= RANGE * RANGE)

    @cached_property
    def _obstacles(self) -> _Points:
        """The points at the height of the body, without isolated ones."""
        points = self._nearby
        points = points.where((points.height > self.body.step) & (points.height < self.body.height))
        return points.where(_neighbours(points) >= self.body.support)

    @cached_property
    def _ground(self) -> _Points:
        """The points at floor height."""
        points = self._nearby
        return points.where((points.height <= self.body.step) & (points.height >= -self.body.step))

    def ground(self, reach: float) -> Array:
        """Return plan coordinates ``[n, 2]`` of the ground points within ``reach`` metres of the body's axis."""
        return self._ground.within(reach)

    def obstacles(self, reach: float) -> Array:
        """Return plan coordinates ``[n, 2]`` of the obstacle points within ``reach`` metres of the body's axis."""
        return self._obstacles.within(reach)

    def sight(self, sectors: int) -> Array:
        """Return the distance of the farthest point in each direction, ``[sectors]`` metres, 0 without a point.

        Sector ``i`` begins at the angle ``2 pi i / sectors`` from the world's z axis towards its -x axis.
        """
        x, z, _, footprint = self._nearby.where(self._nearby.height < self.body.height)  # no view over obstacles
        distance, angle, farthest = np.hypot(x, z), np.arctan2(-x, z), np.zeros(sectors, np.float32)
        for side in (-0.5, 0.0, 0.5):  # a point is as wide as its footprint
            edge = (angle + np.arctan2(side * footprint, distance)) * (sectors / (2 * math.pi))
            np.maximum.at(farthest, np.floor(edge).astype(np.int64) % sectors, distance)
        return farthest

    @cached_property
    def _squared(self) -> Array:
        """Squared distance of each obstacle point from the body's axis, in the ground plane."""
        x, z, *_ = self._obstacles
        return x * x + z * z

    @cached_property
    def clearance(self) -> float:
        """Metres between the body and the nearest obstacle; 0 if they touch, infinite without obstacles."""
        if not len(self._squared):
            return math.inf
        return max(math.sqrt(float(self._squared.min())) - self.body.radius, 0.0)

    def contact(self, way: Array, start: Array | None = None) -> tuple[float, Array]:
        """Return how far the body can move on a straight path.

        An obstacle that already overlaps the body only blocks motion further into it.

        Args:
            way: plan vector ``[2]``, metres.
            start: of the path, ``[2]``; at the camera if None.

        Returns:
            Metres until contact (0 if the body overlaps an obstacle, infinite if the path is free), and the unit vector
            ``[2]`` from the body's axis to the contact (0 if the path is free).
        """
        start = np.zeros(2, np.float32) if start is None else start
        nothing = np.zeros(2, np.float32)
        length, radius = float(np.hypot(*way)), self.body.radius
        if length == 0.0:
            return math.inf, nothing
        reach = float(np.hypot(*start)) + length + radius
        along, across = self._obstacles.where(self._squared < reach * reach).along(way / length, start)
        ahead = (along > 0) & (np.abs(across) < radius)
        along, across = along[ahead], across[ahead]
        touches = along - np.sqrt(radius * radius - across * across)
        if not len(touches) or touches.min() >= length:
            return math.inf, nothing
        first = int(touches.argmin())
        distance = max(float(touches[first]), 0.0)
        (x, z), forward, left = way / length, along[first] - distance, across[first]
        towards = np.array([x * forward - z * left, z * forward + x * left], np.float32)
        return distance, towards / max(float(np.hypot(*towards)), 1e-9)

    def is_seen(self, way: Array, start: Array | None = None) -> bool:
        """Return whether a straight path of the body leads through observed space.

        The path is divided lengthwise into strips of a quarter of the body's width, and all strips must be observed. A
        strip is observed if it contains a point (of floor or ceiling, too, but not of the sky) at or beyond the final
        position of the body's front, because a camera sees such a point only across the space before it. A strip is
        also observed if an obstacle ends it earlier. A path of length 0 is observed.

        Args:
            way: plan vector ``[2]``, metres.
            start: of the path, ``[2]``; at the camera if None.
        """
        length, radius = float(np.hypot(*way)), self.body.radius
        if length == 0.0:
            return True
        start = np.zeros(2, np.float32) if start is None else start
        contact, _ = self.contact(way, start)
        reached = min(length, contact)
        along, across = self._nearby.along(way / length, start)
        # a point represents a surface as wide as its footprint
        margin = radius / _STRIPS + self._nearby.footprint / 2
        far = (along >= reached) & (np.abs(across) <= radius + margin)
        along, across, margin = along[far], across[far], margin[far]
        closing, aside = self._obstacles.along(way / length, start)
        aside = aside[(closing > 0) & (closing <= reached + radius) & (np.abs(aside) <= radius)]
        return all(
            bool((along[np.abs(across - at) <= margin] >= reached + math.sqrt(radius * radius - at * at)).any())
            or bool((np.abs(aside - at) <= radius / _STRIPS).any())
            for at in self._strips()
        )

    def is_ground_seen(self, way: Array, start: Array | None = None) -> bool:
        """Return whether the ground of a straight path has been observed; stricter than :meth:`is_seen`.

        A level camera sees past low obstacles at its feet. Where it has observed the ground itself, no obstacle was in
        the line of sight. Each strip is checked every 0.2 m of what the body's front sweeps over: the memory must have
        ground within 0.2 m, or within two of its footprints. Ground beyond the contact, or behind an obstacle in the
        strip, is not required.

        Args:
            way: plan vector ``[2]``, metres.
            start: of the path, ``[2]``; at the camera if None.
        """
        length, radius = float(np.hypot(*way)), self.body.radius
        if length == 0.0:
            return True
        start = np.zeros(2, np.float32) if start is None else start
        contact, _ = self.contact(way, start)
        ground = self._ground
        along, across = ground.along(way / length, start)
        reach = np.maximum(_GROUND, 2 * ground.footprint) ** 2
        blocking, aside = self._obstacles.along(way / length, start)
        for centre in self._strips():
            front = math.sqrt(radius * radius - centre * centre)
            walls = blocking[(blocking > 0) & (np.abs(aside - centre) <= radius / _STRIPS)]
            end = min(length + front, contact + front, float(walls.min(initial=np.inf)))
            for place in np.linspace(front, end, max(math.ceil((end - front) / _GROUND), 0) + 1)[1:]:
                if not ((along - place) ** 2 + (across - centre) ** 2 <= reach).any():
                    return False
        return True

    def _strips(self) -> list[float]:
        """Return the offsets of the strips' centres from the body's axis, metres."""
        return [((i + 0.5) / _STRIPS * 2 - 1) * self.body.radius for i in range(_STRIPS)]

    def travel(self, camera: Camera, response: Response = "report") -> MotionResult:
        """Move the body to a camera on a straight path in the ground plane.

        Args:
            camera: the target, batch shape ``()``. Rotation and vertical motion are never blocked.
            response: to an obstacle. ``"report"`` moves through it; ``"block"`` only rotates; ``"slide"`` stops at it,
                continues along it, and rotates.

        Raises:
            ValueError: if the response is unknown.
        """
        if response not in ("report", "block", "slide"):
            raise ValueError(f"response: expected 'report', 'block' or 'slide', got {response!r}")
        way = (camera.c2w[[0, 2], 3] - self.camera.c2w[[0, 2], 3]).cpu().numpy().astype(np.float32)
        contact, _ = self.contact(way)
        unseen = self.body.unseen == "blocked" and not self.is_seen(way)
        collision = unseen or contact < math.inf
        if collision and response != "report":
            stay = unseen or response == "block"
            camera = self._at(camera, np.zeros(2, np.float32) if stay else self._slide(way))
        return MotionResult(camera, collision, self.clearance, contact)

    def _slide(self, way: Array) -> Array:
        """Return the plan position after sliding: up to each contact, then along the obstacle."""
        at, left = np.zeros(2, np.float32), way
        for _ in range(_SLIDES):
            distance, normal = self.contact(left, at)
            length = float(np.hypot(*left))
            if distance == math.inf:
                if self.body.unseen == "blocked" and not self.is_seen(left, at):
                    return at
                return at + left
            gone = left / length * max(distance - _GAP, 0.0)
            left = left - gone
            at, left = at + gone, left - (left @ normal) * normal
            if float(np.hypot(*left)) < _GAP:
                return at
        return at

    def _at(self, camera: Camera, plan: Array) -> Camera:
        """Return the target's orientation and height at a plan position."""
        c2w = camera.c2w.clone()
        c2w[[0, 2], 3] = self.camera.c2w[[0, 2], 3] + torch.from_numpy(plan).to(c2w)
        return replace(camera, c2w=c2w)

    def scan(self, rays: int, first: float = -math.pi, last: float | None = None) -> NDArray[np.float32]:
        """Return the ranges of a planar lidar on the body's axis, which sees obstacles at any height of the body.

        Args:
            rays: number of evenly spaced rays.
            first: angle of the first ray in radians: 0 is ahead, positive is left, as in REP-103.
            last: angle of the last ray; None for a full turn that ends one spacing before the first ray.

        Returns:
            float32 ``[rays]``: metres from the axis, infinite without an obstacle within 20 m. A point covers all
            rays that hit its footprint.

        Raises:
            ValueError: if ``rays`` is not positive, or the angles do not ascend within one turn.
        """
        if isinstance(rays, bool) or not isinstance(rays, (int, np.integer)) or rays < 1:
            raise ValueError(f"rays: expected a positive integer, got {rays!r}")
        turn = 2 * math.pi if last is None else last - first
        if not (math.isfinite(first) and 0.0 < turn <= 2 * math.pi + 1e-9):
            raise ValueError(f"last: expected at most one turn after first = {first}, got {last}")
        spacing = turn / rays if last is None or rays == 1 else turn / (rays - 1)
        right = self.camera.c2w[[0, 2], 0].cpu().numpy()  # level even if the camera looks up or down
        right = right / max(float(np.hypot(*right)), 1e-9)
        along, across = self._obstacles.along(np.array([-right[1], right[0]], np.float32), np.zeros(2, np.float32))
        angle = np.arctan2(across, along)
        nearest = _nearest(angle, self._squared)
        distance, angle = np.sqrt(self._squared[nearest]), angle[nearest]
        half = np.arctan2(self._obstacles.footprint[nearest] / 2, distance)
        begin = (angle - half - first) % (2 * math.pi)  # counted from the first ray
        again = np.flatnonzero(begin + 2 * half >= 2 * math.pi)  # covers the first ray again
        begin = np.concatenate([begin, begin[again] - 2 * math.pi])
        distance, half = (np.concatenate([values, values[again]]) for values in (distance, half))
        lowest = np.ceil(begin / spacing).astype(np.int64)
        count = np.floor((begin + 2 * half) / spacing).astype(np.int64) - lowest + 1
        owner = np.repeat(np.arange(len(distance)), count)
        ray = np.arange(len(owner)) - np.repeat(count.cumsum() - count, count) + lowest[owner]
        inside = (ray >= 0) & (ray < rays)
        ranges = np.full(rays, np.inf, np.float32)
        np.minimum.at(ranges, ray[inside], distance[owner[inside]])
        return ranges


def _nearest(angle: Array, squared: Array) -> NDArray[np.int64]:
    """Return the indices of the nearest points in each of 1440 directions; they hide all others."""
    sector = ((angle + math.pi) * (_SECTORS / (2 * math.pi))).astype(np.int64)
    least = np.full(_SECTORS + 1, np.inf, np.float32)
    np.minimum.at(least, sector, squared)
    return np.flatnonzero(squared == least[sector])


def _neighbours(points: _Points) -> NDArray[np.int64]:
    """Return for each point the number of points of similar footprint in its plan cell and the eight around it.

    Cells are 0.1 m wide, doubled until they are as wide as the footprint.
    """
    reach = float(np.abs(np.concatenate([points.x, points.z])).max(initial=0.0))
    octave = np.frexp(np.maximum(points.footprint / np.float32(_CELL), np.float32(0.5)))[1].clip(0, _OCTAVES)
    sides = 2 * np.ceil(reach / (_CELL * 2.0 ** np.arange(_OCTAVES + 1))).astype(np.int64) + 4
    base = np.cumsum(sides**2) - sides**2
    scale = np.ldexp(np.float32(1 / _CELL), -octave)
    side = sides[octave]  # with a border, so that no cell has its neighbour in another row
    middle = (sides // 2).astype(np.float32)[octave]  # makes all positive, so that truncation is floor
    row, column = ((values * scale + middle).astype(np.int64) for values in (points.x, points.z))
    at = base[octave] + row * side + column
    count = np.bincount(at, minlength=int((sides**2).sum()))
    cells = np.flatnonzero(count > 0)
    side = sides[np.searchsorted(np.cumsum(sides**2), cells, side="right")]
    around = np.zeros_like(count)
    around[cells] = sum(count[cells + row * side + column] for row in (-1, 0, 1) for column in (-1, 0, 1))
    return np.asarray(around[at])
