"""The node in lockstep, over the middleware: its messages equal the results of the environment."""

import math

import cv2
import gymnasium
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from geometry_msgs.msg import PoseWithCovarianceStamped, Twist  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2  # noqa: E402
from support.ros_robot import pose, time_of, twist  # noqa: E402

from benchmarks.ros_process import START_S  # noqa: E402
from mirage_sim.ros import conversions  # noqa: E402

SEED = 3


class Lockstep:
    """A client that sends a command and waits for the image."""

    def __init__(self, robot, process):
        self.robot, self.process = robot, process
        self.images = self.listen(Image, "camera/image_raw")
        self.odometry = self.listen(Odometry, "odom")
        self.commands = robot.talk(Twist, "cmd_vel")
        self.poses = robot.talk(PoseWithCovarianceStamped, "initialpose")

    def listen(self, kind, topic):
        """Subscribe, and reset until a message arrives: only then has the node discovered the subscription."""
        inbox = self.robot.listen(kind, topic, 100)
        self.robot.wait(lambda: self.reset() >= 0 and inbox.arrived(1.0))
        return inbox

    def reset(self) -> float:
        return self.robot.done("reset")

    def drive(self, now: float, forward: float, turn: float) -> float:
        """Make one step; return the time after it."""
        self.commands.publish(twist(forward, turn))
        return time_of(self.images.after(now))

    def image(self, now: float) -> np.ndarray:
        return conversions.frame_of(self.images.at(now))


@pytest.fixture(scope="module")
def lockstep(launch, meet):
    process = launch(mode="lockstep", seed=SEED, cmd_vel_timeout=0.2)
    return Lockstep(meet(process), process)


@pytest.fixture
def env():
    env = gymnasium.make("MirageWorld-v0", observation="dict", scan=360)
    yield env
    env.close()


def action(forward, turn):
    return np.array([forward / 1.5, turn / (math.pi / 3)], np.float32)


def test_images_equal_those_of_the_environment(lockstep, env):
    scans = lockstep.listen(LaserScan, "scan")
    depths = lockstep.listen(Image, "camera/depth/image_raw")
    masks = lockstep.listen(Image, "camera/remembered")
    now = lockstep.reset()
    observation, info = env.reset(seed=SEED)
    for command in [None, (1.0, 0.0), (0.7, 0.4), (0.0, -0.9), (-0.3, 0.2)]:
        if command:
            now = lockstep.drive(now, *command)
            observation, _, _, _, info = env.step(action(*command))
        np.testing.assert_array_equal(lockstep.image(now), observation["rgb"])
        np.testing.assert_array_equal(conversions.depth_of(depths.at(now)), observation["depth"])
        np.testing.assert_array_equal(conversions.mask_of(masks.at(now)), info["remembered_mask"])
        scan = scans.at(now)
        measured, expected = np.array(scan.ranges, np.float32), info["scan"]
        np.testing.assert_array_equal(measured[~np.isnan(measured)], expected[~np.isnan(measured)])
        assert np.isinf(expected[np.isnan(measured)]).all()
        assert scan.angle_min == pytest.approx(-math.pi) and scan.header.frame_id == "base_link"
    assert np.isfinite(info["scan"]).any()
    for inbox in (scans, depths, masks):
        lockstep.robot.leave(inbox)


def test_each_command_of_a_burst_is_a_step(lockstep, env):
    now = lockstep.reset()
    env.reset(seed=SEED)
    commands = [(0.1 * i, 0.0) for i in range(5)]
    for command in commands:
        lockstep.commands.publish(twist(*command))
        observation, *_ = env.step(action(*command))
    np.testing.assert_array_equal(lockstep.image(round(now + 0.5, 6)), observation["rgb"])


def test_forward_command_moves_forward(lockstep):
    now = lockstep.reset()
    start = lockstep.image(now)
    for _ in range(4):
        now = lockstep.drive(now, 1.0, 0.0)
    odometry = lockstep.odometry.at(now)
    position = odometry.pose.pose.position
    assert (position.x, position.y, position.z) == pytest.approx((0.4, 0.0, 0.0), abs=1e-4)
    assert odometry.twist.twist.linear.x == pytest.approx(1.0, abs=1e-3)
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
    nearer, farther = (zoomed(start, factor) for factor in (1.15, 1 / 1.15))
    moved = lockstep.image(now)
    assert similarity(moved, nearer) > similarity(moved, farther) + 0.02


