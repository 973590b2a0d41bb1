"""Roll-outs as rosbag2 folders with an MCAP file, for ROS tools and Foxglove. Needs ``rosbags``, but no ROS."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mirage_sim.agents.episodes import Episode
from mirage_sim.envs.actions import ActionMode, Actions
from mirage_sim.geometry import VelocityLimits
from mirage_sim.io import atomic_folder
from mirage_sim.ros import conversions, memory_messages
from mirage_sim.ros.conversions import Fields
from mirage_sim.ros.frames import CAMERA_HEIGHT, velocity

try:
    from rosbags.interfaces import (
        Connection,
        Nodetype,
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore
except ImportError as error:
    raise ImportError("rosbags is not installed: pip install 'mirage_sim[data]'") from error

TOPICS = {
    "/clock": "rosgraph_msgs/msg/Clock",
    "/tf_static": "tf2_msgs/msg/TFMessage",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/odom": "nav_msgs/msg/Odometry",
    "/camera/image_raw": "sensor_msgs/msg/Image",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/depth/image_raw": "sensor_msgs/msg/Image",
    "/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/remembered": "sensor_msgs/msg/Image",
    "/cmd_vel": "geometry_msgs/msg/Twist",
    "/scan": "sensor_msgs/msg/LaserScan",  # if the environment scans
}
_LATCHED = {"/tf_static"}  # late subscribers receive it as well when the bag is played
_FOREVER = QosTime(9223372036, 854775807)


class BagWriter:
    """Writes episodes of ``MirageWorld-v0`` as rosbag2 folders.

    Stamps and log times are simulation time, from 0. A command has the time of the frame that it answers, so the last
    frame has none.

    Args:
        camera_height: metres from ``base_link``, on the floor, to the camera.

    Raises:
        ValueError: if the height is not positive.
    """

    def __init__(self, camera_height: float = CAMERA_HEIGHT):
        number = isinstance(camera_height, (int, float)) and not isinstance(camera_height, bool)
        if not number or not 0.0 < camera_height < math.inf:
            raise ValueError(f"camera_height: expected positive metres, got {camera_height!r}")
        self._height = camera_height
        self._store = get_typestore(Stores.ROS2_JAZZY)

    def write(self, path: Path, episode: Episode, action_mode: ActionMode) -> None:
        """Write an episode. The folder appears complete or not at all.

        Args:
            path: a new folder in an existing one; the file in it is named ``<name>.mcap``.
            episode: the episode.
            action_mode: of the environment; it defines the meaning of the actions.

        Raises:
            ValueError: if the folder exists.
        """
        if path.exists():
            raise ValueError(f"path: expected a new folder, got {path}, which exists; delete it first")
        with atomic_folder(path) as folder:  # the file in it takes its name
            bag = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
            bag.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            with bag:
                self._fill(bag, episode, action_mode)

    def _fill(self, bag: Writer, episode: Episode, action_mode: ActionMode) -> None:
        connections: dict[str, Connection] = {}
        for topic, kind in TOPICS.items():
            if topic != "/scan" or "scan" in episode.infos[0]:
                qos = _qos(latched=topic in _LATCHED)
                connections[topic] = bag.add_connection(topic, kind, typestore=self._store, offered_qos_profiles=[qos])
        for seconds, topic, fields in self._messages(episode, action_mode):
            kind, time = TOPICS[topic], conversions.stamp(seconds)
            data = self._store.serialize_cdr(_build(self._store, kind, fields), kind)
            bag.write(connections[topic], time["sec"] * 10**9 + time["nanosec"], data)

    def _messages(self, episode: Episode, action_mode: ActionMode) -> Iterator[tuple[float, str, Fields]]:
        """Yield time, topic and fields of all messages in order."""
        times = [info["time"] for info in episode.infos]
        origin, before = episode.infos[0]["c2w"], episode.infos[0]["c2w"]
        yield times[0], "/tf_static", conversions.static_transforms(times[0], self._height)
        for i, (seconds, info) in enumerate(zip(times, episode.infos, strict=True)):
            c2w = info["c2w"]
            twist = self._twist(before, c2w, seconds - times[i - 1]) if i else np.zeros(6)
            before = c2w
            intrinsics = conversions.camera_info(episode.K, episode.frames[i].shape[:2], seconds)
            yield seconds, "/clock", conversions.clock(seconds)
            yield seconds, "/tf", conversions.transforms(c2w, origin, seconds, self._height)
            yield seconds, "/odom", conversions.odometry(c2w, origin, twist, seconds, self._height)
            yield seconds, "/camera/image_raw", conversions.image(episode.frames[i], seconds)
            yield seconds, "/camera/camera_info", intrinsics
            yield seconds, "/camera/depth/image_raw", conversions.depth_image(episode.depths[i], seconds)
            yield seconds, "/camera/depth/camera_info", intrinsics
            yield seconds, "/camera/remembered", conversions.mono_image(episode.remembered[i], seconds)
            if "scan" in info:
                yield seconds, "/scan", memory_messages.laser_scan(info["scan"], seconds)
            if i < len(episode.actions):
                limits = VelocityLimits(dt=times[1] - times[0])
                yield seconds, "/cmd_vel", self._command(episode.actions[i], action_mode, limits)

    def _command(self, action: Any, action_mode: ActionMode, limits: VelocityLimits) -> Fields:
        """Return the twist of ``base_link`` that an action of any mode stands for."""
        motion = Actions(action_mode, limits).motion(action).double().numpy()
        return conversions.spatial_twist(self._twist(np.eye(4), motion, limits.dt))

    def _twist(self, before: ArrayLike, after: ArrayLike, dt: float) -> np.ndarray:
        return velocity(before, after, dt, self._height)


def _build(store: Any, kind: str, fields: Fields) -> Any:
    """Return the message of ``rosbags`` with these fields."""
    values: dict[str, Any] = {}
    for name, (node, detail) in store.fielddefs[kind][1]:
        value = fields[name]
        if node == Nodetype.NAME:
            values[name] = _build(store, detail, value)
        elif node == Nodetype.BASE:
            values[name] = value
        else:
            (inner, element), _ = detail
            nested = inner == Nodetype.NAME
            values[name] = (
                [_build(store, element, entry) for entry in value] if nested else np.asarray(value, element[0])
            )
    return store.types[kind](**values)


def _qos(latched: bool) -> Qos:
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        durability,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        avoid_ros_namespace_conventions=False,
    )
