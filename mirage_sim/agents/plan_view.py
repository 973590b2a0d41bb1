"""Geometric imagination: what a world remembers around its camera, seen from above, and paths through it.

A base with velocity limits moves on circular arcs, so the poses of a candidate follow from its actions alone. The
memory's points say where it is solid and what is unseen. No network runs here: thousands of candidates take
milliseconds.

Plan coordinates are ROS's, as in :mod:`mirage_sim.world.occupancy`: x is the world's +z, y its -x, headings are
radians to the left of x.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.geometry.compilation import compiled
from mirage_sim.world import Body, World

Array = NDArray[np.float64]

REACH = 6.0  # metres from the camera to the edges of the grid
RESOLUTION = 0.05  # metres, edge of a cell
_GROUND = 0.25  # metres; cells this near to a point of the ground are seen
_SECTORS = 120  # directions of sight; 3 degrees are about the spacing of the memory's points
_COARSE = 2  # cells along the edge of a cell of the distance field
_UNSEEN, _SOLID = 2.0, 30.0  # how much farther a metre through unseen or solid space counts than one through free space
_SWEEPS = 40  # most sweeps of the distance field; few suffice unless the way winds
_RAYS, _SAMPLES = 15, 16  # of the view of one pose: directions, and places along each


@dataclass(frozen=True, eq=False)
class PlanView:
    """The surroundings of a body in plan.

    Attributes:
        clearance: float32 ``[rows, columns]``, rows along y and columns along x: metres from the cell to the nearest
            obstacle.
        seen: bool ``[rows, columns]``: whether the memory has ground here, or a point in this direction from the
            camera, at this distance or beyond; the place of the body itself counts as seen.
        centre: ``(x, y)`` of the middle of the grid in metres.
        pose: ``(x, y, heading)`` of the camera.
        camera: of the body, batch shape ``()``.
        radius: of the body in metres.
        limits: of the body's velocity.
    """

    clearance: NDArray[np.float32]
    seen: NDArray[np.bool_]
    centre: tuple[float, float]
    pose: tuple[float, float, float]
    camera: Camera
    radius: float
    limits: VelocityLimits

    @classmethod
    def of(cls, world: Any, body: Body | None = None, contacts: Sequence[tuple[float, float]] = ()) -> "PlanView":
        """Return the surroundings of a world's camera.

        Args:
            world: a :class:`~mirage_sim.world.World`, an environment that has one, or a view, which is returned.
            body: that moves; None for the default one.
            contacts: further places ``(x, y)`` that are solid.

        Raises:
            ValueError: if there is no world.
            NotReset: before the world's first ``reset``.
        """
        if isinstance(world, PlanView):
            return world
        world, body = world_of(world), body or Body()
        around = body.around(world.state.map, world.camera)
        c2w = world.camera.c2w.double().numpy()
        x, y, heading = plan_pose(c2w)
        side = round(2 * REACH / RESOLUTION)
        felt = np.array([(y - at_y, at_x - x) for at_x, at_y in contacts], np.float32).reshape(-1, 2)
        clearance = _distance(np.concatenate([around.obstacles(2 * REACH), felt]), side)
        distance, sector = _polar(side)
        seen = distance <= np.maximum(around.sight(_SECTORS), body.radius)[sector]
        seen |= _distance(around.ground(2 * REACH), side) <= _GROUND
        limits = VelocityLimits(dt=world.model.dt)
        return cls(clearance, seen, (x, y), (x, y, heading), world.camera, body.radius, limits)

    def cells(self, xy: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows and columns of places ``[..., 2]``; places outside the grid take the cell at its edge."""
        side = len(self.clearance)
        at = np.floor((xy - self.centre + REACH) / RESOLUTION).astype(np.int64).clip(0, side - 1)
        return at[..., 1], at[..., 0]

    def follow(self, commands: NDArray[Any]) -> "Paths":
        """Return the paths of candidates ``[n, horizon, 2]``: forward speed and turn rate in [-1, 1].

        A step that would bring the body nearer to an obstacle than its radius only turns it, as with
        ``collisions="block"``.
        """
        commands = commands.astype(np.float64)
        turn = commands[..., 1] * (self.limits.max_turn_rate * self.limits.dt)
        heading = self.pose[2] + np.cumsum(turn, axis=1)
        chord = commands[..., 0] * (self.limits.max_speed * self.limits.dt) * np.sinc(turn / (2 * math.pi))
        middle = heading - turn / 2
        steps = np.stack([chord * np.cos(middle), chord * np.sin(middle)], axis=-1)
        xy, blocked = np.empty_like(steps), np.empty(steps.shape[:2], bool)
        clearance = np.empty(steps.shape[:2], np.float32)
        at = np.broadcast_to(np.array(self.pose[:2]), steps[:, 0].shape)
        room = self.clearance[self.cells(at)]
        for step in range(steps.shape[1]):
            ahead = at + steps[:, step]
            left = self.clearance[self.cells(ahead)]
            stopped = (left < self.radius + RESOLUTION) & (left < room)
            at = np.where(stopped[:, None], at, ahead)
            room = np.where(stopped, room, left)
            xy[:, step], blocked[:, step], clearance[:, step] = at, stopped, room
        return Paths(self, xy, heading, blocked, clearance - np.float32(self.radius))

    def way_to(self, goal: tuple[float, float]) -> NDArray[np.float64]:
        """Return the length of the shortest way from each coarse cell to a place, ``[rows, columns]`` metres.

        A metre through unseen space counts as two, one through an obstacle as thirty. Ways to a place outside the grid
        continue straight from the grid's edge.
        """
        return _way_to(self, goal)

    def camera_at(self, xy: Array, heading: float) -> Camera:
        """Return the camera at a pose, at the height and with the pitch of the present one."""
        turned = self.pose[2] - heading
        c2w = self.camera.c2w.double().numpy().copy()
        sine, cosine = math.sin(turned), math.cos(turned)
        c2w[:3, :3] = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]) @ c2w[:3, :3]
        c2w[0, 3], c2w[2, 3] = -xy[1], xy[0]
        return Camera(torch.from_numpy(c2w).float(), self.camera.K, self.camera.size)


