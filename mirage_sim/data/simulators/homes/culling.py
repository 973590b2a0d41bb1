"""Which parts of a home a camera may see: those in its field of view, in rooms that can be seen from its own."""

import numpy as np

from mirage_sim.data.simulators.homes.scene import Scene

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in normalised device coordinates
SCREEN: Rectangle = (-1.0, -1.0, 1.0, 1.0)
BEHIND = 1e-6  # of a clip coordinate w: nearer points have no place on the screen


class Culling:
    """Bounding boxes, floors and portals of a home."""

    def __init__(self, scene: Scene):
        bounds = np.array([(part.positions.min(0), part.positions.max(0)) for part in scene.parts], np.float64)
        corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
        self._boxes = _homogeneous(bounds[:, corners, [0, 1, 2]])
        self._rooms = np.array(scene.rooms, np.int64)
        self._flat = np.array([part.is_flat for part in scene.parts], bool)
        self._portals = _homogeneous(np.array([p.corners for p in scene.portals], np.float64).reshape(-1, 4, 3))
        self._between = [portal.rooms for portal in scene.portals]
        floors = [
            (room, part.positions[part.faces][..., [0, 2]])
            for part, room, flat in zip(scene.parts, scene.rooms, self._flat, strict=True)
            if room >= 0 and flat and part.normals[0, 1] > 0.9
        ]
        self._floor_rooms = np.repeat([room for room, _ in floors], [len(each) for _, each in floors])
        self._floors = np.concatenate([each for _, each in floors]) if floors else np.zeros((0, 3, 2))

    def visible(self, view_projection: np.ndarray, eye: np.ndarray) -> np.ndarray:
        """Indices of parts that may show in the image, in the order to draw them in: flat ones, which are large, last.

        Args:
            view_projection: float64 ``[4, 4]``, world to clip coordinates.
            eye: ``[3]``, position of the camera.
        """
        clip = self._boxes @ view_projection.T
        chosen = np.flatnonzero(self._may_show(clip, view_projection, eye))
        return chosen[np.lexsort((clip[chosen, :, 3].min(1), self._flat[chosen]))]

    def _may_show(self, clip: np.ndarray, view_projection: np.ndarray, eye: np.ndarray) -> np.ndarray:
        """Whether each part may, bool; ``clip`` are the corners ``[P, 8, 4]`` of their boxes."""
        w = clip[..., 3]
        inside = (w.max(1) > 0) & ((clip[..., 0] + w).max(1) >= 0) & ((w - clip[..., 0]).max(1) >= 0)
        inside &= ((clip[..., 1] + w).max(1) >= 0) & ((w - clip[..., 1]).max(1) >= 0)
        seen = self._rectangles(view_projection, eye)
        if seen is not None:
            for part in np.flatnonzero(inside & (self._rooms >= 0)):
                box = _bounds(clip[part], SCREEN)
                inside[part] = any(_overlap(box, each) for each in seen.get(int(self._rooms[part]), ()))
        return inside

    def _rectangles(self, view_projection: np.ndarray, eye: np.ndarray) -> dict[int, list[Rectangle]] | None:
        """Through which parts of the screen each room may be seen; None where the camera is in no room."""
        own = self._floor_rooms[_contain(self._floors, eye[[0, 2]])]
        if not len(own):
            return None
        corners = self._portals @ view_projection.T
        seen: dict[int, list[Rectangle]] = {}

        def look(room: int, screen: Rectangle, came: tuple[int, ...]) -> None:
            seen.setdefault(room, []).append(screen)
            for portal, (a, b) in zip(corners, self._between, strict=True):
                beyond = b if a == room else a if b == room else None
                if beyond is not None and beyond not in came:
                    opening = _bounds(portal, screen)
                    if opening[0] < opening[2] and opening[1] < opening[3]:
                        look(beyond, opening, (*came, beyond))

        look(int(own[0]), SCREEN, (int(own[0]),))
        return seen


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], -1)


def _bounds(clip: np.ndarray, screen: Rectangle) -> Rectangle:
    """Where points ``[N, 4]`` in clip coordinates, and all between them, may show on a part of the screen."""
    w = clip[:, 3]
    if w.max() <= BEHIND:
        return (1.0, 1.0, -1.0, -1.0)  # nowhere
    if w.min() <= BEHIND:
        return screen
    (left, top), (right, bottom) = (clip[:, :2] / w[:, None]).min(0), (clip[:, :2] / w[:, None]).max(0)
    return (max(left, screen[0]), max(top, screen[1]), min(right, screen[2]), min(bottom, screen[3]))


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return max(a[0], b[0]) <= min(a[2], b[2]) and max(a[1], b[1]) <= min(a[3], b[3])


def _contain(triangles: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Which triangles ``[N, 3, 2]`` of a plane contain a point: bool ``[N]``."""
    to = triangles - point
    after = np.roll(to, -1, axis=1)
    turn = to[..., 0] * after[..., 1] - to[..., 1] * after[..., 0]
    return (turn >= 0).all(1) | (turn <= 0).all(1)
