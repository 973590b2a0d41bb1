"""A world in a process of its own, and a client that drives it over the middleware: for benchmarks, soaks and tests.

They share a domain that nobody else is in, on this machine only, and the client's participant has the middleware's own
defaults, as a stranger's would.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

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
from mirage_sim.ros.launching import node_environment

WORLD = "mirage_world"
START_S = 120.0  # imports, weights and discovery on a busy machine
ANSWER_S = 30.0


def private_domain() -> int:
    """A ROS domain id, 1 to 100, that other processes of this machine hardly have."""
    return 1 + os.getpid() % 100


def middleware(domain: int) -> dict[str, str]:
    """What keeps a process in this domain and on this machine."""
    return {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class NodeProcess:
    """A node of this package in a process of its own; use it with ``with``.

    Args:
        domain: ROS domain id.
        command: as :func:`~mirage_sim.ros.launching.node_command` gives it.
        output: a file for what it says; by default where this process's goes.
    """

    def __init__(self, domain: int, command: Sequence[str], output: IO[Any] | None = None):
        self._command = list(command)
        self._environment = {**os.environ, **node_environment(), **middleware(domain)}
        self._output = output

    def __enter__(self) -> "NodeProcess":
        """Start it; it is not waited for."""
        self.process = subprocess.Popen(
            self._command, env=self._environment, stdout=self._output, stderr=self._output, stdin=subprocess.DEVNULL
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask it to end, as Ctrl-C does; kill it if it does not."""
        self.stop()

    def stop(self) -> int:
        """End it, if it has not; returns its exit code, -9 if it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(ANSWER_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def resident_bytes(self) -> int:
        """Its resident memory (Linux).

        Raises:
            RuntimeError: if it has ended.
        """
        status = Path(f"/proc/{self.process.pid}/status")
        for line in status.read_text(encoding="ascii").splitlines() if self.process.poll() is None else ():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
        raise RuntimeError(f"the node has ended: exit code {self.process.poll()}")


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


class Client:
    """Sees a world's images, commands it and calls its services, all in the calling thread; use it with ``with``.

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
        self._context = Context()
        with _environment(middleware(domain)):
            rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f"client_{id(self)}", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
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
        self._services: dict[str, Any] = {}

    def __enter__(self) -> "Client":
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

    def until(self, met: Callable[[], Any], seconds: float) -> bool:
        """Take what arrives until a condition is met; False if it is not within this time."""
        end = time.perf_counter() + seconds
        while not met():
            left = end - time.perf_counter()
            if left <= 0:
                return False
            self.spin(min(left, 0.1))
        return True

    def connect(self, process: NodeProcess) -> None:
        """Wait until a world hears commands, answers and shows its images to us.

        Raises:
            RuntimeError: if it ends, or takes more than two minutes.
        """
        pause = self._service(SetBool, "pause")

        def there() -> bool:
            if process.process.poll() is not None:
                raise RuntimeError(f"the node has ended: exit code {process.process.returncode}")
            publishers = self.node.count_publishers(self._images.topic_name)
            return bool(publishers and self._commands.get_subscription_count() and pause.service_is_ready())

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
            RuntimeError: if none arrives within half a minute.
        """
        before = 0.0 if self.last is None else self.last.seconds
        self.command(forward, turn)
        while (seen := self.next_image()).seconds <= before:
            pass  # the start, which may be shown to those who come late
        return seen

    def call(self, service: str, data: bool | None = None) -> Trigger.Response | SetBool.Response | None:
        """What a service of the world answers, with ``data`` a SetBool, else a Trigger; None if it does not in time."""
        kind = Trigger if data is None else SetBool
        client = self._service(kind, service)
        client.wait_for_service(timeout_sec=ANSWER_S)
        request = Trigger.Request() if data is None else SetBool.Request(data=data)
        future = client.call_async(request)
        return future.result() if self.until(future.done, ANSWER_S) else None

    def _service(self, kind: Any, name: str) -> Any:
        if name not in self._services:
            self._services[name] = self.node.create_client(kind, f"{WORLD}/{name}")
        return self._services[name]

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
