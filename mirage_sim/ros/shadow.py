"""Subscriptions to a robot's camera and poses, which fill the memory of the node `mirage_world`."""

import threading
import time
from concurrent.futures import Future
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.ros.simulation import Simulation
from mirage_sim.ros.synchroniser import SILENCE, Problems, Synchroniser
from mirage_sim.ros.time_step import Frame
from mirage_sim.ros.worker import Worker

_CHECK_SECONDS = 0.1  # between two looks for images that have waited long enough
_LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Shadow:
    """Passes what a robot publishes to the simulation, image by image.

    Callbacks only store messages. The worker decodes and observes the newest complete set; while it is busy, older
    sets are left out.

    Args:
        node: owner of the subscriptions.
        worker: of the simulation.
        problems: receives what is wrong with the messages, and a camera that stops.
        parameters: of the node.
    """

    def __init__(self, node: Node, worker: Worker, problems: Problems, parameters: WorldParameters):
        self._worker, self._problems = worker, problems
        self._lock = threading.Lock()
        self._waiting = False  # whether the worker will look at the messages
        self.observed = 0
        mounted = self._subscribe_transforms(node)
        self._synchroniser = Synchroniser(problems, parameters.camera_height, mounted)
        compressed = parameters.image_transport == "compressed"
        topic, kind = ("robot/image_raw/compressed", CompressedImage) if compressed else ("robot/image_raw", Image)
        self._images = self._subscribe(node, kind, topic, self._image)
        self._subscribe(node, Image, "robot/depth/image_raw", self._depth)
        node.create_subscription(
            CameraInfo, "robot/camera_info", lambda message: self._synchroniser.add_camera_info(message), 10
        )
        node.create_subscription(Odometry, "robot/odom", self._odometry, 100)
        node.create_timer(_CHECK_SECONDS, self._check)

    def values(self) -> dict[str, Any]:
        """Return numbers for diagnostics: images received and observed."""
        return {"images_received": self._synchroniser.received, "images_observed": self.observed}

    def check_camera(self) -> None:
        """Add a problem if the camera has stopped."""
        if (silence := self._synchroniser.silence(time.monotonic())) > SILENCE:
            since = "yet" if silence == float("inf") else f"for {silence:.1f} s"
            self._problems.add("camera", f"expected images on {self._images.topic_name}, got none {since}")

    @staticmethod
    def _subscribe(node: Node, kind: Any, topic: str, callback: Any) -> Any:
        overriding = QoSOverridingOptions.with_default_policies()
        return node.create_subscription(
            kind, topic, callback, qos_profile_sensor_data, qos_overriding_options=overriding
        )

    def _subscribe_transforms(self, node: Node) -> bool:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            node.get_logger().warning(
                "tf2_msgs is not installed: poses come from robot/odom, and the camera is assumed to look ahead, "
                "camera_height above its child frame"
            )
            return False
        add = lambda static: lambda message: self._synchroniser.add_transforms(message, static)  # noqa: E731
        node.create_subscription(TFMessage, "/tf", add(False), 100)
        node.create_subscription(TFMessage, "/tf_static", add(True), _LATCHED)
        return True

    def _image(self, message: Any) -> None:
        self._synchroniser.add_image(message, time.monotonic())
        self._wake()

    def _depth(self, message: Any) -> None:
        self._synchroniser.add_depth(message, time.monotonic())
        self._wake()

    def _odometry(self, message: Any) -> None:
        self._synchroniser.add_odometry(message)
        self._wake()

    def _check(self) -> None:
        if self._synchroniser.waiting:
            self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._waiting:
                return
            self._waiting = True
        self._worker.submit(self._observe).add_done_callback(self._finish)

    def _observe(self, simulation: Simulation) -> Frame | None:
        with self._lock:
            self._waiting = False
        if not simulation.observing or (seen := self._synchroniser.take(time.monotonic())) is None:
            return None
        frame = simulation.observe(seen)
        self.observed += 1
        return frame

    def _finish(self, future: "Future[Any]") -> None:
        if not future.cancelled() and (error := future.exception()):
            self._problems.add("image", " ".join(str(error).split()))
