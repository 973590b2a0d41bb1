"""Which parts of a home a camera may see: those in its field of view, in rooms that can be seen from its own."""

import numpy as np

from mirage_sim.data.simulators.homes.scene import Scene

SCREEN = np.array([-1.0, -1.0, 1.0, 1.0])  # left, top, right, bottom, in normalised device coordinates
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
        bounds = _bounds(clip, SCREEN)
        inside = _overlap(bounds, SCREEN)
        seen = self._openings(view_projection, eye)
        if seen is not None:
            in_sight = self._rooms < 0
            for room, opening in seen:
                in_sight |= (self._rooms == room) & _overlap(bounds, opening)
            inside &= in_sight
        return inside

    def _openings(self, view_projection: np.ndarray, eye: np.ndarray) -> list[tuple[int, np.ndarray]] | None:
        """Rooms, each with a part of the screen that it may show in; None where the camera is in no room."""
        own = self._floor_rooms[_contain(self._floors, eye[[0, 2]])]
        if not len(own):
            return None
        portals = self._portals @ view_projection.T
        seen: list[tuple[int, np.ndarray]] = []

        def look(room: int, screen: np.ndarray, came: tuple[int, ...]) -> None:
            seen.append((room, screen))
            for opening, rooms in zip(_bounds(portals, screen), self._between, strict=True):
                if room in rooms and _overlap(opening, screen):
                    (beyond,) = set(rooms) - {room}
                    if beyond not in came:
                        look(beyond, opening, (*came, beyond))

        look(int(own[0]), SCREEN, (int(own[0]),))
        return seen


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], -1)


def _bounds(clip: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """Rectangles ``[N, 4]`` within a part of the screen in which shapes may show; nothing is seen of empty ones.

    Args:
        clip: ``[N, V, 4]``, corners of convex shapes in clip coordinates.
        screen: ``[4]``.
    """
    w = clip[..., 3]
    place = clip[..., :2] / np.maximum(w, BEHIND)[..., None]
    bounds = np.concatenate([np.maximum(place.min(1), screen[:2]), np.minimum(place.max(1), screen[2:])], 1)
    bounds[w.min(1) <= BEHIND] = screen  # reaches behind the camera
    bounds[w.max(1) <= BEHIND] = 1.0, 1.0, -1.0, -1.0  # lies behind it
    return bounds


def _overlap(bounds: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """Which rectangles ``[..., 4]`` have a part of the screen in common with one: bool ``[...]``."""
    low, high = np.maximum(bounds[..., :2], screen[:2]), np.minimum(bounds[..., 2:], screen[2:])
    result: np.ndarray = (low <= high).all(-1)
    return result


def _contain(triangles: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Which triangles ``[N, 3, 2]`` of a plane contain a point: bool ``[N]``."""
    to = triangles - point
    after = np.roll(to, -1, axis=1)
    turn = to[..., 0] * after[..., 1] - to[..., 1] * after[..., 0]
    return (turn >= 0).all(1) | (turn <= 0).all(1)
