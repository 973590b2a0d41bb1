"""A single-threaded ROS 2 client of the node `mirage_world`, for benchmarks and tests.

Its participant keeps the middleware's default settings, like the one of any other subscriber.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest.mock import patch

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from benchmarks.ros_process import ANSWER_S, START_S, NodeProcess, middleware
from mirage_sim.ros import conversions

WORLD = "mirage_world"
Self = TypeVar("Self", bound="Client")


class Client:
    """A ROS node that handles messages only while one of its methods waits. Use it as a context manager.

    Args:
        domain: ROS domain id.
    """

    def __init__(self, domain: int):
        self._context = Context()
        with patch.dict(os.environ, middleware(domain)):
            rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f"client_{id(self)}", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._services: dict[str, Any] = {}

    def __enter__(self: Self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Leave the ROS domain."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin(self, seconds: float = 0.0) -> None:
        """Handle the next callback; wait at most `seconds` for it."""
        self._executor.spin_once(timeout_sec=seconds)

    def until(self, condition: Callable[[], Any], seconds: float = START_S) -> bool:
        """Handle callbacks until `condition()` holds; return False if it does not within `seconds`."""
        end = time.perf_counter() + seconds
        while not condition():
            left = end - time.perf_counter()
            if left <= 0:
                return False
            self.spin(min(left, 0.1))
        return True

    def service(self, kind: Any, name: str) -> Any:
        """Return the client of a service. It is created once."""
        if name not in self._services:
            self._services[name] = self.node.create_client(kind, name)
        return self._services[name]

    def ask(self, kind: Any, name: str, request: Any = None) -> Any:
        """Call a service, by default with an empty request; return its response, or None after a minute."""
        client = self.service(kind, name)
        if not self.until(client.service_is_ready, ANSWER_S):
            return None
        future = client.call_async(request or kind.Request())
        return future.result() if self.until(future.done, ANSWER_S) else None

    def call(self, name: str, data: bool | None = None) -> Any:
        """Call a Trigger service of the world, or a SetBool service with `data`; see :meth:`ask`."""
        if data is None:
            return self.ask(Trigger, f"{WORLD}/{name}")
        return self.ask(SetBool, f"{WORLD}/{name}", SetBool.Request(data=data))


@dataclass(frozen=True)
class ReceivedImage:
    """An image message with its time stamp in seconds and its time of arrival, ``time.perf_counter()``."""

    seconds: float
    arrived: float
    message: Image


class Driver(Client):
    """A client that subscribes to a world's images and publishes its commands.

    Args:
        domain: ROS domain id.
        reliable: whether to subscribe with reliable or best-effort delivery.
        on_image: called with each image.
        command: message type of the commands.

    Attributes:
        last: the last image received.
        count: number of images received.
        diagnostics: values of the last diagnostics message, by key.
    """

    def __init__(
        self,
        domain: int,
        reliable: bool = True,
        on_image: Callable[[ReceivedImage], None] | None = None,
        command: type[Twist] | type[TwistStamped] = Twist,
    ):
        super().__init__(domain)
        self._on_image, self._kind = on_image, command
        self.last: ReceivedImage | None = None
        self.count = 0
        self.diagnostics: dict[str, str] = {}
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=10, reliability=reliability)
        self._images = self.node.create_subscription(Image, "camera/image_raw", self._receive, qos)
        self._commands = self.node.create_publisher(command, "cmd_vel", 1)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._receive_diagnostics, 10)

    def connect(self, process: NodeProcess) -> None:
        """Wait until the world of `process` receives commands, offers its services and publishes images.

        Raises:
            RuntimeError: if the process ends, or five minutes pass.
        """
        pause = self.service(SetBool, f"{WORLD}/pause")

        def connected() -> bool:
            process.check()
            matched = self._images.get_publisher_count() and self._commands.get_subscription_count()
            return bool(matched and pause.service_is_ready())

        if not self.until(connected, START_S):
            raise RuntimeError(f"the node: expected it to be ready within {START_S:g} s")

    def command(self, forward: float, turn: float) -> None:
        """Publish a velocity command in m/s and rad/s."""
        fields = conversions.twist(forward, turn)
        self._commands.publish(conversions.message(self._kind, fields if self._kind is Twist else {"twist": fields}))

    def next_image(self, seconds: float = ANSWER_S) -> ReceivedImage:
        """Wait for the next image and return it.

        Raises:
            RuntimeError: if none arrives within `seconds`.
        """
        before = self.count
        if not self.until(lambda: self.count > before, seconds) or self.last is None:
            raise RuntimeError(f"images: expected one within {seconds:g} s")
        return self.last

    def answer(self, forward: float, turn: float) -> ReceivedImage:
        """Publish a command and return the next image that is newer than the last one.

        Raises:
            RuntimeError: if none arrives within a minute.
        """
        before = 0.0 if self.last is None else self.last.seconds
        self.command(forward, turn)
        while (received := self.next_image()).seconds <= before:
            pass  # the node publishes its last image again for new subscribers
        return received

    def _receive(self, image: Image) -> None:
        self.count += 1
        self.last = ReceivedImage(conversions.seconds_of(image.header.stamp), time.perf_counter(), image)
        if self._on_image is not None:
            self._on_image(self.last)

    def _receive_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics = {value.key: value.value for status in message.status for value in status.values}
