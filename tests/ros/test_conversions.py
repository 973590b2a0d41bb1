"""Poses, scans and points to rclpy messages and back, through serialisation."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mirage_sim.geometry import Camera, quaternions, se3_exp
from mirage_sim.memory import LatentMap
from mirage_sim.memory.latent_map import Points
from mirage_sim.ros import conversions, frames, memory_messages
from mirage_sim.world import Body
from mirage_sim.world.body import RANGE
from mirage_sim.world.occupancy import OccupancyMap

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'mirage_sim[ros]', or source a ROS 2")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import (  # noqa: E402
    PoseWithCovarianceStamped,
    TransformStamped,
    Twist,
    TwistStamped,
)
from nav_msgs.msg import OccupancyGrid, Odometry, Path  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2  # noqa: E402
from support.ros_wire import sent  # noqa: E402

POSES = arrays(np.float64, 6, elements=st.floats(-3, 3)).map(lambda twist: se3_exp(torch.from_numpy(twist)).numpy())
RATES = st.floats(-conversions.MAX_RATE, conversions.MAX_RATE)
FEW = settings(max_examples=40, deadline=None)
EYE = np.eye(4)


def assert_complete(cls: Any, fields: conversions.Fields) -> None:
    """Assert that fields are complete, as a bag writer needs them, and have no others."""
    assert set(fields) == set(cls.get_fields_and_field_types())
    for name, value in fields.items():
        if isinstance(value, dict):
            assert_complete(type(getattr(cls(), name)), value)


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (Image, conversions.image(np.zeros((2, 3, 3), np.uint8), 1.0)),
        (CompressedImage, conversions.compressed_image(np.zeros((8, 8, 3), np.uint8), 1.0)),
        (CameraInfo, conversions.camera_info(np.eye(3), (2, 3), 1.0)),
        (Odometry, conversions.odometry(EYE, EYE, np.zeros(6), 1.0)),
        (LaserScan, memory_messages.laser_scan(np.ones(4, np.float32), 1.0)),
        (PointCloud2, memory_messages.point_cloud(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8), 1.0)),
        (DiagnosticArray, conversions.diagnostics("world", {}, 1.0)),
        (Clock, conversions.clock(1.0)),
        (Twist, conversions.twist(1.0, 2.0)),
        (TransformStamped, conversions.static_transforms()["transforms"][0]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fields_match_message_type(cls: Any, fields: conversions.Fields):
    assert_complete(cls, fields)
    message = conversions.message(cls, fields)
    assert serialize_message(sent(cls, fields)) == serialize_message(message)  # which rounds floats


@FEW
@given(RATES, RATES)
def test_twist_round_trip(forward: float, turn: float):
    fields = conversions.twist(forward, turn)
    assert conversions.twist_of(sent(Twist, fields)) == (forward, turn)
    stamped = {"header": conversions.header(1.0, "base_link"), "twist": fields}
    assert conversions.twist_of(sent(TwistStamped, stamped)) == (forward, turn)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e6, -100.1, 1e308])
@pytest.mark.parametrize("part", ["linear", "angular"])
@pytest.mark.parametrize("axis", "xyz")
def test_twist_of_refuses_implausible_values(part: str, axis: str, value: float):
    message = Twist()
    setattr(getattr(message, part), axis, value)
    with pytest.raises(
        ValueError, match=rf"{part}\.{axis}: expected at most 100 (m|rad)/s in size, got {value}".replace("+", r"\+")
    ):
        conversions.twist_of(message)
    with pytest.raises(ValueError, match=rf"{part}\.{axis}: "):
        conversions.twist_of(TwistStamped(twist=message))


def stamped_pose(c2w: np.ndarray, height: float = frames.CAMERA_HEIGHT) -> PoseWithCovarianceStamped:
    pose = frames.map_from_base(c2w, height)
    x, y, z, w = quaternions.quaternion_of(pose[:3, :3]).tolist()
    fields = {
        "header": conversions.header(0.0, "map"),
        "pose": {
            "pose": {
                "position": dict(zip("xyz", pose[:3, 3].tolist(), strict=True)),
                "orientation": {"x": x, "y": y, "z": z, "w": w},
            }
        },
    }
    return sent(PoseWithCovarianceStamped, fields)


@FEW
@given(POSES, st.floats(0.1, 3))
def test_pose_round_trip(c2w: np.ndarray, height: float):
    back = conversions.pose_of(stamped_pose(c2w, height), height)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, c2w, atol=1e-5)


def test_pose_of_floor_gives_camera_above_it():
    """A message of RViz: 2 m ahead, 1 m to the left, turned to the left."""
    message = PoseWithCovarianceStamped()
    message.header.frame_id = "map"
    message.pose.pose.position.x, message.pose.pose.position.y = 2.0, 1.0
    message.pose.pose.orientation.z = message.pose.pose.orientation.w = math.sqrt(0.5)
    c2w = conversions.pose_of(message)
    np.testing.assert_allclose(c2w[:3, 3], [-1, 0, 2], atol=1e-6)
    np.testing.assert_allclose(c2w[:3, 2], [-1, 0, 0], atol=1e-6)  # looks left
    np.testing.assert_allclose(c2w[:3, 1], [0, 1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("header.frame_id", "odom", "header.frame_id: expected 'map', got 'odom'"),
        ("pose.pose.position.y", math.nan, "position.y: expected at most 10000 m in size, got nan"),
        ("pose.pose.position.x", math.inf, "position.x: .*got inf"),
        ("pose.pose.position.z", 1e9, "position.z: "),
        ("pose.pose.orientation.z", math.nan, "orientation.z: .*got nan"),
        ("pose.pose.orientation.w", 0.0, r"orientation: expected a unit quaternion, got \[0.0, 0.0, 0.0, 0.0\]"),
        ("pose.pose.orientation.x", 0.5, "orientation: expected a unit quaternion"),
    ],
)
def test_pose_of_refuses_implausible_values(path: str, value: Any, named: str):
    message = stamped_pose(EYE)
    *parents, last = path.split(".")
    holder: Any = message
    for parent in parents:
        holder = getattr(holder, parent)
    setattr(holder, last, value)
    with pytest.raises(ValueError, match=named):
        conversions.pose_of(message)


def motion_of(translation: Any, rotation: Any) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = quaternions.rotation_of([rotation.x, rotation.y, rotation.z, rotation.w])
    out[:3, 3] = translation.x, translation.y, translation.z
    return out


@FEW
@given(POSES, POSES, arrays(np.float64, 6, elements=st.floats(-2, 2)))
def test_odometry_and_transforms_lead_to_camera(c2w: np.ndarray, origin: np.ndarray, velocity: np.ndarray):
    """map -> odom -> base_link -> camera_link -> camera_optical_frame is a camera-to-world pose, in the map's axes."""
    parts = [*conversions.transforms(c2w, origin, 1.5)["transforms"], *conversions.static_transforms()["transforms"]]
    tree = [sent(TransformStamped, part) for part in parts]
    chain = ["map", "odom", "base_link", "camera_link", "camera_optical_frame"]
    assert [part.header.frame_id for part in tree] == chain[:-1] and [part.child_frame_id for part in tree] == chain[1:]
    steps = [motion_of(part.transform.translation, part.transform.rotation) for part in tree]
    optical = np.linalg.multi_dot(steps)
    np.testing.assert_allclose(optical, frames.base_from_camera() @ c2w, atol=1e-8)

    odometry = sent(Odometry, conversions.odometry(c2w, origin, velocity, 1.5))
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
    pose, twist = odometry.pose.pose, odometry.twist.twist
    np.testing.assert_allclose(motion_of(pose.position, pose.orientation), steps[1], atol=1e-12)
    parts = [getattr(vector, axis) for vector in (twist.linear, twist.angular) for axis in "xyz"]
    np.testing.assert_array_equal(parts, velocity)


