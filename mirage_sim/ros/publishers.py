"""Publishers of the node `mirage_world`: each frame of the simulation as ROS messages."""

import time
from typing import Any

import cv2
import numpy as np
from nav_msgs.msg import OccupancyGrid, Odometry
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from mirage_sim.ros import conversions, memory_messages
from mirage_sim.ros.frames import prefixed
from mirage_sim.ros.memory_views import ranges
from mirage_sim.ros.simulation import Simulation
from mirage_sim.ros.time_step import Frame

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_POINTS_SECONDS, _MAP_SECONDS = 1.0, 2.0  # minimum wall-clock time between two point clouds, two maps


class Publishers:
    """Publishes the frames of a simulation. Not thread-safe.

    Messages are made only for topics that have subscribers. ``memory/points`` and ``map`` are always published, because
    the middleware keeps their last message for late subscribers.

    Args:
        node: owner of the publishers.
        simulation: provides point clouds, and the parameters that decide which topics exist.
    """

    def __init__(self, node: Node, simulation: Simulation):
        self._node, self._simulation = node, simulation
        self._points_due = 0.0
        self._map_due = 0.0
        # blocks of the memory that was published last
        self._points_blocks: Any = None
        self._map_blocks: Any = None
        self._all: list[Publisher] = []
        self._subscribers: list[int] = []  # of each publisher, at the last frame
        parameters = simulation.parameters
        self._image = self._add(Image, "camera/image_raw", 2)
        self._info = self._add(CameraInfo, "camera/camera_info", 2)
        self._compressed = self._add(CompressedImage, "camera/image_raw/compressed", 2)
        self._depth = self._add(Image, "camera/depth/image_raw", 2)
        self._depth_info = self._add(CameraInfo, "camera/depth/camera_info", 2)
        self._remembered = self._add(Image, "camera/remembered", 2)
        self._odometry = self._add(Odometry, "odom", 10)
        self._points = self._add(PointCloud2, "memory/points", _LATCHED)
        self._map = self._add(OccupancyGrid, "map", _LATCHED)
        self._scan = self._add(LaserScan, "scan", 10) if parameters.scan_rays else None
        self._clock = self._add(Clock, "/clock", 10) if parameters.publish_clock else None
        self._transforms = self._add_transforms() if parameters.publish_tf else None

    def publish(self, frame: Frame) -> None:
        """Publish a frame. All messages carry the frame's time.

        Of an observed frame, only scan and memory are published: the robot itself publishes the rest.
        """
        self._subscribers = self._count_subscribers()
        if not frame.observed:
            self._publish_clock(frame)
            self._publish_motion(frame)
            self._publish_images(frame)
        if frame.scan is not None and self._wanted(self._scan):
            scan = ranges(frame.scan, frame.map, frame.camera)
            self._send(self._scan, memory_messages.laser_scan(scan, frame.seconds, frame.period))
        self._publish_memory(frame)

    def publish_idle(self, frame: Frame) -> None:
        """Publish the last frame again if there are new subscribers, else only the clock and what is overdue.

        Without this, late subscribers would receive nothing during a pause or in lockstep.
        """
        before, self._subscribers = self._subscribers, self._count_subscribers()
        if any(now > then for now, then in zip(self._subscribers, before, strict=True)):
            self.publish(frame)
            return
        if not frame.observed:
            self._publish_clock(frame)
        self._publish_memory(frame)

    def _publish_clock(self, frame: Frame) -> None:
        if self._wanted(self._clock):
            self._send(self._clock, conversions.clock(frame.seconds))

    def _publish_motion(self, frame: Frame) -> None:
        c2w, height = frame.camera.c2w.numpy(), self._simulation.parameters.camera_height
        if self._wanted(self._transforms):
            self._send(self._transforms, conversions.transforms(c2w, frame.origin, frame.seconds, height))
        if self._wanted(self._odometry):
            odometry = conversions.odometry(c2w, frame.origin, frame.twist, frame.seconds, height)
            self._send(self._odometry, odometry)

    def _publish_images(self, frame: Frame) -> None:
        parameters, seconds = self._simulation.parameters, frame.seconds
        size = parameters.output_size(frame.image.shape[:2])
        for publisher in (self._info, self._depth_info):
            if self._wanted(publisher):
                self._send(publisher, conversions.camera_info(frame.camera.resize(size).K.numpy(), size, seconds))
        if self._wanted(self._image) or self._wanted(self._compressed):
            image = resize_image(frame.image, size)
            if self._wanted(self._image):
                self._send(self._image, conversions.image(image, seconds))
            if self._wanted(self._compressed):
                quality = parameters.jpeg_quality
                self._send(self._compressed, conversions.compressed_image(image, seconds, quality))
        if self._wanted(self._depth):
            self._send(self._depth, conversions.depth_image(resize_nearest(frame.depth, size), seconds))
        if self._wanted(self._remembered):
            mask = resize_nearest(frame.remembered.astype(np.uint8), size).astype(bool)
            self._send(self._remembered, conversions.mono_image(mask, seconds))

    def _publish_memory(self, frame: Frame) -> None:
        now, height = time.monotonic(), self._simulation.parameters.camera_height
        if now >= self._points_due and frame.map.blocks is not self._points_blocks:
            self._points_due, self._points_blocks = now + _POINTS_SECONDS, frame.map.blocks
            self._send(self._points, memory_messages.point_cloud(*self._simulation.cloud(), frame.seconds, height))
        if now >= self._map_due and frame.map.blocks is not self._map_blocks:
            self._map_due, self._map_blocks = now + _MAP_SECONDS, frame.map.blocks
            if grid := self._simulation.occupancy():
                self._send(self._map, memory_messages.occupancy_grid(grid, frame.seconds, height))

    def _add(self, kind: type, topic: str, qos: QoSProfile | int) -> Publisher:
        overriding = QoSOverridingOptions.with_default_policies()
        self._all.append(self._node.create_publisher(kind, topic, qos, qos_overriding_options=overriding))
        return self._all[-1]

    def _add_transforms(self) -> Publisher | None:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            self._node.get_logger().warning(
                "tf2_msgs is not installed: /tf and /tf_static are not published. "
                "Install ros-DISTRO-tf2-msgs, or set publish_tf:=false"
            )
            return None
        height = self._simulation.parameters.camera_height
        static = conversions.static_transforms(camera_height=height)
        self._send(self._add(TFMessage, "/tf_static", _LATCHED), static)
        return self._add(TFMessage, "/tf", 100)

    def _count_subscribers(self) -> list[int]:
        return [publisher.get_subscription_count() for publisher in self._all]

    def _send(self, publisher: Any, fields: conversions.Fields) -> None:
        fields = prefixed(fields, self._simulation.parameters.frame_prefix)
        publisher.publish(conversions.message(publisher.msg_type, fields))

    @staticmethod
    def _wanted(publisher: Publisher | None) -> bool:
        return publisher is not None and publisher.get_subscription_count() > 0


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image to ``(height, width)``; shrinking averages areas, so that texture does not alias."""
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize depth or a mask to ``(height, width)`` without mixing values: the mean of two surfaces lies on neither."""
    if values.shape[:2] == size:
        return values
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
