"""The node in shadow mode, over the middleware: this process plays a walk through the toy room as a robot."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from nav_msgs.msg import OccupancyGrid, Odometry, Path  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from support.recordings import toy_frames  # noqa: E402
from support.ros_robot import time_of  # noqa: E402

from benchmarks.ros_player import Player  # noqa: E402
from mirage_sim.ros import conversions  # noqa: E402

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
HELD_OUT = 6
WAIT_S = 15.0


def statuses_of(messages):
    return {(status.name, status.message) for message in messages for status in message.status}


class Walk:
    """A robot that walks through the toy room, and what it receives."""

    def __init__(self, robot):
        self.robot, self.player = robot, Player(robot.node)
        self.scans = robot.listen(LaserScan, "scan", 100)
        self.diagnostics = robot.listen(DiagnosticArray, "/diagnostics", 100)
        robot.wait(self.player.ready)
        self.frames = toy_frames(12, (96, 128))

    def observed(self, frame, **left_out):
        """Play a frame and wait until it was observed; return its scan."""
        scans = []
        for _ in range(5):  # the first messages are lost if the node has not discovered the publishers yet
            self.player.play(frame, **left_out)
            if self.robot.until(lambda: scans.extend(self._scans_at(frame.stamp)) or scans, 4.0):
                return scans[-1]
        raise AssertionError(f"no scan at {frame.stamp}, got {[time_of(scan) for scan in self.scans.messages[-5:]]}")

    def _scans_at(self, stamp):
        return [scan for scan in self.scans.messages if abs(time_of(scan) - stamp) < 1e-3]

    def problem(self, kind, play=lambda: None):
        """Wait for a diagnostic of a kind, playing meanwhile; return its text."""
        self.diagnostics.messages.clear()
        play()
        name = f"mirage_world: {kind}"
        texts = []

        def found():
            statuses = [status for message in self.diagnostics.messages for status in message.status]
            texts.extend(status.message for status in statuses if status.name == name and status.level == b"\1")
            return texts

        assert self.robot.until(found, WAIT_S), statuses_of(self.diagnostics.messages)
        return texts[0]

    def later(self, frame, seconds):
        """A frame that was taken later, so that its clock goes on."""
        return replace(frame, stamp=frame.stamp + seconds)


@pytest.fixture(scope="module")
def process(launch):
    return launch(observe=True, mode="lockstep", seed=3)


@pytest.fixture(scope="module")
def walk(process, meet):
    return Walk(meet(process))


def psnr(image, truth):
    return -10 * np.log10(np.mean((image / 255.0 - truth / 255.0) ** 2))


def test_nothing_is_simulated_before_start_here(walk):
    assert "expected images on /robot/image_raw, got none yet" in walk.problem("camera")
    refused = walk.robot.trigger("step")
    assert not refused.success and "start_here" in refused.message
    refused = walk.robot.trigger("start_here")
    assert not refused.success and "expected an observed image" in refused.message


def test_robot_fills_points_scan_and_map(walk):
    for number, frame in enumerate(walk.frames):
        if number != HELD_OUT:
            scan = walk.observed(frame)
    assert scan.header.frame_id == "base_link" and np.isfinite(scan.ranges).sum() > 60
    points = walk.robot.listen(PointCloud2, "memory/points", LATCHED).wait(lambda all: all and all[-1].width and all)
    assert points[-1].width >= 768
    maps = walk.robot.listen(OccupancyGrid, "map", LATCHED)
    assert walk.robot.until(lambda: any(100 in grid.data and 0 in grid.data for grid in maps.messages), WAIT_S)
    grid = maps.messages[-1]
    cells = np.array(grid.data).reshape(grid.info.height, grid.info.width)
    assert grid.header.frame_id == "map"
    # the floor of the toy room is 1.5 m below the camera, and its walls are at most 6 m away
    assert grid.info.origin.position.z == pytest.approx(0.0, abs=0.1)
    assert max(cells.shape) * grid.info.resolution < 8


def test_image_on_a_path_equals_held_out_image(walk):
    robot, truth = walk.robot, walk.frames[HELD_OUT]
    images, infos, odometry, collisions = (
        robot.listen(kind, f"imagine/{topic}")
        for kind, topic in ((Image, "image_raw"), (CameraInfo, "camera_info"), (Odometry, "odom"), (Bool, "collision"))
    )
    robot.until(lambda: False, 1.5)  # until the latest points and the latest map are published
    points = robot.listen(PointCloud2, "memory/points", LATCHED).wait(lambda all: all)[-1].width
    walk.player.imagine([walk.frames[HELD_OUT - 1], truth])
    assert robot.until(lambda: all(len(i.messages) == 2 for i in (images, infos, odometry, collisions)), WAIT_S)
    image = images.messages[-1]
    assert time_of(image) == pytest.approx(truth.stamp, abs=1e-3)
    imagined = conversions.frame_of(image)
    assert psnr(imagined, truth.image) > 25
    assert psnr(imagined, walk.frames[0].image) < 25
    np.testing.assert_allclose(np.array(infos.messages[-1].k).reshape(3, 3)[0, 0], truth.camera.K[0, 0], rtol=1e-3)
    position = odometry.messages[-1].pose.pose.position
    assert (position.x, -position.y) == pytest.approx(truth.camera.c2w[[2, 0], 3].tolist(), abs=1e-3)
    assert odometry.messages[-1].header.frame_id == "map"
    assert [message.data for message in collisions.messages] == [False, False]
    assert robot.listen(PointCloud2, "memory/points", LATCHED).wait(lambda all: all)[-1].width == points


def test_path_through_a_wall_collides(walk):
    collisions = walk.robot.listen(Bool, "imagine/collision")
    camera = walk.frames[-1].camera
    through = camera.c2w.clone()
    through[:3, 3] += 6.0 * camera.c2w[:3, 2]
    walk.player.imagine([replace(walk.frames[-1], camera=replace(camera, c2w=through))])
    assert collisions.wait(lambda all: all)[0].data


@pytest.mark.parametrize(
    ("frame", "count", "text"), [("", 2, "frame_id"), ("moon", 2, "moon"), ("map", 10_000, "10000")]
)
def test_unusable_path_is_one_diagnostic(walk, frame, count, text):
    path = conversions.message(Path, {"header": conversions.header(1.0, frame), "poses": [{"header": {}}] * count})
    assert text in walk.problem("imagine/path", lambda: walk.player.path.publish(path))


def pose(frame):
    return conversions.odometry(frame.camera.c2w.double().numpy(), np.eye(4), np.zeros(6), frame.stamp)


def play_other_encoding(player, frame):
    player.send(player.odometry, pose(frame))
    player.send(player.image, conversions.image(frame.image, frame.stamp) | {"encoding": "yuv422"})


def play_other_size(player, frame):
    player.send(player.odometry, pose(frame))
    player.send(player.depth, conversions.depth_image(frame.depth, frame.stamp))
    player.send(player.image, conversions.image(frame.image[:48, :64], frame.stamp))


def play_nan_depth(player, frame):
    player.play(replace(frame, depth=np.full_like(frame.depth, np.nan)))


def play_without_depth(player, frame):
    player.play(frame, depth=False)


def play_without_pose(player, frame):
    player.play(frame, pose=False)


def play_far_away(player, frame):
    c2w = frame.camera.c2w.clone()
    c2w[0, 3] += 30.0
    player.play(replace(frame, camera=replace(frame.camera, c2w=c2w)))


def play_in_the_past(player, frame):
    player.play(replace(frame, stamp=frame.stamp - 500.0))


def play_nothing(player, frame):
    pass


FAULTS = {
    play_other_encoding: ("image", "yuv422"),
    play_other_size: ("image", "as in camera_info"),
    play_nan_depth: ("depth", "expected known pixels"),
    play_without_depth: ("depth", "expected depth within"),
    play_without_pose: ("pose", "expected transforms of odom -> base_link"),
    play_far_away: ("jump", "expected a pose near the last one"),
    play_in_the_past: ("clock", "expected stamps that follow"),
    play_nothing: ("camera", "got none for"),
}


@pytest.mark.parametrize("play", FAULTS, ids=lambda play: play.__name__)
def test_fault_of_robot_is_one_diagnostic(walk, play):
    kind, text = FAULTS[play]
    frame = walk.later(walk.frames[-1], 1.0 + 0.5 * [*FAULTS].index(play))
    assert text in walk.problem(kind, lambda: play(walk.player, frame))


def test_robot_goes_on_after_faults(walk):
    scan = walk.observed(walk.later(walk.frames[-1], 100.0))
    assert np.isfinite(scan.ranges).sum() > 60


def test_start_here_makes_a_simulation(walk):
    last, images = walk.later(walk.frames[-1], 101.0), walk.robot.listen(Image, "camera/image_raw")
    walk.observed(last)
    walk.robot.done("start_here")
    image = images.wait(lambda all: all)[-1]
    np.testing.assert_array_equal(conversions.frame_of(image), last.image)
    now = walk.robot.done("step")
    stepped = conversions.frame_of(images.after(now - 0.05))
    assert psnr(stepped, last.image) > 25
    walk.robot.done("reset")
    again = images.wait(lambda all: len(all) > 2 and all)[-1]
    np.testing.assert_array_equal(conversions.frame_of(again), last.image)
