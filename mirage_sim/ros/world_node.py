"""The node ``mirage_world``, once ROS and torch are loaded; :mod:`mirage_sim.ros.node` starts it.

Callbacks only hand over what came; one worker thread steps the world and publishes what is seen. Topics, services and
parameters: docs/ros2.md.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import rclpy
import rclpy.logging
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist, TwistStamped
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from mirage_sim.ros import conversions, parameters, simulator_control
from mirage_sim.ros.launching import FASTDDS
from mirage_sim.ros.publishers import Publishers
from mirage_sim.ros.services import Services
from mirage_sim.ros.settings import Settings
from mirage_sim.ros.simulation import Frame, Simulation
from mirage_sim.ros.worker import Worker

NAME = "mirage_world"
_PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")  # Fast DDS 3; 2
_SLOW = 0.8  # of the rate asked for; slower is worth a warning
_THREADS = 4  # commands and diagnostics; services that wait; those of simulation_interfaces; its action
_BREATH = 2e-4  # seconds; see _spin


class MirageWorldNode(Node):
    """The node. It steps the world from its construction until :meth:`destroy_node`.

    Raises:
        rclpy.exceptions.ParameterException: for a parameter of a wrong type or out of range.
        FileNotFoundError: if the start picture does not exist.
        ValueError: for another unusable parameter.
    """

    def __init__(self, **arguments: Any):
        super().__init__(NAME, **arguments)
        self._closing = ExitStack()  # for the end, which may come before all is made
        self._settings = parameters.declare(self, self._set)
        self._simulation = Simulation(self._settings)
        if not self.context.ok():  # SIGINT while the networks were loaded
            raise ExternalShutdownException
        self._closing.callback(self._simulation.close)
        self._outgoing = Publishers(self, self._settings, self._simulation.cloud)
        self.failed = False
        self.worker = Worker(self._simulation, self._show, self._idle, self._fail)
        self._closing.callback(self.worker.stop)
        Services(self, self.worker)
        simulator_control.offer(self, self.worker)
        kind = TwistStamped if self._settings.enable_stamped_cmd_vel else Twist
        # in lockstep every command is a step, so that none may push another out
        depth = 100 if self.worker.lockstep else 1
        self.create_subscription(kind, "cmd_vel", self._command, depth)
        self.create_subscription(PoseWithCovarianceStamped, "initialpose", self._teleport, 1)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._diagnose)
        self.worker.start()
        self.get_logger().info(f"world {self._settings.world!r} runs, mode {self._settings.mode}")

    def destroy_node(self) -> None:
        """Stop stepping, then take everything down."""
        self._closing.close()
        super().destroy_node()

    def _set(self, settings: Settings) -> None:
        self._settings = settings
        self.worker.submit(lambda simulation: setattr(simulation, "settings", settings))

    def _command(self, message: Any) -> None:
        try:
            forward, turn = conversions.twist_of(message)
        except ValueError as error:
            self.get_logger().warning(f"cmd_vel refused: {error}")
            return
        self.worker.command(forward, turn)

    def _teleport(self, message: Any) -> None:
        try:
            c2w = conversions.pose_of(message)
        except ValueError as error:
            self.get_logger().warning(f"initialpose refused: {error}")
            return
        self.worker.submit(lambda simulation: simulation.teleport(c2w))

    def _show(self, frame: Frame) -> None:
        self._outgoing.show(frame, self._simulation.settings)

    def _idle(self) -> None:
        self._outgoing.idle(self._simulation.frame, self._simulation.settings)

    def _fail(self, error: BaseException) -> None:
        if self.context.ok():
            self.failed = True
            self.get_logger().fatal(_one_line(error))
            self.context.try_shutdown()

    def _diagnose(self) -> None:
        report, settings = self.worker.statistics.report(), self._settings
        frame = report.frame
        if frame is None:
            return
        values = {
            "frames_per_second": round(report.frames_per_second, 2),
            "step_ms": round(1e3 * frame.step_seconds, 2),
            "publish_ms": round(1e3 * report.publish_seconds, 2),
            "latency_ms": "" if report.latency is None else round(1e3 * report.latency, 2),
            "memory_points": frame.map.points,
            "memory_bytes": frame.map.nbytes,
            "remembered": round(float(frame.remembered.mean()), 4),
            "collision": frame.collision,
            "simulated_seconds": frame.seconds,
            "mode": settings.mode,
            "paused": self.worker.paused,
            "device": settings.device,
        }
        wanted = settings.frame_rate * settings.real_time_factor
        running = not (self.worker.lockstep or self.worker.paused)
        slow = running and report.frames_per_second < _SLOW * wanted
        text = f"slower than the {wanted:g} frames per second asked for" if slow else "ok"
        fields = conversions.diagnostics(NAME, values, frame.seconds, int(slow), text, settings.device)
        self._diagnostics.publish(conversions.message(DiagnosticArray, fields))


def run(args: Sequence[str] | None = None) -> int:
    """See :func:`mirage_sim.ros.node.main`."""
    # rclpy's own handler then shuts down, and a second SIGINT finds nobody to interrupt
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for variable in _PROFILE_VARIABLES:
        os.environ.setdefault(variable, str(FASTDDS.resolve()))
    try:
        rclpy.init(args=None if args is None else list(args))
    except RuntimeError as error:
        return _refuse(error)
    try:
        return _spin()
    except ExternalShutdownException:
        return 0
    except (ValueError, OSError, ParameterException) as error:
        return _refuse(error)
    except RuntimeError:
        if rclpy.ok():
            raise
        return 0  # SIGINT while the node was being made, which the middleware then refuses
    finally:
        rclpy.try_shutdown()


def _spin() -> int:
    node = MirageWorldNode()
    executor = MultiThreadedExecutor(_THREADS)
    executor.add_node(node)
    try:
        while rclpy.ok():
            executor.spin_once()
            # Until one of its threads has taken a callback up, rclpy's executor hands the same one over again and again
            # (ros2/rclpy#1452), and holds the interpreter while that thread waits for it
            time.sleep(_BREATH)
    except ExternalShutdownException:
        pass
    finally:
        node.destroy_node()
        executor.shutdown()
    return int(node.failed)


def _refuse(error: Exception) -> int:
    rclpy.logging.get_logger(NAME).fatal(_one_line(error))
    return 1


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