@dataclass(frozen=True)
class Paths:
    """The poses of candidates after each of their steps.

    Attributes:
        view: that the paths lead through.
        xy: ``[n, horizon, 2]`` metres.
        heading: ``[n, horizon]`` radians.
        blocked: bool ``[n, horizon]``: whether an obstacle stopped the step.
        clearance: ``[n, horizon]`` metres between the body and the nearest obstacle; negative where it overlaps one.
    """

    view: PlanView
    xy: Array
    heading: Array
    blocked: NDArray[np.bool_]
    clearance: NDArray[np.float32]

    def unseen(self) -> NDArray[np.bool_]:
        """Return whether each pose is in space that was not seen, ``[n, horizon]``."""
        return ~self.view.seen[self.view.cells(self.xy)]

    def way_to(self, goal: tuple[float, float]) -> Array:
        """Return the length of the shortest way from each pose to a place, ``[n, horizon]`` metres."""
        field = self.view.way_to(goal)
        at = (self.xy - self.view.centre + REACH) / (RESOLUTION * _COARSE) - 0.5
        column, row = np.moveaxis(at.clip(0, len(field) - 1 - 1e-6), -1, 0)
        left, top = column.astype(np.int64), row.astype(np.int64)
        across, along = column - left, row - top
        upper = field[top, left] * (1 - across) + field[top, left + 1] * across
        lower = field[top + 1, left] * (1 - across) + field[top + 1, left + 1] * across
        return np.asarray(upper * (1 - along) + lower * along)

    def new_area(self) -> Array:
        """Return the unseen area in view from the last pose, up to the next obstacle, ``[n]`` square metres."""
        view = self.view
        half = math.atan(view.camera.size[1] / 2 / float(view.camera.K[0, 0]))
        angles = np.linspace(-half, half, _RAYS)
        ranges = (np.arange(_SAMPLES) + 0.5) * (REACH / 2 / _SAMPLES)
        angle = self.heading[:, -1, None] + angles
        rays = np.stack([np.cos(angle), np.sin(angle)], -1)[:, :, None] * ranges[:, None]
        places = view.cells(self.xy[:, -1, None, None] + rays)
        open_way = np.logical_and.accumulate(view.clearance[places] > RESOLUTION, axis=-1)
        cell = ranges * (ranges[1] - ranges[0]) * (2 * half / _RAYS)
        return np.asarray((open_way & ~view.seen[places]).sum(axis=1) * cell).sum(axis=-1)


