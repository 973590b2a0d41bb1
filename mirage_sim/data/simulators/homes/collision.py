"""Collisions of a body with walls and furniture: a map of the distance to the nearest obstacle."""

from collections.abc import Sequence

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.simulators.homes.floor_plan import CELL, OUTSIDE, WALL, FloorPlan
from mirage_sim.data.simulators.homes.scene import Mesh

PIXEL = 0.025  # metres
STEP = 0.15  # metres: the body drives over lower obstacles, as in the learned world
_SCALE = round(CELL / PIXEL)


class Clearance:
    """Distance from any point on the floor of a home to the nearest obstacle.

    Args:
        plan: the apartment.
        furniture: meshes in the world frame.
        body_height: metres; the body passes below higher surfaces.

    Attributes:
        free: bool ``[X, Z]``, False at obstacles; pixels of ``PIXEL`` metres from the origin.
    """

    def __init__(self, plan: FloorPlan, furniture: Sequence[Mesh], body_height: float):
        free = np.zeros(tuple(side * _SCALE for side in plan.label.shape), dtype=np.uint8)
        half = round(WALL / 2 / PIXEL)
        for room in range(len(plan.kinds)):
            inside = np.kron(plan.label == room, np.ones((_SCALE, _SCALE), dtype=np.uint8))
            free |= cv2.erode(inside, np.ones((2 * half + 1, 2 * half + 1), np.uint8))
        for opening in plan.openings:
            if opening.kind == "passage":
                across = slice(*(round((opening.at + sign * WALL) / PIXEL) for sign in (-1, 1)))
                along = slice(round(opening.start / PIXEL), round(opening.end / PIXEL))
                free[(across, along) if opening.axis == 0 else (along, across)] = 1
        for mesh in furniture:
            _block(free, mesh.positions, mesh.faces, STEP, body_height)
        self.free = free.astype(bool)
        self._distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * np.float32(PIXEL)
        self._label = plan.label

    def __call__(self, x: float, z: float) -> float:
        """Return the metres from ``(x, z)`` to the nearest obstacle, to within a pixel; 0 outside of the home."""
        i, j = int(np.floor(x / PIXEL)), int(np.floor(z / PIXEL))
        inside = 0 <= i < self.free.shape[0] and 0 <= j < self.free.shape[1]
        return float(self._distance[i, j]) if inside else 0.0

    def room(self, x: float, z: float) -> int:
        """Return the number of the room at ``(x, z)``, or ``OUTSIDE``."""
        i, j = int(np.floor(x / CELL)), int(np.floor(z / CELL))
        inside = 0 <= i < self._label.shape[0] and 0 <= j < self._label.shape[1]
        return int(self._label[i, j]) if inside else OUTSIDE

    def places(self, radius: float) -> NDArray[np.float64]:
        """Return all points ``[N, 2]`` where a disc of this radius can stand, metres, in a fixed order."""
        return np.asarray((np.argwhere(self._distance > radius) + 0.5) * PIXEL)

    def can_move(self, start: NDArray[np.float64], end: NDArray[np.float64], radius: float) -> bool:
        """Return whether a disc can move straight from ``start`` to ``end``, both ``[x, z]``."""
        count = int(np.ceil(np.linalg.norm(end - start) / PIXEL)) + 1
        return all(self(*place) > radius for place in np.linspace(start, end, count)[1 if count > 1 else 0 :])


@numba.njit(cache=True)
def _block(free: NDArray, positions: NDArray, faces: NDArray, low: float, high: float) -> None:  # type: ignore[type-arg]
    """Mark the floor below all triangles between two heights as not free."""
    rows, columns = free.shape
    for face in range(len(faces)):
        a, b, c = positions[faces[face, 0]], positions[faces[face, 1]], positions[faces[face, 2]]
        if max(a[1], b[1], c[1]) < low or min(a[1], b[1], c[1]) > high:
            continue
        # also the edges, because a vertical triangle has no area in plan
        for p, q in ((a, b), (b, c), (c, a)):
            steps = int(2.0 * max(abs(q[0] - p[0]), abs(q[2] - p[2])) / PIXEL) + 1
            for step in range(steps + 1):
                i = int(np.floor((p[0] + (q[0] - p[0]) * step / steps) / PIXEL))
                j = int(np.floor((p[2] + (q[2] - p[2]) * step / steps) / PIXEL))
                if 0 <= i < rows and 0 <= j < columns:
                    free[i, j] = 0
        area = (b[0] - a[0]) * (c[2] - a[2]) - (b[2] - a[2]) * (c[0] - a[0])
        if abs(area) < 1e-9:
            continue
        first_row = max(int(min(a[0], b[0], c[0]) / PIXEL), 0)
        last_row = min(int(max(a[0], b[0], c[0]) / PIXEL), rows - 1)
        first_column = max(int(min(a[2], b[2], c[2]) / PIXEL), 0)
        last_column = min(int(max(a[2], b[2], c[2]) / PIXEL), columns - 1)
        for i in range(first_row, last_row + 1):
            x = (i + 0.5) * PIXEL
            for j in range(first_column, last_column + 1):
                z = (j + 0.5) * PIXEL
                u = ((x - a[0]) * (c[2] - a[2]) - (z - a[2]) * (c[0] - a[0])) / area
                v = ((b[0] - a[0]) * (z - a[2]) - (b[2] - a[2]) * (x - a[0])) / area
                if u >= 0.0 and v >= 0.0 and u + v <= 1.0:
                    free[i, j] = 0