def test_positive_turn_command_turns_left(lockstep):
    now = lockstep.reset()
    start = lockstep.image(now)
    for _ in range(2):
        now = lockstep.drive(now, 0.0, 0.5)
    odometry = lockstep.odometry.at(now)
    orientation = odometry.pose.pose.orientation
    assert 2 * math.atan2(orientation.z, orientation.w) == pytest.approx(0.1, abs=1e-4)
    assert odometry.twist.twist.angular.z == pytest.approx(0.5, abs=1e-3)
    moved = lockstep.image(now)
    # the image moves to the right by f tan(0.1), with a focal length of 83 pixels
    to_the_right, to_the_left = np.roll(start, 8, axis=1), np.roll(start, -8, axis=1)
    assert similarity(moved, to_the_right) > similarity(moved, to_the_left) + 0.05


def zoomed(image, factor):
    matrix = cv2.getRotationMatrix2D((image.shape[1] / 2 - 0.5, image.shape[0] / 2 - 0.5), 0, factor)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def similarity(a, b):
    """Correlation of the middle of two images."""
    a, b = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[12:-12, 12:-12].ravel() for image in (a, b))
    return np.corrcoef(a, b)[0, 1]


def test_messages_of_a_frame_share_stamp_and_frame_id(lockstep):
    topics = [
        (CameraInfo, "camera/camera_info"),
        (CompressedImage, "camera/image_raw/compressed"),
        (Image, "camera/depth/image_raw"),
        (CameraInfo, "camera/depth/camera_info"),
        (Image, "camera/remembered"),
    ]
    inboxes = {topic: lockstep.listen(kind, topic) for kind, topic in topics}
    now = lockstep.drive(lockstep.reset(), 0.5, 0.0)
    raw = lockstep.images.at(now)
    found = {topic: inbox.at(now) for topic, inbox in inboxes.items()}
    assert raw.header.frame_id == "camera_optical_frame"
    for message in found.values():
        assert message.header == raw.header
    info = found["camera/camera_info"]
    assert (info.height, info.width) == (raw.height, raw.width) == (96, 128)
    assert info == found["camera/depth/camera_info"]
    assert (info.k[2], info.k[5]) == (63.5, 47.5) and list(info.p[:3]) == list(info.k[:3])
    decoded = cv2.imdecode(np.array(found["camera/image_raw/compressed"].data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(decoded.astype(int) - conversions.frame_of(raw)).mean() < 8
    for inbox in inboxes.values():
        lockstep.robot.leave(inbox)


def test_clock_never_goes_back(lockstep):
    clocks = lockstep.robot.listen(Clock, "/clock", 100)
    first = lockstep.reset()
    moved = lockstep.drive(first, 0.2, 0.0)
    lockstep.robot.done("snapshot")
    restored = lockstep.robot.done("restore")
    again = lockstep.reset()
    assert first < moved < restored < again
    times = clocks.wait(lambda clocks: [c.clock.sec + 1e-9 * c.clock.nanosec for c in clocks if len(clocks) >= 4])
    assert times == sorted(times)
    lockstep.robot.leave(clocks)


def test_step_keeps_command_until_timeout(lockstep):
    now = lockstep.drive(lockstep.reset(), 1.0, 0.0)
    positions = []
    for _ in range(3):
        now = lockstep.robot.done("step")
        positions.append(lockstep.odometry.at(now).pose.pose.position.x)
    # 0.2 s of simulated time are two steps
    assert positions == pytest.approx([0.2, 0.2, 0.2], abs=1e-4)


def test_restore_repeats_images_after_snapshot(lockstep):
    now = lockstep.drive(lockstep.reset(), 1.0, 0.3)
    lockstep.robot.done("snapshot")

    def proceed(now):
        images = [lockstep.image(now)]
        for _ in range(2):
            now = lockstep.drive(now, 0.8, -0.5)
            images.append(lockstep.image(now))
        return now, images, lockstep.odometry.at(now).pose

    _, first, last_pose = proceed(now)
    for _ in range(2):
        _, again, same_pose = proceed(lockstep.robot.done("restore"))
        np.testing.assert_array_equal(again, first)
        assert same_pose == last_pose


def test_malformed_commands_change_nothing(lockstep, env):
    now = lockstep.drive(lockstep.reset(), 1.0, 0.0)
    env.reset(seed=SEED)
    env.step(action(1.0, 0.0))
    for number in (math.nan, math.inf, -math.inf, 1e30):
        before = len(lockstep.process.lines)
        lockstep.commands.publish(twist(number, 0.0))
        lockstep.process.wait_for_line("cmd_vel refused: linear.x", before)
        before = len(lockstep.process.lines)
        lockstep.commands.publish(twist(0.0, number))
        lockstep.process.wait_for_line("cmd_vel refused: angular.z", before)
    before = len(lockstep.process.lines)
    lockstep.poses.publish(pose(math.nan, 0.0, 0.0))
    lockstep.process.wait_for_line("initialpose refused: position.x", before)
    lockstep.poses.publish(pose(1.0, 0.0, 0.0, frame="elsewhere"))
    lockstep.process.wait_for_line("initialpose refused: header.frame_id", before)
    last = lockstep.drive(now, 1.0, 0.5)
    assert last == pytest.approx(now + 0.1)
    np.testing.assert_array_equal(lockstep.image(last), env.step(action(1.0, 0.5))[0]["rgb"])


def test_fast_commands_are_clipped(lockstep):
    now = lockstep.drive(lockstep.reset(), 50.0, 0.0)
    assert lockstep.odometry.at(now).pose.pose.position.x == pytest.approx(0.15, abs=1e-4)


def test_initialpose_teleports_without_odometry(lockstep):
    now = lockstep.reset()
    start = lockstep.image(now)
    now = lockstep.drive(now, 1.0, 0.0)
    lockstep.poses.publish(pose(-0.5, 0.5, 3.0))
    moved = time_of(lockstep.images.after(now))
    # odometry does not change
    before, after = (lockstep.odometry.at(seconds).pose.pose for seconds in (now, moved))
    assert (after.position.x, after.position.y) == pytest.approx((0.1, 0.0), abs=1e-5)
    assert after.orientation.z == pytest.approx(before.orientation.z, abs=1e-5)
    lockstep.poses.publish(pose(0.0, 0.0, 0.0))
    back = time_of(lockstep.images.after(moved))
    assert similarity(lockstep.image(back), start) > similarity(lockstep.image(moved), start) + 0.2


def test_late_subscribers_receive_points(lockstep, env):
    now = lockstep.reset()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    early = lockstep.robot.listen(PointCloud2, "memory/points", latched)
    early.at(now)  # clouds come at most once a second
    points = lockstep.robot.listen(PointCloud2, "memory/points", latched)
    cloud = points.wait(lambda messages: messages)[0]
    assert time_of(cloud) == now
    assert cloud.header.frame_id == "map" and cloud.width >= 768
    values = np.frombuffer(cloud.data, "<f4").reshape(-1, 4)
    observation, _ = env.reset(seed=SEED)
    # nothing lies behind the first image
    assert np.isfinite(values[:, :3]).all() and (values[:, 0] > 0).all()
    colours = values[:, 3].copy().view(np.uint8).reshape(-1, 4)[:, 2::-1]
    assert np.abs(colours.mean(0) - observation["rgb"].mean((0, 1))).max() < 25
    for inbox in (early, points):
        lockstep.robot.leave(inbox)


def test_late_subscribers_receive_last_image(lockstep):
    now = lockstep.drive(lockstep.reset(), 0.5, 0.0)
    late = lockstep.robot.listen(Image, "camera/image_raw")
    depths = lockstep.robot.listen(Image, "camera/depth/image_raw")
    np.testing.assert_array_equal(conversions.frame_of(late.at(now)), lockstep.image(now))
    assert depths.at(now).header == late.messages[-1].header
    # that took no step
    assert lockstep.drive(now, 0.5, 0.0) == pytest.approx(now + 0.1)
    for inbox in (late, depths):
        lockstep.robot.leave(inbox)


def test_pause_ignores_commands(lockstep):
    now = lockstep.reset()
    lockstep.robot.pause(True)
    lockstep.commands.publish(twist(1.0, 0.0))
    # the service is called after the command has arrived
    assert lockstep.commands.wait_for_all_acked(Duration(seconds=START_S))
    stepped = lockstep.robot.done("step")
    lockstep.robot.pause(False)
    assert stepped == pytest.approx(now + 0.1)
    assert lockstep.odometry.at(stepped).pose.pose.position.x == 0.0
    assert lockstep.drive(stepped, 1.0, 0.0) == pytest.approx(now + 0.2)