def pillar(x: float, z: float, footprint: float = 0.05) -> LatentMap:
    """Return a column of remembered points; x is right of the camera, z ahead."""
    heights = np.arange(0.2, 1.5, 0.05)
    xyz = np.stack([np.full_like(heights, x), frames.CAMERA_HEIGHT - heights, np.full_like(heights, z)], 1)
    n = len(xyz)
    points = Points(torch.from_numpy(xyz).float(), torch.zeros(n, 1), torch.arange(n), torch.full((n,), footprint))
    return LatentMap.empty(1).add(points, torch.zeros(0, dtype=torch.int64), n)


@pytest.mark.parametrize(("x", "z"), [(0.0, 2.0), (-2.0, 0.0), (2.0, 0.0), (0.0, -2.0), (-1.5, 2.0)])
@pytest.mark.parametrize("turn", [0.0, 0.5, -2.0])
def test_scan_and_cloud_agree_on_positions(x: float, z: float, turn: float):
    map = pillar(x, z)
    c2w = se3_exp(torch.tensor([0.3, 0.0, -0.2, 0.0, -turn, 0.0]))
    ranges = Body().around(map, Camera.from_fov(c2w, 60.0, (96, 128))).scan(720)
    scan = sent(LaserScan, memory_messages.laser_scan(ranges, 1.0))
    assert scan.header.frame_id == "base_link" and (scan.range_min, scan.range_max) == (0.0, RANGE)
    assert scan.angle_max == pytest.approx(scan.angle_min + 719 * scan.angle_increment)
    measured = np.array(scan.ranges)
    angles = scan.angle_min + np.flatnonzero(np.isfinite(measured)) * scan.angle_increment
    measured = measured[np.isfinite(measured)]
    assert len(measured) > 0
    in_base = np.stack([measured * np.cos(angles), measured * np.sin(angles), 0 * angles, 1 + 0 * angles])
    seen = (frames.map_from_base(c2w.numpy()) @ in_base)[:2].T

    colours = np.full(map.xyz().shape, 9, np.uint8)
    cloud = sent(PointCloud2, memory_messages.point_cloud(map.xyz().numpy(), colours, 1.0))
    assert cloud.header.frame_id == "map"
    points = np.frombuffer(cloud.data, [(field.name, "<f4") for field in cloud.fields])
    np.testing.assert_allclose(points["x"], z, atol=1e-6)  # ahead of the start
    np.testing.assert_allclose(points["y"], -x, atol=1e-6)  # and to its left
    assert points["z"].min() == pytest.approx(0.2, abs=1e-6)  # above the floor
    np.testing.assert_allclose(seen, np.broadcast_to([z, -x], seen.shape), atol=0.06)


