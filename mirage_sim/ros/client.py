"""A client of a node, all in the calling thread: what benchmarks, soaks and tests say and hear.

Its participant has the middleware's own defaults, as a stranger's would.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from mirage_sim.ros import conversions
from mirage_sim.ros.node_process import ANSWER_S, START_S, NodeProcess, middleware

WORLD = "mirage_world"
Me = TypeVar("Me", bound="Client")


class Client:
    """Hears, and is answered, only while it waits for something; use it with ``with``.

    Args:
        domain: ROS domain id.
    """

    def __init__(self, domain: int):
        self._context = Context()
        with _environment(middleware(domain)):
            rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f"client_{id(self)}", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._services: dict[str, Any] = {}

    def __enter__(self: Me) -> Me:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin(self, seconds: float = 0.0) -> None:
        """Take what arrives next, waiting at most so long for it."""
        self._executor.spin_once(timeout_sec=seconds)

    def until(self, met: Callable[[], Any], seconds: float = START_S) -> bool:
        """Take what arrives until a condition is met; False if it is not within this time."""
        end = time.perf_counter() + seconds
        while not met():
            left = end - time.perf_counter()
            if left <= 0:
                return False
            self.spin(min(left, 0.1))
        return True

    def service(self, kind: Any, name: str) -> Any:
        """A client of a service, made once."""
        if name not in self._services:
            self._services[name] = self.node.create_client(kind, name)
        return self._services[name]

    def ask(self, kind: Any, name: str, request: Any = None) -> Any:
        """What a service answers, an empty request if none is given; None if it does not within a minute."""
        client = self.service(kind, name)
        if not self.until(client.service_is_ready, ANSWER_S):
            return None
        future = client.call_async(request or kind.Request())
        return future.result() if self.until(future.done, ANSWER_S) else None

    def call(self, name: str, data: bool | None = None) -> Any:
        """What a service of the world answers, with ``data`` a SetBool, else a Trigger; None if it does not in time."""
        if data is None:
            return self.ask(Trigger, f"{WORLD}/{name}")
        return self.ask(SetBool, f"{WORLD}/{name}", SetBool.Request(data=data))


@dataclass(frozen=True)
class Seen:
    """An image that has arrived.

    Attributes:
        seconds: its stamp.
        arrived: ``time.perf_counter()``.
        message: itself.
    """

    seconds: float
    arrived: float
    message: Image


class Driver(Client):
    """Sees a world's images and commands it.

    Args:
        domain: ROS domain id.
        reliable: whether images may not be lost.
        on_image: called with each.
        command: what the world takes.
    """

    def __init__(
        self,
        domain: int,
        reliable: bool = True,
        on_image: Callable[[Seen], None] | None = None,
        command: type[Twist] | type[TwistStamped] = Twist,
    ):
        super().__init__(domain)
        self._on_image, self._kind = on_image, command
        self.last: Seen | None = None
        self.count = 0  # of images
        self.health: dict[str, str] = {}
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self._images = self.node.create_subscription(
            Image, "camera/image_raw", self._see, QoSProfile(depth=10, reliability=reliability)
        )
        self._commands = self.node.create_publisher(command, "cmd_vel", 1)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._note, 10)

    def connect(self, process: NodeProcess) -> None:
        """Wait until a world hears commands, answers and shows its images to us.

        Raises:
            RuntimeError: if it ends, or takes more than five minutes.
        """
        pause = self.service(SetBool, f"{WORLD}/pause")

        def there() -> bool:
            process.check()
            met = self._images.get_publisher_count() and self._commands.get_subscription_count()
            return bool(met and pause.service_is_ready())

        if not self.until(there, START_S):
            raise RuntimeError(f"the node: expected it to be there within {START_S:g} s")

    def command(self, forward: float, turn: float) -> None:
        """Publish a command, m/s and rad/s."""
        fields = conversions.twist(forward, turn)
        self._commands.publish(conversions.message(self._kind, fields if self._kind is Twist else {"twist": fields}))

    def next_image(self, seconds: float = ANSWER_S) -> Seen:
        """The next image that arrives.

        Raises:
            RuntimeError: if none does within this time.
        """
        before = self.count
        if not self.until(lambda: self.count > before, seconds) or self.last is None:
            raise RuntimeError(f"images: expected one within {seconds:g} s")
        return self.last

    def answer(self, forward: float, turn: float) -> Seen:
        """Publish a command, and wait for an image of a later time than the last one, or than the start.

        Raises:
            RuntimeError: if none arrives within a minute.
        """
        before = 0.0 if self.last is None else self.last.seconds
        self.command(forward, turn)
        while (seen := self.next_image()).seconds <= before:
            pass  # the start, which may be shown to those who come late
        return seen

    def _see(self, image: Image) -> None:
        self.count += 1
        self.last = Seen(conversions.seconds_of(image.header.stamp), time.perf_counter(), image)
        if self._on_image is not None:
            self._on_image(self.last)

    def _note(self, diagnostics: DiagnosticArray) -> None:
        self.health = {value.key: value.value for status in diagnostics.status for value in status.values}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
