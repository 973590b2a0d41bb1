"""Culling: the parts of a scene in the field of view of a camera, in rooms visible from its own room."""

import numpy as np

from mirage_sim.data.simulators.homes.scene import Scene

SCREEN = np.array([-1.0, -1.0, 1.0, 1.0])  # left, top, right, bottom, in normalised device coordinates
BEHIND = 1e-6  # smallest clip coordinate w of points in front of the camera


class Culling:
    """The bounding boxes, floors and portals of a scene."""

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
        """Return the indices of parts that may be visible, in drawing order: by distance, flat parts last.

        Flat parts come last because they are large and often hidden by the others.

        Args:
            view_projection: float64 ``[4, 4]``, world to clip coordinates.
            eye: ``[3]``, position of the camera.
        """
        clip = self._boxes @ view_projection.T
        chosen = np.flatnonzero(self._may_show(clip, view_projection, eye))
        return chosen[np.lexsort((clip[chosen, :, 3].min(1), self._flat[chosen]))]

    def _may_show(self, clip: np.ndarray, view_projection: np.ndarray, eye: np.ndarray) -> np.ndarray:
        """Return whether each part may be visible, bool ``[P]``; ``clip`` are the corners ``[P, 8, 4]`` of its box."""
        bounds = _bounds(clip, SCREEN)
        visible = _overlap(bounds, SCREEN)
        views = self._views(view_projection, eye)
        if views is not None:
            in_view = self._rooms < 0
            for room, rectangle in views:
                in_view |= (self._rooms == room) & _overlap(bounds, rectangle)
            visible &= in_view
        return visible

    def _views(self, view_projection: np.ndarray, eye: np.ndarray) -> list[tuple[int, np.ndarray]] | None:
        """Return visible rooms with the rectangles of the screen that show them; None if the camera is in no room."""
        current = self._floor_rooms[_contain(self._floors, eye[[0, 2]])]
        if not len(current):
            return None
        portals = self._portals @ view_projection.T
        views: list[tuple[int, np.ndarray]] = []

        def visit(room: int, screen: np.ndarray, path: tuple[int, ...]) -> None:
            views.append((room, screen))
            for opening, rooms in zip(_bounds(portals, screen), self._between, strict=True):
                if room in rooms and _overlap(opening, screen):
                    (beyond,) = set(rooms) - {room}
                    if beyond not in path:
                        visit(beyond, opening, (*path, beyond))

        visit(int(current[0]), SCREEN, (int(current[0]),))
        return views


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], -1)


def _bounds(clip: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """Return bounding rectangles ``[N, 4]`` of shapes within a rectangle of the screen; they are empty if invisible.

    Args:
        clip: ``[N, V, 4]``, corners of convex shapes in clip coordinates.
        screen: ``[4]``, the rectangle.
    """
    w = clip[..., 3]
    place = clip[..., :2] / np.maximum(w, BEHIND)[..., None]
    bounds = np.concatenate([np.maximum(place.min(1), screen[:2]), np.minimum(place.max(1), screen[2:])], 1)
    bounds[w.min(1) <= BEHIND] = screen  # partly behind the camera
    bounds[w.max(1) <= BEHIND] = 1.0, 1.0, -1.0, -1.0  # entirely behind the camera
    return bounds


def _overlap(bounds: np.ndarray, screen: np.ndarray) -> np.ndarray:
    """Return which rectangles ``[..., 4]`` overlap with a rectangle of the screen: bool ``[...]``."""
    low, high = np.maximum(bounds[..., :2], screen[:2]), np.minimum(bounds[..., 2:], screen[2:])
    result: np.ndarray = (low <= high).all(-1)
    return result


def _contain(triangles: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return which triangles ``[N, 3, 2]`` contain a point of their plane: bool ``[N]``."""
    to = triangles - point
    after = np.roll(to, -1, axis=1)
    turn = to[..., 0] * after[..., 1] - to[..., 1] * after[..., 0]
    return (turn >= 0).all(1) | (turn <= 0).all(1)