def test_laser_scan_keeps_ranges_and_sets_angles():
    scan = sent(
        LaserScan, memory_messages.laser_scan(np.array([1.0, np.inf, 3.0, np.nan], np.float32), 1.0, scan_time=0.1)
    )
    np.testing.assert_array_equal(scan.ranges, [1.0, math.inf, 3.0, math.nan])
    assert scan.angle_min == pytest.approx(-math.pi) and scan.angle_increment == pytest.approx(math.pi / 2)
    assert scan.scan_time == pytest.approx(0.1)


@FEW
@given(arrays(np.uint8, st.tuples(st.integers(0, 5), st.just(3))))
def test_point_cloud_packs_colours_for_rviz(rgb: np.ndarray):
    cloud = sent(PointCloud2, memory_messages.point_cloud(np.zeros(rgb.shape, np.float32), rgb, 0.0))
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, len(rgb), 16, 16 * len(rgb))
    assert [(field.name, field.offset, field.datatype) for field in cloud.fields] == [
        ("x", 0, 7),
        ("y", 4, 7),
        ("z", 8, 7),
        ("rgb", 12, 7),
    ]
    packed = np.frombuffer(cloud.data, "<u4").reshape(-1, 4)[:, 3]
    np.testing.assert_array_equal(np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1), rgb)


@pytest.mark.parametrize(
    ("xyz", "rgb", "named"),
    [
        (np.zeros((2, 2), np.float32), np.zeros((2, 3), np.uint8), r"xyz: expected \[N, 3\], got \[2, 2\]"),
        (np.zeros((2, 3), np.float32), np.zeros((3, 3), np.uint8), r"rgb: expected uint8 \[2, 3\]"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3)), "rgb: expected uint8 .* got float64"),
    ],
)
def test_point_cloud_refuses_wrong_arrays(xyz: np.ndarray, rgb: np.ndarray, named: str):
    with pytest.raises(ValueError, match=named):
        memory_messages.point_cloud(xyz, rgb, 0.0)


def test_occupancy_grid_has_origin_and_rows_of_the_map():
    cells = np.array([[-1, 0, 100], [0, 0, -1]], np.int8)
    message = sent(OccupancyGrid, memory_messages.occupancy_grid(OccupancyMap(cells, 0.05, (-1.0, 2.0), 1.4), 3.5, 1.5))
    assert (message.info.width, message.info.height) == (3, 2)
    np.testing.assert_array_equal(np.array(message.data).reshape(2, 3), cells)
    position = message.info.origin.position
    assert (position.x, position.y, position.z) == pytest.approx((-1.0, 2.0, 0.1))
    assert message.header.frame_id == "map" and message.info.resolution == pytest.approx(0.05)


def test_prefix_is_put_before_all_frame_names():
    tree = frames.prefixed(conversions.transforms(np.eye(4), np.eye(4), 1.0), "robot1/")
    named = [(part["header"]["frame_id"], part["child_frame_id"]) for part in tree["transforms"]]
    assert named == [("robot1/map", "robot1/odom"), ("robot1/odom", "robot1/base_link")]
    assert frames.prefixed(conversions.header(1.0, ""), "robot1/")["frame_id"] == ""


def path(count: int, frame: str = "map") -> Any:
    orientation = {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0}
    poses = [
        {"header": conversions.header(0.0, ""), "pose": {"position": {"x": 0.1 * i}, "orientation": orientation}}
        for i in range(count)
    ]
    return conversions.message(Path, {"header": conversions.header(0.0, frame), "poses": poses})


def test_path_becomes_camera_poses():
    poses = conversions.path_of(path(3))
    np.testing.assert_allclose([pose[:3, 3] for pose in poses], [[0, 0, 0], [0, 0, 0.1], [0, 0, 0.2]], atol=1e-6)


@pytest.mark.parametrize(
    ("message", "named"),
    [(path(2, ""), "header.frame_id"), (path(2, "moon"), "header.frame_id"), (path(0), "poses"), (path(1001), "poses")],
    ids=["no frame", "unknown frame", "empty", "long"],
)
def test_path_refuses_frames_and_lengths(message: Any, named: str):
    with pytest.raises(ValueError, match=f"{named}: expected"):
        conversions.path_of(message)
