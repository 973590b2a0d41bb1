"""The node in real time, over the middleware: rate, delivery, timeouts, and clients that come and go."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import Twist, TwistStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterValue  # noqa: E402
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters  # noqa: E402
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from support.ros_robot import Robot, stamped_twist, time_of  # noqa: E402

from benchmarks.ros_process import START_S, middleware  # noqa: E402

LISTENER = Path(__file__).parents[1] / "support" / "ros_listener.py"


@pytest.fixture(scope="module")
def process(launch):
    # half the rate, for slow machines
    best_effort = {"qos_overrides./camera/remembered.publisher.reliability": "best_effort"}
    return launch(real_time_factor=0.5, cmd_vel_timeout=0.5, enable_stamped_cmd_vel=True, **best_effort)


@pytest.fixture(scope="module")
def robot(process, meet):
    return meet(process)


@pytest.fixture(scope="module")
def odometry(robot):
    return robot.listen(Odometry, "odom", 100)


@pytest.fixture(scope="module")
def commands(robot):
    return robot.talk(TwistStamped, "cmd_vel")


def set_parameters(robot, **values):
    kinds = {int: ("integer_value", 2), float: ("double_value", 3), str: ("string_value", 4)}
    parameters = []
    for name, value in values.items():
        field, number = kinds[type(value)]
        parameters.append(Parameter(name=name, value=ParameterValue(type=number, **{field: value})))
    request = SetParameters.Request(parameters=parameters)
    return robot.ask(SetParameters, "/mirage_world/set_parameters", request).results


@pytest.mark.parametrize("size", [(96, 128), (480, 640)])
def test_reliable_and_best_effort_subscribers_get_frames(robot, size):
    assert all(result.successful for result in set_parameters(robot, image_height=size[0], image_width=size[1]))
    reliable = robot.listen(Image, "camera/image_raw", 10)
    best_effort = robot.listen(Image, "camera/image_raw", qos_profile_sensor_data)
    infos = robot.listen(CameraInfo, "camera/camera_info")

    def times(messages):
        return {round(time_of(message) * 10) for message in messages if (message.height, message.width) == size}

    first = max(min(inbox.wait(times)) for inbox in (reliable, best_effort))
    expected = set(range(first, first + 40))
    reliable.wait(lambda messages: max(times(messages)) >= max(expected))
    for inbox in (reliable, best_effort):
        received = expected & times(inbox.messages)
        assert len(received) >= 0.95 * len(expected), sorted(expected - received)
    info = infos.at(time_of(reliable.messages[-1]))
    assert (info.height, info.width) == size
    assert (info.k[2], info.k[5]) == pytest.approx(((size[1] - 1) / 2, (size[0] - 1) / 2))
    assert info.k[4] == pytest.approx(size[0] / 2 / math.tan(math.radians(30)), rel=1e-4)
    for inbox in (reliable, best_effort, infos):
        robot.leave(inbox)
    set_parameters(robot, image_height=0, image_width=0)


def test_images_are_reliable_unless_overridden(robot):
    def reliability(topic):
        robot.wait(lambda: robot.node.count_publishers(topic))
        (publisher,) = robot.node.get_publishers_info_by_topic(topic)
        return publisher.qos_profile.reliability

    assert reliability("/camera/image_raw") == reliability("/camera/depth/image_raw") == ReliabilityPolicy.RELIABLE
    assert reliability("/camera/remembered") == ReliabilityPolicy.BEST_EFFORT


def test_robot_stops_after_command_timeout(robot, commands, odometry):
    robot.trigger("reset")
    start = len(odometry.messages)
    commands.publish(stamped_twist(1.0, 0.0))

    def stopped(messages):
        speeds = [message.twist.twist.linear.x for message in messages[start:]]
        moving = [i for i, speed in enumerate(speeds) if speed > 0.5]
        return moving and len(speeds) > moving[-1] + 3 and messages[-1]

    # half a simulated second at 1 m/s
    assert odometry.wait(stopped).pose.pose.position.x == pytest.approx(0.5, abs=1e-3)


def test_step_needs_a_pause(robot, odometry):
    refused = robot.trigger("step")
    assert not refused.success and "pause" in refused.message
    now = robot.pause(True)
    for step in (1, 2):
        assert robot.done("step") == pytest.approx(now + 0.1 * step)
    odometry.at(round(now + 0.2, 6))
    # the world may have stepped before the answer was written
    assert robot.pause(False) >= now + 0.2 - 1e-6
    odometry.after(now + 0.2)


def test_killed_client_does_not_disturb_node(process, robot, odometry):
    def listener():
        return subprocess.Popen(
            [sys.executable, str(LISTENER)],
            env={**os.environ, **middleware(process.domain)},
            stdout=subprocess.PIPE,
            text=True,
        )

    first = listener()
    assert float(first.stdout.readline()) > 0
    first.kill()
    first.wait(START_S)
    first.stdout.close()
    now = robot.done("snapshot")
    odometry.after(now + 0.5)
    second = listener()
    try:
        assert float(second.stdout.readline()) > now
    finally:
        second.kill()
        second.wait(START_S)
        second.stdout.close()
    assert robot.trigger("snapshot").success


def test_diagnostics_report_rate_and_memory(robot):
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    (status,) = diagnostics.wait(lambda messages: messages)[0].status
    values = {value.key: value.value for value in status.values}
    assert status.name == "mirage_world" and status.hardware_id == "cpu"
    assert float(values["frames_per_second"]) > 0 and float(values["step_ms"]) > 0
    assert int(values["memory_points"]) >= 768 and int(values["memory_bytes"]) > 0
    robot.leave(diagnostics)


def test_parameters_are_described_and_validated(robot):
    request = DescribeParameters.Request(names=["frame_rate", "image_width", "mode", "world"])
    response = robot.ask(DescribeParameters, "/mirage_world/describe_parameters", request)
    rate, width, mode, world = response.descriptors
    assert (rate.floating_point_range[0].from_value, rate.floating_point_range[0].to_value) == (1.0, 100.0)
    assert width.integer_range[0].to_value == 8192
    assert mode.additional_constraints == "one of: realtime, lockstep"
    assert world.read_only and all(descriptor.description for descriptor in response.descriptors)
    for bad in ({"frame_rate": -1.0}, {"frame_rate": math.nan}, {"jpeg_quality": 0}, {"world": "other"}):
        (result,) = set_parameters(robot, **bad)
        assert not result.successful and result.reason, bad
    (result,) = set_parameters(robot, start_image="/nowhere/kitchen.png")
    assert not result.successful and "/nowhere/kitchen.png" in result.reason
    assert set_parameters(robot, seed=4)[0].successful
    assert robot.trigger("reset").success


def test_integers_set_floats_without_changing_their_type(robot):
    assert set_parameters(robot, frame_rate=20)[0].successful
    request = GetParameters.Request(names=["frame_rate"])
    (value,) = robot.ask(GetParameters, "/mirage_world/get_parameters", request).values
    assert (value.type, value.double_value) == (3, 20.0)
    set_parameters(robot, frame_rate=10.0)


def test_publisher_of_other_command_type_is_reported(process):
    with Robot(process.domain) as other:  # one participant cannot publish both types
        other.node.create_publisher(Twist, "cmd_vel", 1)
        process.wait_for_line(
            "cmd_vel: expected publishers of geometry_msgs/msg/TwistStamped, got geometry_msgs/msg/Tw"
        )


def test_other_publisher_of_clock_is_reported(process):
    with Robot(process.domain) as other:
        other.node.create_publisher(Clock, "/clock", 1)
        process.wait_for_line("/clock: expected no other publisher, got 1")


def test_two_interrupts_end_node_cleanly(process, robot, odometry):
    """The last test, because it ends the node."""
    process.interrupt()
    process.interrupt()
    assert process.end() == 0
    assert not [line for line in process.lines if "Traceback" in line or "ERROR" in line or "FATAL" in line]
    # its publishers are gone
    robot.wait(lambda: not odometry.subscription.get_publisher_count())
