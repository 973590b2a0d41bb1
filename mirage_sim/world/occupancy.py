"""Maps in plan: where a memory shows ground, and where obstacles."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirage_sim.memory import LatentMap
from mirage_sim.memory.blocks import GENERATED
from mirage_sim.world.body import Body

UNKNOWN, FREE, OCCUPIED = -1, 0, 100  # as nav_msgs/OccupancyGrid has them
_BIN = 0.05  # metres of height
_COARSEST = 0.3  # metres; points with a larger footprint were seen from too far away for a map
_FLOOR_SHARE = 0.2  # a level with at least this share of the points of the fullest one can be the floor


@dataclass(frozen=True)
class OccupancyMap:
    """Ground and obstacles in plan, in ROS's axes: x is the world's +z (ahead), y its -x (left).

    Attributes:
        cells: int8 ``[rows, columns]``, rows along y and columns along x, both ascending: :data:`FREE` where the ground
            is remembered, :data:`OCCUPIED` where an obstacle is, :data:`UNKNOWN` elsewhere.
        resolution: edge of a cell in metres.
        origin: ``(x, y)`` of the corner of cell (0, 0), metres.
        floor: height of the floor, metres along the world's y axis (down).
    """

    cells: NDArray[np.int8]
    resolution: float
    origin: tuple[float, float]
    floor: float


def find_floor(y: NDArray[np.float32], camera: float) -> float | None:
    """Return the height of the floor among the heights of points, along an axis that points down.

    It is the lowest level below the camera at which many points lie: at least a fifth of those at the fullest one.

    Args:
        y: ``[n]`` metres.
        camera: height of the lowest camera, metres.

    Returns:
        Metres; None if no points lie below the camera.
    """
    y = y[y > camera + _BIN]
    if not len(y):
        return None
    levels = np.floor(y / _BIN).astype(np.int64)
    values, counts = np.unique(levels, return_counts=True)
    lowest = values[counts >= _FLOOR_SHARE * counts.max()].max()
    return float(np.median(y[np.abs(levels - lowest) <= 1]))


def occupancy_map(
    map: LatentMap,
    camera: float,
    resolution: float = 0.05,
    body: Body | None = None,
    generated: bool = True,
    floor: float | None = None,
) -> OccupancyMap:
    """Make a map in plan of the remembered points.

    Args:
        map: of the memory.
        camera: height of the lowest camera along the world's y axis (down), metres; the floor is looked for below it
            (:func:`find_floor`) and, where no points lie there, assumed at the body's ``camera_height``.
        resolution: edge of a cell in metres.
        body: decides by ``step``, ``height`` and ``support`` what is ground and what is an obstacle; None for the
            default one.
        generated: whether generated points count; False leaves their surroundings unknown.
        floor: height of the floor along the world's y axis; None to look for it.

    Raises:
        ValueError: if the memory is empty.
    """
    if not map.points:
        raise ValueError("map: expected remembered points, got none")
    body = body or Body()
    xyz, ids, footprint = (column.cpu().numpy() for column in map.select(range(len(map.blocks))))
    if not generated:
        xyz, footprint = xyz[ids < GENERATED], footprint[ids < GENERATED]
    if floor is None:
        found = find_floor(xyz[:, 1], camera)
        floor = camera + body.camera_height if found is None else found
    x, y, height = xyz[:, 2], -xyz[:, 0], floor - xyz[:, 1]
    ground = np.abs(height) <= body.step
    obstacle = (height > body.step) & (height < body.height)
    ground, obstacle = (mask & (footprint <= _COARSEST) for mask in (ground, obstacle))
    used = ground | obstacle
    if not used.any():
        raise ValueError("map: expected ground or obstacles among the remembered points, got none")
    reach = footprint / 2
    origin = (float((x - reach)[used].min()), float((y - reach)[used].min()))
    size = [int(np.ceil((float((axis + reach)[used].max()) - start) / resolution)) + 1
            for axis, start in zip((x, y), origin, strict=True)]  # fmt: skip
    counts = np.zeros((2, size[1], size[0]), np.int32)
    for layer, mask in enumerate((ground, obstacle)):
        _count(counts[layer], (x[mask], y[mask], reach[mask]), origin, resolution)
    cells = np.full(counts.shape[1:], UNKNOWN, np.int8)
    cells[counts[0] > 0] = FREE
    cells[counts[1] >= body.support] = OCCUPIED
    return OccupancyMap(cells, resolution, origin, floor)


def _count(
    counts: NDArray[np.int32], points: tuple[NDArray[np.float32], ...], origin: tuple[float, float], resolution: float
) -> None:
    """Count in every cell the points whose footprint covers it; ``counts`` changes."""
    x, y, reach = points
    bounds = [
        np.floor((axis + sign * reach - start) / resolution).astype(int).clip(0, side - 1)
        for axis, start, side in zip((x, y), origin, reversed(counts.shape), strict=True)
        for sign in (-1, 1)
    ]
    left, right, bottom, top = bounds
    # the sum over all cells below and left of one counts the rectangles that begin, minus those that have ended
    changes = np.zeros((counts.shape[0] + 1, counts.shape[1] + 1), np.int32)
    for row, column, change in (
        (bottom, left, 1),
        (bottom, right + 1, -1),
        (top + 1, left, -1),
        (top + 1, right + 1, 1),
    ):
        np.add.at(changes, (row, column), change)
    counts += changes.cumsum(0, np.int32).cumsum(1, np.int32)[:-1, :-1]
