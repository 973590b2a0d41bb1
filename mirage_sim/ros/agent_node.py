"""The node ``mirage_policy``: an agent that sees a robot's camera and drives it, one command per image.

One command per image drives a world in lockstep as well as one in real time, and a robot that is none of ours.
:mod:`mirage_sim.ros.policy_node` starts it.
"""

import signal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from gymnasium import spaces
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from mirage_sim.agents.policies import ScriptedPolicy
from mirage_sim.agents.sb3_policy import LearnedPolicy
from mirage_sim.envs.actions import DISCRETE_COMMANDS
from mirage_sim.geometry import VelocityLimits
from mirage_sim.ros import conversions

NAME = "mirage_policy"
UNKNOWN = ("_NODE_NAMESPACE_UNKNOWN_", "_NODE_NAME_UNKNOWN_")  # of an endpoint whose node was not heard of yet
LOOK_S = 0.1  # between two looks whether who shows an image hears commands by now
Choose = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Frame ``[H, W, 3]`` and depth ``[H, W]`` (0 where unknown) to forward and turn, fractions ``[2]`` of the maxima."""


def explorer(steps: int) -> Choose:
    """Look around, walk to open space and return, again and again; see :class:`ScriptedPolicy`.

    Args:
        steps: images of one walk.
    """
    walk, left = ScriptedPolicy(steps), steps

    def choose(frame: np.ndarray, depth: np.ndarray) -> np.ndarray:
        nonlocal walk, left
        if not left:
            walk, left = ScriptedPolicy(steps), steps
        left -= 1
        return walk({"depth": depth})

    return choose


def learned(path: str, trust: bool) -> Choose:
    """Drive as a PPO of stable-baselines3 learned to from frames, with discrete actions or twists.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if stable-baselines3 is not installed.
        ValueError: if it is not trusted, no such file, or learned from or answers something else.
    """
    policy = LearnedPolicy(path, trust)
    seen, actions = policy.observation_space, policy.action_space
    discrete = isinstance(actions, spaces.Discrete) and actions.n == len(DISCRETE_COMMANDS)
    if not (discrete or isinstance(actions, spaces.Box) and actions.shape == (2,)):
        raise ValueError(f"policy: expected one with twists or the discrete actions, got {actions}")
    if not isinstance(seen, spaces.Box) or len(seen.shape) != 3:
        raise ValueError(f"policy: expected one that learned from frames (observation rgb), got {seen}")
    height, width = seen.shape[1:] if seen.shape[0] == 3 else seen.shape[:2]
    commands = np.array(list(DISCRETE_COMMANDS.values()), dtype=np.float32)

    def choose(frame: np.ndarray, depth: np.ndarray) -> np.ndarray:
        if frame.shape[:2] != (height, width):
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        action = policy(frame)
        return commands[int(action)] if discrete else np.clip(action, -1.0, 1.0)

    return choose


class PolicyNode(Node):
    """Subscribes to ``camera/image_raw``, and ``camera/depth/image_raw`` if it needs that; publishes ``cmd_vel``.

    Parameters, all read-only: ``policy`` (``scripted``, or the path of a stable-baselines3 zip), ``trust_policy``,
    ``steps`` and ``enable_stamped_cmd_vel``; ``configs/ros/policy.yaml`` explains them.

    Raises:
        FileNotFoundError: if there is no such policy file.
        ImportError: if the policy needs stable-baselines3, which is not installed.
        ValueError: for unusable parameters.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        policy = self._parameter("policy", "scripted", "scripted, or the path of a PPO zip of stable-baselines3")
        trust = self._parameter("trust_policy", False, "load that zip: it can run any code its maker put there")
        steps = self._parameter(
            "steps", 200, "images of one walk of the scripted policy", IntegerRange(from_value=1, to_value=1_000_000)
        )
        self._stamped = self._parameter("enable_stamped_cmd_vel", False, "publish TwistStamped instead of Twist")
        if policy != "scripted" and not policy.endswith(".zip"):
            raise ValueError(f"policy: expected scripted or the path of a stable-baselines3 .zip, got {policy!r}")
        self._with_depth = policy == "scripted"
        self._choose = explorer(steps) if self._with_depth else learned(policy, trust)
        self._drive = VelocityLimits()
        self._image: Image | None = None  # not answered yet
        self._depth: Image | None = None
        self._answered: Any = None  # the stamp of the last image that was
        self._waited_for = True  # by a world that shows nothing more until it is answered, as far as we know
        overridable = QoSOverridingOptions.with_default_policies()
        kind = TwistStamped if self._stamped else Twist
        self._commands = self.create_publisher(kind, "cmd_vel", 1, qos_overriding_options=overridable)
        images = QoSProfile(depth=2)
        self._images = self.create_subscription(
            Image, "camera/image_raw", self._see, images, qos_overriding_options=overridable
        )
        if self._with_depth:
            self.create_subscription(
                Image, "camera/depth/image_raw", self._measure, images, qos_overriding_options=overridable
            )
        # wall clock: a world in lockstep makes no time pass
        self.create_timer(LOOK_S, self._act, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"{policy}: waiting for images on {self._images.topic_name}")

    def stand(self) -> None:
        """Tell the robot to stand, and wait until it has heard it, a second at most."""
        self._send(0.0, 0.0, None)
        self._commands.wait_for_all_acked(Duration(seconds=1))

    def _parameter(self, name: str, default: Any, about: str, *ranges: IntegerRange) -> Any:
        descriptor = ParameterDescriptor(description=about, read_only=True, integer_range=ranges)
        return self.declare_parameter(name, default, descriptor).value

    def _see(self, image: Image) -> None:
        if image.header.stamp == self._answered:
            return  # shown again, to somebody who has just come
        if self._image is not None and image.header.stamp != self._image.header.stamp:
            self._waited_for = False
        self._image = image
        self._act()

    def _measure(self, depth: Image) -> None:
        self._depth = depth
        self._act()

    def _act(self) -> None:
        """Answer an image, once its depth is there, too, and it is heard; one that cannot be read is skipped."""
        image, depth = self._image, self._depth
        if image is None or (self._with_depth and (depth is None or depth.header.stamp != image.header.stamp)):
            return
        if self._heard():
            self._waited_for = True
        elif self._waited_for:
            return  # it is looked at again, in a moment
        self._answered = image.header.stamp
        self._image = self._depth = None
        try:
            frame = conversions.frame_of(image)
            metres = conversions.depth_of(depth) if depth is not None else np.zeros(frame.shape[:2], np.float32)
        except ValueError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        forward, turn = self._choose(frame, metres)
        self._send(float(forward) * self._drive.max_speed, float(turn) * self._drive.max_turn_rate, image)

    def _send(self, forward: float, turn: float, image: Image | None) -> None:
        command = conversions.message(Twist, conversions.twist(forward, turn))
        if self._stamped:
            stamped = TwistStamped(twist=command)
            stamped.header.frame_id = conversions.BASE
            if image is not None:
                stamped.header.stamp = image.header.stamp
            self._commands.publish(stamped)
        else:
            self._commands.publish(command)

    def _heard(self) -> bool:
        """Whether every node that shows images hears our commands.

        The first one must not be lost to a world that waits for it. Others may hear us sooner: a recorder, say.
        """
        cameras = self._nodes(self.get_publishers_info_by_topic(self._images.topic_name))
        ears = self._nodes(self.get_subscriptions_info_by_topic(self._commands.topic_name))
        del ears[UNKNOWN]
        return bool(cameras) and cameras <= ears and self._commands.get_subscription_count() >= cameras.total()

    @staticmethod
    def _nodes(endpoints: Sequence[Any]) -> Counter[tuple[str, str]]:
        return Counter((endpoint.node_namespace, endpoint.node_name) for endpoint in endpoints)


def run(args: Sequence[str] | None = None) -> int:
    """See :func:`mirage_sim.ros.policy_node.main`."""
    interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True

    # not rclpy's own handlers: they end the context at once, in the middle of an answer, and with it the last command
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = PolicyNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not interrupted:
            executor.spin_once(timeout_sec=0.2)
        node.stand()
    except (ImportError, OSError, ParameterException, ValueError) as error:
        rclpy.logging.get_logger(NAME).fatal(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    finally:
        # a second interrupt must not kill the interpreter while it takes itself down
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        rclpy.try_shutdown()
    return 0
