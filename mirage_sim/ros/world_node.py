"""The node `mirage_world`: a robot with a camera in a learned world.

Callbacks only hand over what arrives; one worker thread steps the world and publishes. docs/ros2.md lists topics,
services and parameters.
"""

import os
import signal
import time
from contextlib import ExitStack
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist, TwistStamped
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from mirage_sim.ros import conversions, services
from mirage_sim.ros.frames import MAP
from mirage_sim.ros.imagination import Imagination
from mirage_sim.ros.launching import node_environment
from mirage_sim.ros.parameters import WorldParameters, declare
from mirage_sim.ros.publishers import Publishers
from mirage_sim.ros.shadow import Shadow
from mirage_sim.ros.simulation import Simulation
from mirage_sim.ros.synchroniser import Problems
from mirage_sim.ros.worker import Worker

NAME = "mirage_world"
_SLOW = 0.8  # fraction of the requested rate below which diagnostics warn
_THREADS = 4  # commands and diagnostics; waiting services; waiting services of simulation_interfaces; its action
_PAUSE_S = 2e-4  # between two callbacks, see main


class WorldNode(Node):
    """Steps a world from construction until :meth:`destroy_node`.

    Raises:
        rclpy.exceptions.ParameterException: for a parameter of a wrong type or out of range.
        FileNotFoundError: if the start image does not exist.
        ValueError: for another unusable parameter.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        self._closing = ExitStack()  # construction may fail at any line
        self._values = declare(self, WorldParameters, self._follow_parameters)
        simulation = Simulation(self._values)
        if not self.context.ok():  # SIGINT while the networks were loaded
            raise ExternalShutdownException
        self._closing.callback(simulation.close)
        publishers = Publishers(self, simulation)
        self.failed = False
        self.worker = Worker(simulation, publishers.publish, publishers.publish_idle, self._fail)
        self._closing.callback(self.worker.stop)
        services.offer(self, self.worker, self._values.observe)
        services.offer_simulation_interfaces(self, self.worker)
        kind = TwistStamped if self._values.enable_stamped_cmd_vel else Twist
        # in lockstep every command is a step, so none may be dropped from the queue
        depth = 100 if self.worker.lockstep else 1
        self._commands = self.create_subscription(kind, "cmd_vel", self._command, depth)
        self.create_subscription(PoseWithCovarianceStamped, "initialpose", self._teleport, 1)
        self._problems = Problems(self.get_logger().warning)
        self._imagination = Imagination(self, self.worker, self._problems, self._values)
        self._shadow = Shadow(self, self.worker, self._problems, self._values) if self._values.observe else None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._publish_diagnostics)
        self.create_timer(1.0, self._check_publishers)
        self.worker.start()
        mode = "shadow" if self._values.observe else self._values.mode
        self.get_logger().info(f"world {self._values.world!r} runs, mode {mode}")

    def destroy_node(self) -> None:
        """Stop stepping and destroy the node."""
        self._closing.close()
        super().destroy_node()

    def _follow_parameters(self, parameters: WorldParameters) -> None:
        self._values = parameters
        self.worker.submit(lambda simulation: setattr(simulation, "parameters", parameters))

    def _command(self, message: Any) -> None:
        try:
            forward, turn = conversions.twist_of(message)
        except ValueError as error:
            self.get_logger().warning(f"cmd_vel refused: {error}")
            return
        self.worker.command(forward, turn)

    def _teleport(self, message: Any) -> None:
        try:
            c2w = conversions.pose_of(message, self._values.camera_height, self._values.frame_prefix + MAP)
        except ValueError as error:
            self.get_logger().warning(f"initialpose refused: {error}")
            return
        self.worker.submit(lambda simulation: simulation.teleport(c2w))

    def _fail(self, error: BaseException) -> None:
        if self.context.ok():
            self.failed = True
            self.get_logger().fatal(f"{type(error).__name__}: {' '.join(str(error).split())}")
            self.context.try_shutdown()

    def _check_publishers(self) -> None:
        """Warn of commands that cannot arrive because they have the other message type, and of other clocks."""
        if self._values.publish_clock and (others := self.count_publishers("/clock") - 1) > 0:
            self.get_logger().warning(
                f"/clock: expected no other publisher, got {others}; set publish_clock:=false for all worlds but one"
            )
        own = "geometry_msgs/msg/" + self._commands.msg_type.__name__
        for publisher in self.get_publishers_info_by_topic(self._commands.topic_name):
            if publisher.topic_type != own:
                self.get_logger().warning(
                    f"cmd_vel: expected publishers of {own}, got {publisher.topic_type} from "
                    f"{publisher.node_name}; set enable_stamped_cmd_vel to match"
                )

    def _publish_diagnostics(self) -> None:
        report, values = self.worker.report(), self._values
        frame = report.frame
        if frame is None:
            return
        measured = {
            "frames_per_second": round(report.frames_per_second, 2),
            "step_ms": round(1e3 * frame.step_seconds, 2),
            "publish_ms": round(1e3 * report.publish_seconds, 2),
            "latency_ms": "" if report.latency is None else round(1e3 * report.latency, 2),
            "memory_points": frame.map.points,
            "memory_bytes": frame.map.nbytes,
            "remembered": round(float(frame.remembered.mean()), 4),
            "collision": frame.collision,
            "simulated_seconds": frame.seconds,
            "mode": values.mode,
            "paused": self.worker.paused,
            "device": values.device,
        }
        if self._shadow and frame.observed:
            self._shadow.check_camera()
            measured |= self._shadow.values()
        rate = values.frame_rate * values.real_time_factor
        running = not (self.worker.lockstep or self.worker.paused or frame.observed)
        slow = running and report.frames_per_second < _SLOW * rate
        warning = f"slower than the requested {rate:g} frames per second" if slow else ""
        name, problems = self.get_fully_qualified_name().lstrip("/"), self._problems.take()
        fields = conversions.diagnostics(name, measured, frame.seconds, warning, values.device, problems)
        self._diagnostics.publish(conversions.message(DiagnosticArray, fields))


def main() -> int:
    """Run the node; see :func:`mirage_sim.ros.__main__.run`."""
    # rclpy's own handler shuts down on the first SIGINT; a second one is ignored
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name, value in node_environment().items():
        os.environ.setdefault(name, value)
    try:
        rclpy.init()
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    try:
        return _spin()
    except ExternalShutdownException:
        return 0
    except RuntimeError:
        if rclpy.ok():
            raise
        return 0  # the middleware refuses to create anything after SIGINT


def _spin() -> int:
    """Run the node until the context ends; return 1 if its worker failed, 0 otherwise."""
    node = WorldNode()
    try:
        executor = MultiThreadedExecutor(_THREADS)
        executor.add_node(node)
        try:
            while rclpy.ok():
                executor.spin_once()
                # Until a thread has taken up a callback, rclpy's executor submits the same one again and again
                # (ros2/rclpy#1452) and holds the interpreter's lock, which that thread waits for.
                time.sleep(_PAUSE_S)
        except ExternalShutdownException:
            pass
        finally:
            executor.shutdown()
    finally:
        node.destroy_node()
    return int(node.failed)
