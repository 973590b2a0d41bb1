"""Plays recorded images over the middleware as a robot would, for benchmarks and tests of the shadow mode."""

from typing import Any

import numpy as np
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mirage_sim.data.recordings import RecordedFrame
from mirage_sim.geometry.quaternions import quaternion_of
from mirage_sim.ros import conversions
from mirage_sim.ros.frames import map_from_base

_DEPTH = 100  # messages


class Player:
    """Publishers of a robot with a camera, under the names that the node `mirage_world` subscribes to.

    Args:
        node: owner of the publishers.
        compressed: whether images are JPEGs.
    """

    def __init__(self, node: Node, compressed: bool = False):
        kind, topic = (CompressedImage, "robot/image_raw/compressed") if compressed else (Image, "robot/image_raw")
        self._compressed = compressed
        self.image = node.create_publisher(kind, topic, _DEPTH)
        self.info = node.create_publisher(CameraInfo, "robot/camera_info", _DEPTH)
        self.depth = node.create_publisher(Image, "robot/depth/image_raw", _DEPTH)
        self.odometry = node.create_publisher(Odometry, "robot/odom", _DEPTH)
        self.path = node.create_publisher(Path, "imagine/path", 1)
        self.all = (self.image, self.info, self.depth, self.odometry, self.path)

    def ready(self) -> bool:
        """Return whether all publishers have a subscriber."""
        return all(publisher.get_subscription_count() for publisher in self.all)

    def play(self, frame: RecordedFrame, *, pose: bool = True, depth: bool = True, info: bool = True) -> None:
        """Publish a frame, its camera and its pose, unless they are left out."""
        c2w = frame.camera.c2w.double().numpy()
        if pose:
            odometry = conversions.odometry(c2w, np.eye(4), np.zeros(6), frame.stamp)
            self.send(self.odometry, odometry)
        if info:
            self.send(self.info, conversions.camera_info(frame.camera.K.numpy(), frame.camera.size, frame.stamp))
        if depth and frame.depth is not None:
            self.send(self.depth, conversions.depth_image(frame.depth, frame.stamp))
        image = conversions.compressed_image if self._compressed else conversions.image
        self.send(self.image, image(frame.image, frame.stamp))

    def imagine(self, frames: list[RecordedFrame]) -> None:
        """Publish a path through the cameras of some frames; its poses have the stamps of the frames."""
        poses = []
        for frame in frames:
            base = map_from_base(frame.camera.c2w.double().numpy())
            position = dict(zip("xyz", base[:3, 3].tolist(), strict=True))
            orientation = dict(zip("xyzw", quaternion_of(base[:3, :3]).tolist(), strict=True))
            pose = {"position": position, "orientation": orientation}
            poses.append({"header": conversions.header(frame.stamp, "map"), "pose": pose})
        self.send(self.path, {"header": conversions.header(frames[0].stamp, "map"), "poses": poses})

    @staticmethod
    def send(publisher: Any, fields: conversions.Fields) -> None:
        """Publish a message made from fields."""
        publisher.publish(conversions.message(publisher.msg_type, fields))
