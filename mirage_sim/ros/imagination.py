"""What a robot would see on a path: images of a fork of the world, whose memory stays as it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Bool

from mirage_sim.ros import conversions
from mirage_sim.ros.frames import MAP, prefixed
from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.ros.simulation import Simulation
from mirage_sim.ros.synchroniser import Problems
from mirage_sim.ros.worker import Worker
from mirage_sim.world import World

_QUEUE = 100  # messages that a slow subscriber may lag behind


class Imagination:
    """Answers each ``imagine/path`` with one image, camera, pose and collision for each of its poses.

    Each pose is a task of its own, so that the world goes on in between. A new path replaces one that is not finished.
    Messages have the stamps of the poses; poses without one follow each other at ``frame_rate`` from the present time.

    Args:
        node: owner of subscription and publishers.
        worker: of the simulation.
        problems: receives what is wrong with a path.
        parameters: of the node.
    """

    def __init__(self, node: Node, worker: Worker, problems: Problems, parameters: WorldParameters):
        self._worker, self._problems, self._parameters = worker, problems, parameters
        self._number = 0  # of the latest path
        self._image = node.create_publisher(Image, "imagine/image_raw", _QUEUE)
        self._info = node.create_publisher(CameraInfo, "imagine/camera_info", _QUEUE)
        self._odometry = node.create_publisher(Odometry, "imagine/odom", _QUEUE)
        self._collision = node.create_publisher(Bool, "imagine/collision", _QUEUE)
        node.create_subscription(Path, "imagine/path", self._receive, 1)

    def _receive(self, message: Any) -> None:
        parameters = self._parameters
        try:
            poses = conversions.path_of(message, parameters.camera_height, parameters.frame_prefix + MAP)
        except ValueError as error:
            self._problems.add("imagine/path", str(error))
            return
        self._number += 1
        stamps = [conversions.seconds_of(pose.header.stamp) for pose in message.poses]
        self._submit(lambda simulation: self._begin(simulation, self._number, poses, stamps))

    def _submit(self, task: Any) -> None:
        self._worker.submit(task).add_done_callback(self._finish)

    def _finish(self, future: Any) -> None:
        if not future.cancelled() and (error := future.exception()):
            self._problems.add("imagine/path", " ".join(str(error).split()))

    def _begin(self, simulation: Simulation, number: int, poses: Sequence[np.ndarray], stamps: Sequence[float]) -> None:
        start, rate = simulation.frame.seconds, simulation.parameters.frame_rate
        times = [stamp or start + (i + 1) / rate for i, stamp in enumerate(stamps)]
        self._go_on(simulation, number, simulation.fork(), list(zip(poses, times, strict=True)))

    def _go_on(self, simulation: Simulation, number: int, fork: World, path: list[tuple[np.ndarray, float]]) -> None:
        if number != self._number:
            return
        (c2w, seconds), *rest = path
        imagined, height = simulation.imagine(fork, c2w), self._parameters.camera_height
        odometry = conversions.odometry(c2w, np.eye(4), np.zeros(6), seconds, height)
        odometry["header"] = conversions.header(seconds, MAP)
        intrinsics = conversions.camera_info(imagined.camera.K.numpy(), imagined.camera.size, seconds)
        for publisher, fields in (
            (self._collision, {"data": imagined.collision}),
            (self._odometry, odometry),
            (self._info, intrinsics),
            (self._image, conversions.image(imagined.image, seconds)),
        ):
            fields = prefixed(fields, self._parameters.frame_prefix)
            publisher.publish(conversions.message(publisher.msg_type, fields))
        if rest:
            self._submit(lambda simulation: self._go_on(simulation, number, fork, rest))
