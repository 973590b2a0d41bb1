"""What tests say and hear in a node's domain."""

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist, TwistStamped
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from mirage_sim.ros import conversions
from mirage_sim.ros.client import Client


class Inbox:
    """Messages of one topic, in order of arrival."""

    def __init__(self, robot: "Robot", kind: type, topic: str, qos: QoSProfile | int):
        self.messages: list[Any] = []
        self.subscription = robot.node.create_subscription(kind, topic, self.messages.append, qos)
        self._robot = robot

    def wait(self, wanted: Callable[[list[Any]], Any]) -> Any:
        """What ``wanted`` says of the messages, once it says something true."""
        return self._robot.wait(lambda: wanted(self.messages))

    def arrived(self, seconds: float) -> bool:
        """Whether there is a message, now or soon."""
        return self._robot.until(lambda: self.messages, seconds)

    def at(self, seconds: float) -> Any:
        """The message stamped with this time."""
        return self.wait(lambda messages: [m for m in messages if time_of(m) == seconds])[-1]

    def after(self, seconds: float) -> Any:
        """The first message stamped later."""
        return self.wait(lambda messages: [m for m in messages if time_of(m) > seconds])[0]


def time_of(message: Any) -> float:
    return round(conversions.seconds_of(message.header.stamp), 6)  # as many digits as services tell


class Robot(Client):
    """Listens, talks and asks."""

    def wait(self, wanted: Callable[[], Any]) -> Any:
        """What is wanted, once it is there."""
        found = None

        def there() -> bool:
            nonlocal found
            found = wanted()
            return bool(found)

        assert self.until(there), "waited in vain"
        return found

    def listen(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> Inbox:
        """Subscribe; returns once the publisher is there."""
        inbox = Inbox(self, kind, topic, qos)
        self.wait(inbox.subscription.get_publisher_count)
        return inbox

    def leave(self, inbox: Inbox) -> None:
        self.node.destroy_subscription(inbox.subscription)

    def talk(self, kind: type, topic: str, depth: int = 10) -> Any:
        """A publisher; returned once somebody listens."""
        publisher = self.node.create_publisher(kind, topic, depth)
        self.wait(publisher.get_subscription_count)
        return publisher

    def trigger(self, name: str) -> Trigger.Response:
        answer = self.call(name)
        assert answer is not None, f"no answer of {name}"
        return answer

    def done(self, name: str) -> float:
        """Have a Trigger done; the time of the frame that it left."""
        return self._time(self.call(name))

    def pause(self, paused: bool) -> float:
        """The time of the last frame before it."""
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
