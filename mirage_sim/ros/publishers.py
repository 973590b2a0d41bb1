"""What the node tells: each frame of the simulation as the messages that robots and their tools expect."""

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from mirage_sim.ros import conversions
from mirage_sim.ros.settings import Settings
from mirage_sim.ros.simulation import Frame

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_POINTS_SECONDS = 1.0  # of wall clock, at least, between two clouds
Cloud = Callable[[], tuple[np.ndarray, np.ndarray]]


class Publishers:
    """Publishes frames. Used by one thread.

    A message is made only while somebody subscribes to it, except for ``memory/points``, which late subscribers get,
    too.

    Args:
        node: whose.
        settings: which topics there are; see :class:`~mirage_sim.ros.settings.Settings`.
        cloud: gives all points remembered and their colours.
    """

    def __init__(self, node: Node, settings: Settings, cloud: Cloud):
        self._node = node
        self._cloud = cloud
        self._points_due = 0.0
        self._points_of: Any = None  # the blocks of the map whose points were published last
        self._all: list[Publisher] = []
        self._listeners: list[int] = []  # to each of them when they were last counted
        self._image = self._add(Image, "camera/image_raw", 2)
        self._info = self._add(CameraInfo, "camera/camera_info", 2)
        self._compressed = self._add(CompressedImage, "camera/image_raw/compressed", 2)
        self._depth = self._add(Image, "camera/depth/image_raw", 2)
        self._depth_info = self._add(CameraInfo, "camera/depth/camera_info", 2)
        self._remembered = self._add(Image, "camera/remembered", 2)
        self._odometry = self._add(Odometry, "odom", 10)
        self._points = self._add(PointCloud2, "memory/points", _LATCHED)
        self._scan = self._add(LaserScan, "scan", 10) if settings.scan_rays else None
        self._clock = self._add(Clock, "/clock", 10) if settings.publish_clock else None
        self._transforms: Publisher | None = None
        if settings.publish_tf:
            self._add_transforms()

    def show(self, frame: Frame, settings: Settings) -> None:
        """Publish a frame, every message with the frame's time.

        Args:
            frame: which.
            settings: the present ones, for what may change while the node runs.
        """
        self._listeners = self._count()
        self._show_time(frame)
        self._show_motion(frame)
        self._show_pictures(frame, settings)
        if self._scan and frame.scan is not None and self._wanted(self._scan):
            period = 1.0 / settings.frame_rate
            self._send(self._scan, LaserScan, conversions.laser_scan(frame.scan, frame.seconds, scan_time=period))
        self._show_points(frame)

    def idle(self, frame: Frame, settings: Settings) -> None:
        """Show the last frame again if somebody has come who may not have seen it; else say again what time it is.

        In lockstep and in a pause nothing else would ever come to them. Points that had to wait are published, too.
        """
        before, self._listeners = self._listeners, self._count()
        if any(now > then for now, then in zip(self._listeners, before, strict=True)):
            self.show(frame, settings)
            return
        self._show_time(frame)
        self._show_points(frame)

    def _count(self) -> list[int]:
        return [publisher.get_subscription_count() for publisher in self._all]

    def _show_time(self, frame: Frame) -> None:
        if self._clock and self._wanted(self._clock):
            self._send(self._clock, Clock, conversions.clock(frame.seconds))

    def _show_motion(self, frame: Frame) -> None:
        c2w, origin, seconds = frame.camera.c2w.numpy(), frame.origin, frame.seconds
        if self._transforms and self._wanted(self._transforms):
            self._send_transforms(conversions.transforms(c2w, origin, seconds))
        if self._wanted(self._odometry):
            self._send(self._odometry, Odometry, conversions.odometry(c2w, origin, frame.twist, seconds))

    def _show_pictures(self, frame: Frame, settings: Settings) -> None:
        height, width = frame.image.shape[:2]
        size = settings.output_size((height, width))
        seconds = frame.seconds
        wanted = [publisher for publisher in (self._info, self._depth_info) if self._wanted(publisher)]
        if wanted:
            fields = conversions.camera_info(frame.camera.resize(size).K.numpy(), size, seconds)
            info = conversions.message(CameraInfo, fields)
            for publisher in wanted:
                publisher.publish(info)
        raw, compressed = self._wanted(self._image), self._wanted(self._compressed)
        if raw or compressed:
            image = _resized(frame.image, size)
            if raw:
                self._send(self._image, Image, conversions.image(image, seconds))
            if compressed:
                fields = conversions.compressed_image(image, seconds, quality=settings.jpeg_quality)
                self._send(self._compressed, CompressedImage, fields)
        if self._wanted(self._depth):
            self._send(self._depth, Image, conversions.depth_image(_sampled(frame.depth, size), seconds))
        if self._wanted(self._remembered):
            mask = _sampled(frame.remembered.astype(np.uint8), size).astype(bool)
            self._send(self._remembered, Image, conversions.mono_image(mask, seconds))

    def _show_points(self, frame: Frame) -> None:
        now = time.monotonic()
        if now < self._points_due or frame.map.blocks is self._points_of:
            return
        self._points_due, self._points_of = now + _POINTS_SECONDS, frame.map.blocks
        self._send(self._points, PointCloud2, conversions.point_cloud(*self._cloud(), frame.seconds))

    def _add(self, kind: type, topic: str, qos: QoSProfile | int) -> Publisher:
        overriding = QoSOverridingOptions.with_default_policies()
        self._all.append(self._node.create_publisher(kind, topic, qos, qos_overriding_options=overriding))
        return self._all[-1]

    def _add_transforms(self) -> None:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            self._node.get_logger().info("tf2_msgs is not installed: no /tf, no /tf_static")
            return
        self._transforms = self._add(TFMessage, "/tf", 100)
        static = self._add(TFMessage, "/tf_static", _LATCHED)
        self._send(static, TFMessage, conversions.static_transforms())

    def _send_transforms(self, fields: conversions.Fields) -> None:
        from tf2_msgs.msg import TFMessage

        self._send(self._transforms, TFMessage, fields)

    @staticmethod
    def _send(publisher: Any, kind: type, fields: conversions.Fields) -> None:
        publisher.publish(conversions.message(kind, fields))

    @staticmethod
    def _wanted(publisher: Publisher) -> bool:
        return publisher.get_subscription_count() > 0


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture of another ``(height, width)``; area averages where it shrinks, so that texture does not alias."""
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _sampled(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth or a mask on another pixel grid: the nearest value, because a mean of two surfaces is on neither."""
    if values.shape[:2] == size:
        return values
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