def world_of(world: Any) -> World:
    """Return a world, or the world of an environment.

    Raises:
        ValueError: if there is none.
    """
    world = getattr(world, "unwrapped", world)
    world = getattr(world, "world", world)
    if not isinstance(world, World):
        raise ValueError(f"world: expected a World or an environment that has one, got {type(world).__name__}")
    return world


def plan_pose(c2w: Any) -> tuple[float, float, float]:
    """Return ``(x, y, heading)`` of a camera-to-world matrix ``[4, 4]``."""
    return float(c2w[2, 3]), -float(c2w[0, 3]), math.atan2(-c2w[0, 2], c2w[2, 2])


def _distance(points: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the distance of each cell from the nearest of some points ``[n, 2]``, metres right and ahead.

    Without a point in the grid it is twice the reach.
    """
    row, column = ((at + REACH) // RESOLUTION for at in (-points[:, 0], points[:, 1]))
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    if not inside.any():
        return np.full((side, side), 2 * REACH, np.float32)
    free = np.ones((side, side), np.uint8)
    free[row[inside].astype(int), column[inside].astype(int)] = 0
    distance: Any = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance * np.float32(RESOLUTION))


@lru_cache(maxsize=1)
def _polar(side: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the distance from the middle of the grid and the sector of each cell."""
    at = (np.arange(side, dtype=np.float32) + 0.5) * np.float32(RESOLUTION) - np.float32(REACH)
    y, x = np.meshgrid(at, at, indexing="ij")
    sector = np.floor(np.arctan2(y, x) * (_SECTORS / (2 * math.pi))).astype(np.int64) % _SECTORS
    return np.hypot(x, y), sector


@lru_cache(maxsize=8)
def _way_to(view: PlanView, goal: tuple[float, float]) -> Array:
    solid = view.clearance[::_COARSE, ::_COARSE] < view.radius + RESOLUTION
    price = np.where(view.seen[::_COARSE, ::_COARSE], 1.0, _UNSEEN)
    price[solid] = _SOLID
    side, edge = len(price), RESOLUTION * _COARSE
    at = (np.arange(side) + 0.5) * edge - REACH
    x, y = goal[0] - view.centre[0], goal[1] - view.centre[1]
    straight = np.hypot(at[None, :] - x, at[:, None] - y)
    near = straight <= 2 * edge
    if max(abs(x), abs(y)) >= REACH - edge:
        near = np.ones_like(near)
        near[1:-1, 1:-1] = False
    field = np.where(near, straight, np.inf)
    _sweep(field, price * edge)
    return field


@compiled
def _sweep(field: np.ndarray, price: np.ndarray) -> None:
    """Solve ``|grad field| = price`` by fast sweeping (Zhao 2004); finite values of ``field`` are the sources.

    Args:
        field: ``[rows, columns]``; changes.
        price: of crossing each cell.
    """
    rows, columns = field.shape
    for sweep in range(_SWEEPS):
        changed = False
        for i in range(rows):
            row = i if sweep % 2 == 0 else rows - 1 - i
            for j in range(columns):
                column = j if sweep // 2 % 2 == 0 else columns - 1 - j
                a = min(field[max(row - 1, 0), column], field[min(row + 1, rows - 1), column])
                b = min(field[row, max(column - 1, 0)], field[row, min(column + 1, columns - 1)])
                step = price[row, column]
                if abs(a - b) < step:
                    value = (a + b + math.sqrt(2 * step * step - (a - b) * (a - b))) / 2
                else:
                    value = min(a, b) + step
                if value < field[row, column] - 1e-9:
                    field[row, column], changed = value, True
        if not changed and sweep >= 3:
            return
