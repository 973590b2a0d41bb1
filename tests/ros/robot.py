"""A client of the node for tests: subscribes, commands, calls; and the node's process."""

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist, TwistStamped
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from mirage_sim.ros import conversions
from mirage_sim.ros.launching import node_command

PATIENCE = 60.0  # seconds; the machine may be busy
_domains = itertools.count(os.getpid())


def new_domain() -> int:
    """A ROS domain that no other process of this test run uses."""
    return 1 + next(_domains) % 100


def environment(domain: int) -> dict[str, str]:
    return {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class NodeProcess:
    """The node in a process of its own."""

    def __init__(self, **parameters: Any):
        self.domain = new_domain()
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            node_command(**parameters), env=environment(self.domain), stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()

    def wait_for_line(self, part: str, after: int = 0) -> None:
        with self._changed:
            said = self._changed.wait_for(lambda: any(part in line for line in self.lines[after:]), PATIENCE)
        assert said, f"{part!r} not in {self.lines}"

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """The exit status, once it has ended by itself; after that, all that it said is in ``lines``."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            self.process.stderr.close()


class Inbox:
    """Messages of one topic, in order of arrival."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._changed = threading.Condition()

    def put(self, message: Any) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait(self, wanted: Callable[[list[Any]], Any], timeout: float = PATIENCE) -> Any:
        """What ``wanted`` says of the messages, once it says something true."""
        with self._changed:
            found = self._changed.wait_for(lambda: wanted(self.messages), timeout)
        assert found, f"waited in vain; {len(self.messages)} messages"
        return found

    def arrived(self, timeout: float) -> bool:
        """Whether there is a message, now or soon."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.messages), timeout)

    def at(self, seconds: float) -> Any:
        """The message stamped with this time."""
        return self.wait(lambda messages: [m for m in messages if time_of(m) == seconds])[-1]

    def after(self, seconds: float) -> Any:
        """The first message stamped later."""
        return self.wait(lambda messages: [m for m in messages if time_of(m) > seconds])[0]


def time_of(message: Any) -> float:
    return round(conversions.seconds_of(message.header.stamp), 6)  # as many digits as services tell


class Robot:
    """A ROS node that spins in a thread."""

    def __init__(self, domain: int):
        # the middleware reads it when the participant is made
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("tester", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def close(self) -> None:
        self.context.try_shutdown()
        self._thread.join()
        self.node.destroy_node()

    def listen(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> Inbox:
        """Subscribe; returns once the publisher is there."""
        inbox = Inbox()
        subscription = self.node.create_subscription(kind, topic, inbox.put, qos)
        until(lambda: subscription.get_publisher_count())
        inbox.subscription = subscription
        return inbox

    def leave(self, inbox: Inbox) -> None:
        self.node.destroy_subscription(inbox.subscription)

    def talk(self, kind: type, topic: str, depth: int = 10) -> Any:
        """A publisher; returned once somebody listens."""
        publisher = self.node.create_publisher(kind, topic, depth)
        until(lambda: publisher.get_subscription_count())
        return publisher

    def call(self, kind: type, name: str, request: Any = None) -> Any:
        """Ask a service and wait for the answer."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(PATIENCE), f"no service {name}"
        future = client.call_async(request or kind.Request())
        until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def trigger(self, name: str) -> Any:
        return self.call(Trigger, f"/mirage_world/{name}")

    def done(self, name: str) -> float:
        """Have a Trigger done; the time of the frame that it left."""
        response = self.trigger(name)
        assert response.success, response.message
        return float(response.message.split()[1])

    def pause(self, paused: bool) -> float:
        """The time of the last frame before it."""
        response = self.call(SetBool, "/mirage_world/pause", SetBool.Request(data=paused))
        assert response.success, response.message
        return float(response.message.split()[1])


def until(wanted: Callable[[], Any]) -> None:
    """Wait for something that nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def twist(forward: float = 0.0, turn: float = 0.0) -> Twist:
    return conversions.message(Twist, conversions.twist(forward, turn))


def stamped_twist(forward: float = 0.0, turn: float = 0.0) -> TwistStamped:
    return conversions.message(TwistStamped, {"twist": conversions.twist(forward, turn)})


def pose(x: float, y: float, yaw: float, frame: str = "map") -> PoseWithCovarianceStamped:
    orientation = {"x": 0.0, "y": 0.0, "z": float(np.sin(yaw / 2)), "w": float(np.cos(yaw / 2))}
    fields = {"position": {"x": x, "y": y, "z": 0.0}, "orientation": orientation}
    return conversions.message(PoseWithCovarianceStamped, {"header": {"frame_id": frame}, "pose": {"pose": fields}})
