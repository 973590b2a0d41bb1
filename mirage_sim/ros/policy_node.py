"""The node `mirage_policy`: an agent that drives a robot by its camera, with one command per image.

This works with a world in lockstep, with a world in real time, and with any other robot that publishes images.
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
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
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
from mirage_sim.ros.parameters import SCRIPTED, PolicyParameters, declare

NAME = "mirage_policy"
_UNDISCOVERED = ("_NODE_NAMESPACE_UNKNOWN_", "_NODE_NAME_UNKNOWN_")  # of an endpoint whose node is not known yet
_RETRY_S = 0.1  # between two attempts to answer an image
Agent = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Frame ``[H, W, 3]`` and depth ``[H, W]`` (0 where unknown) to forward and turn ``[2]``, fractions of the maxima."""


def scripted_agent(steps: int) -> Agent:
    """Return an agent that looks around, walks to open space and returns, repeatedly; see :class:`ScriptedPolicy`.

    Args:
        steps: images per walk.
    """
    walk, left = ScriptedPolicy(steps), steps

    def choose(frame: np.ndarray, depth: np.ndarray) -> np.ndarray:
        nonlocal walk, left
        if not left:
            walk, left = ScriptedPolicy(steps), steps
        left -= 1
        return walk({"depth": depth})

    return choose


def learned_agent(path: str, trust: bool) -> Agent:
    """Return the agent of a stable-baselines3 PPO trained on frames, with discrete actions or twists.

    Raises:
        FileNotFoundError: if the file does not exist.
        ImportError: if stable-baselines3 is not installed.
        ValueError: if the file is not trusted or not such a policy, or has other observations or actions.
    """
    policy = LearnedPolicy(path, trust)
    observations, actions = policy.observation_space, policy.action_space
    discrete = isinstance(actions, spaces.Discrete) and actions.n == len(DISCRETE_COMMANDS)
    if not (discrete or isinstance(actions, spaces.Box) and actions.shape == (2,)):
        raise ValueError(f"policy: expected one with twists or the discrete actions, got {actions}")
    if not isinstance(observations, spaces.Box) or len(observations.shape) != 3:
        raise ValueError(f"policy: expected one trained on frames (observation rgb), got {observations}")
    height, width = observations.shape[1:] if observations.shape[0] == 3 else observations.shape[:2]
    commands = np.array(list(DISCRETE_COMMANDS.values()), dtype=np.float32)

    def choose(frame: np.ndarray, depth: np.ndarray) -> np.ndarray:
        if frame.shape[:2] != (height, width):
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        action = policy(frame)
        return commands[int(action)] if discrete else np.clip(action, -1.0, 1.0)

    return choose


class PolicyNode(Node):
    """Subscribes to ``camera/image_raw``, with the scripted agent also to depth, and publishes ``cmd_vel``.

    Raises:
        FileNotFoundError: if the policy file does not exist.
        ImportError: if the policy needs stable-baselines3, which is not installed.
        ValueError: for unusable parameters.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        parameters = declare(self, PolicyParameters)
        policy, self._stamped = parameters.policy, parameters.enable_stamped_cmd_vel
        self._with_depth = policy == SCRIPTED
        self._agent = (
            scripted_agent(parameters.steps) if self._with_depth else learned_agent(policy, parameters.trust_policy)
        )
        self._limits = VelocityLimits()
        self._image: Image | None = None  # not answered yet
        self._depth: Image | None = None
        self._answered: Any = None  # stamp of the last answered image
        self._lockstep = True  # the world may wait for an answer; False once images come without one
        overridable = QoSOverridingOptions.with_default_policies()
        kind = TwistStamped if self._stamped else Twist
        self._commands = self.create_publisher(kind, "cmd_vel", 1, qos_overriding_options=overridable)
        images = QoSProfile(depth=2)
        self._images = self.create_subscription(
            Image, "camera/image_raw", self._receive_image, images, qos_overriding_options=overridable
        )
        if self._with_depth:
            self.create_subscription(
                Image, "camera/depth/image_raw", self._receive_depth, images, qos_overriding_options=overridable
            )
        # wall clock, because no time passes in a world in lockstep
        self.create_timer(_RETRY_S, self._answer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"{policy}: waiting for images on {self._images.topic_name}")

    def stop(self) -> None:
        """Stop the robot and wait up to a second until it has received the command."""
        self._send(0.0, 0.0, None)
        self._commands.wait_for_all_acked(Duration(seconds=1))

    def _receive_image(self, image: Image) -> None:
        if image.header.stamp == self._answered:
            return  # repeated for a new subscriber
        if self._image is not None and image.header.stamp != self._image.header.stamp:
            self._lockstep = False
        self._image = image
        self._answer()

    def _receive_depth(self, depth: Image) -> None:
        self._depth = depth
        self._answer()

    def _answer(self) -> None:
        """Answer the last image when its depth has arrived and the world receives commands. Skip unreadable images."""
        image, depth = self._image, self._depth
        if image is None or (self._with_depth and (depth is None or depth.header.stamp != image.header.stamp)):
            return
        if self._connected():
            self._lockstep = True
        elif self._lockstep:
            return  # the timer tries again
        self._answered = image.header.stamp
        self._image = self._depth = None
        try:
            frame = conversions.frame_of(image)
            metres = conversions.depth_of(depth) if depth is not None else np.zeros(frame.shape[:2], np.float32)
        except ValueError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        forward, turn = self._agent(frame, metres)
        self._send(float(forward) * self._limits.max_speed, float(turn) * self._limits.max_turn_rate, image)

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

    def _connected(self) -> bool:
        """Return whether every node that publishes images receives the commands.

        A world in lockstep waits for the first command, so it must not be lost. Other subscribers, such as recorders,
        may be connected earlier.
        """
        cameras = self._nodes(self.get_publishers_info_by_topic(self._images.topic_name))
        receivers = self._nodes(self.get_subscriptions_info_by_topic(self._commands.topic_name))
        del receivers[_UNDISCOVERED]
        matched = self._commands.get_subscription_count() >= cameras.total()
        return bool(cameras) and cameras <= receivers and matched

    @staticmethod
    def _nodes(endpoints: Sequence[Any]) -> Counter[tuple[str, str]]:
        return Counter((endpoint.node_namespace, endpoint.node_name) for endpoint in endpoints)


def main() -> int:
    """Run the node, and stop the robot at the end; see :func:`mirage_sim.ros.__main__.run`."""
    interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True

    # rclpy's own handlers would end the context during an answer, before the robot is stopped
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = PolicyNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not interrupted:
        executor.spin_once(timeout_sec=0.2)
    node.stop()
    return 0
