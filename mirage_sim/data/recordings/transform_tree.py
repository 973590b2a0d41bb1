"""The transforms of a bag: which frame is where, when."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.recordings.poses import Array, Track

_ROW = 8  # numbers: stamp, position, quaternion


class TransformTree:
    """Transforms by the names of their frames, from ``tf2_msgs/TFMessage`` and ``nav_msgs/Odometry``.

    A frame has one parent: where messages disagree, the one that they name most often.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], array[float]] = {}  # by child and parent; 64 bytes per transform
        self._static: set[tuple[str, str]] = set()

    def add(self, message: Any, static: bool) -> None:
        """Add the transforms of a ``tf2_msgs/TFMessage``."""
        for part in message.transforms:
            edge = self._add(part.header, part.child_frame_id, part.transform.translation, part.transform.rotation)
            if static:
                self._static.add(edge)

    def add_odometry(self, message: Any) -> None:
        """Add the pose of a ``nav_msgs/Odometry``."""
        pose = message.pose.pose
        self._add(message.header, message.child_frame_id, pose.position, pose.orientation)

    def _add(self, header: Any, child: str, position: Any, rotation: Any) -> tuple[str, str]:
        edge = child.strip("/"), header.frame_id.strip("/")
        stamp = header.stamp.sec + header.stamp.nanosec * 1e-9
        row = stamp, position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w
        self._rows.setdefault(edge, array("d")).extend(row)
        return edge

    def adopt(self, other: "TransformTree", replace: bool) -> None:
        """Take transforms of another tree: those whose frames have no parent here, or all, which replace those here."""
        for edge, rows in other._rows.items():
            same = [here for here in self._rows if here[0] == edge[0]]
            if replace or not same:
                for here in same:
                    del self._rows[here]
                self._rows[edge] = rows

    def knows(self, frame: str) -> bool:
        """Return whether a frame has a parent."""
        return any(child == frame.strip("/") for child, _ in self._rows)

    def forget(self, before: float) -> None:
        """Forget the moving transforms of stamps earlier than `before`, seconds."""
        for edge in [edge for edge in self._rows if edge not in self._static]:
            rows = np.array(self._rows[edge]).reshape(-1, _ROW)
            if rows[0, 0] < before:
                self._rows[edge] = array("d", rows[rows[:, 0] >= before].ravel())
                if not self._rows[edge]:
                    del self._rows[edge]

    def camera(self, source: Path, frame: str, stamps: Array) -> tuple[Array, NDArray[np.bool_], str]:
        """Poses of a frame in the root of the tree.

        Args:
            source: for errors.
            frame: name of the camera's optical frame.
            stamps: ``[N]`` seconds.

        Returns:
            Motions ``[N, 4, 4]``, whether each is known, bool ``[N]``, and the names of the frames from the root on.

        Raises:
            ValueError: if nothing on the way up moves, or a transform is not rigid.
        """
        edges = list(self._way_up(frame.strip("/")))
        chain = " -> ".join([*(parent for _, parent in reversed(edges)), frame.strip("/")])
        moving = [edge for edge in edges if edge not in self._static]
        if not moving:
            have = sorted({name for edge in self._rows for name in edge})
            raise ValueError(
                f"{source}: expected transforms from {frame!r} up to a frame in which it moves (map, odom or world), "
                f"got {chain}, where nothing moves; frames in /tf, /tf_static and odometry: {', '.join(have) or 'none'}"
            )
        c2w, known = np.tile(np.eye(4), (len(stamps), 1, 1)), np.ones(len(stamps), dtype=bool)
        for edge in edges:
            motion, here = self._track(edge).at(source, stamps)
            c2w, known = motion @ c2w, known & here
        return c2w, known, chain

    def span(self, frame: str) -> tuple[float, float]:
        """First and last stamp at which all moving transforms of the way up are known."""
        tracks = [self._track(edge) for edge in self._way_up(frame.strip("/")) if edge not in self._static]
        return max(track.stamps[0] for track in tracks), min(track.stamps[-1] for track in tracks)

    def _way_up(self, frame: str) -> Iterator[tuple[str, str]]:
        seen = {frame}
        while parents := [edge for edge in self._rows if edge[0] == frame and edge[1] not in seen]:
            edge = max(parents, key=lambda parent: len(self._rows[parent]))
            yield edge
            frame = edge[1]
            seen.add(frame)

    def _track(self, edge: tuple[str, str]) -> Track:
        rows = np.array(self._rows[edge]).reshape(-1, _ROW)
        rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
        return Track(rows[:, 0], rows[:, 1:4], rows[:, 4:8], edge in self._static)
