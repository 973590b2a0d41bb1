"""A client with assertions, for tests of nodes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist, TwistStamped
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from benchmarks.ros_client import Client
from mirage_sim.ros import conversions


class Inbox:
    """Messages of one topic in order of arrival."""

    def __init__(self, robot: "Robot", kind: type, topic: str, qos: QoSProfile | int):
        self.messages: list[Any] = []
        self.subscription = robot.node.create_subscription(kind, topic, self.messages.append, qos)
        self._robot = robot

    def wait(self, query: Callable[[list[Any]], Any]) -> Any:
        """Wait until ``query(messages)`` is true, and return it."""
        return self._robot.wait(lambda: query(self.messages))

    def arrived(self, seconds: float) -> bool:
        """Whether there is a message within `seconds`."""
        return self._robot.until(lambda: self.messages, seconds)

    def at(self, seconds: float) -> Any:
        """The message with this stamp."""
        return self.wait(lambda messages: [m for m in messages if time_of(m) == seconds])[-1]

    def after(self, seconds: float) -> Any:
        """The first message with a later stamp."""
        return self.wait(lambda messages: [m for m in messages if time_of(m) > seconds])[0]


def time_of(message: Any) -> float:
    return round(conversions.seconds_of(message.header.stamp), 6)  # as in answers of services


class Robot(Client):
    """A client whose methods fail the test if they wait in vain."""

    def wait(self, query: Callable[[], Any]) -> Any:
        """Wait until ``query()`` is true, and return it."""
        result = None

        def succeeded() -> bool:
            nonlocal result
            result = query()
            return bool(result)

        assert self.until(succeeded), "waited in vain"
        return result

    def listen(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> Inbox:
        """Subscribe, and wait for the publisher."""
        inbox = Inbox(self, kind, topic, qos)
        self.wait(inbox.subscription.get_publisher_count)
        return inbox

    def leave(self, inbox: Inbox) -> None:
        self.node.destroy_subscription(inbox.subscription)

    def talk(self, kind: type, topic: str, depth: int = 10) -> Any:
        """Create a publisher, and wait for a subscriber."""
        publisher = self.node.create_publisher(kind, topic, depth)
        self.wait(publisher.get_subscription_count)
        return publisher

    def trigger(self, name: str) -> Trigger.Response:
        answer = self.call(name)
        assert answer is not None, f"no answer from {name}"
        return answer

    def done(self, name: str) -> float:
        """Call a Trigger service that must succeed; return the simulation time."""
        return self._time(self.call(name))

    def pause(self, paused: bool) -> float:
        """Pause or resume; return the simulation time."""
        return self._time(self.call("pause", paused))

    @staticmethod
    def _time(answer: Trigger.Response | SetBool.Response | None) -> float:
        assert answer is not None and answer.success, answer
        return float(answer.message.split()[1])


def twist(forward: float = 0.0, turn: float = 0.0) -> Twist:
    return conversions.message(Twist, conversions.twist(forward, turn))


def stamped_twist(forward: float = 0.0, turn: float = 0.0) -> TwistStamped:
    return conversions.message(TwistStamped, {"twist": conversions.twist(forward, turn)})


def pose(x: float, y: float, yaw: float, frame: str = "map") -> PoseWithCovarianceStamped:
    orientation = {"x": 0.0, "y": 0.0, "z": float(np.sin(yaw / 2)), "w": float(np.cos(yaw / 2))}
    fields = {"position": {"x": x, "y": y, "z": 0.0}, "orientation": orientation}
    return conversions.message(PoseWithCovarianceStamped, {"header": {"frame_id": frame}, "pose": {"pose": fields}})
