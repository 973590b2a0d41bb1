"""Arrays to the real message classes and back, through the wire format; no middleware runs."""

import io
import math
import time
from array import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image as Pictures

from mirage_sim.geometry import Camera, project, se3_exp
from mirage_sim.memory import LatentMap
from mirage_sim.memory.latent_map import Points
from mirage_sim.ros import conversions, frames
from mirage_sim.world import Body
from mirage_sim.world.body import RANGE

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'mirage_sim[ros]', or source a ROS 2")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import (  # noqa: E402
    PoseWithCovarianceStamped,
    TransformStamped,
    Twist,
    TwistStamped,
)
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2  # noqa: E402

SIDES = array_shapes(min_dims=2, max_dims=2, max_side=9)
FRAMES = SIDES.flatmap(lambda shape: arrays(np.uint8, (*shape, 3)))
MASKS = arrays(np.bool_, SIDES)
DEPTHS = arrays(np.float32, SIDES, elements=st.floats(width=32))
POSES = arrays(np.float64, 6, elements=st.floats(-3, 3)).map(lambda twist: se3_exp(torch.from_numpy(twist)).numpy())
RATES = st.floats(-conversions.MAX_RATE, conversions.MAX_RATE)
FEW = settings(max_examples=40, deadline=None)
EYE = np.eye(4)


def sent(cls: Any, fields: conversions.Fields) -> Any:
    """The message as another process gets it. What has a wrong type does not get there."""
    return deserialize_message(serialize_message(conversions.message(cls, fields)), cls)


def names(cls: Any, fields: conversions.Fields) -> None:
    """Checks that fields are complete, as a writer of bags needs them, and have none that is not the message's."""
    assert set(fields) == set(cls.get_fields_and_field_types())
    for name, value in fields.items():
        if isinstance(value, dict):
            names(type(getattr(cls(), name)), value)


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (Image, conversions.image(np.zeros((2, 3, 3), np.uint8), 1.0)),
        (CompressedImage, conversions.compressed_image(np.zeros((8, 8, 3), np.uint8), 1.0)),
        (CameraInfo, conversions.camera_info(np.eye(3), (2, 3), 1.0)),
        (Odometry, conversions.odometry(EYE, EYE, np.zeros(6), 1.0)),
        (LaserScan, conversions.laser_scan(np.ones(4, np.float32), 1.0)),
        (PointCloud2, conversions.point_cloud(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8), 1.0)),
        (DiagnosticArray, conversions.diagnostics("world", {}, 1.0)),
        (Clock, conversions.clock(1.0)),
        (Twist, conversions.twist(1.0, 2.0)),
        (TransformStamped, conversions.static_transforms()["transforms"][0]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fields_are_those_of_the_message(cls: Any, fields: conversions.Fields):
    names(cls, fields)
    message = conversions.message(cls, fields)
    assert serialize_message(sent(cls, fields)) == serialize_message(message)  # floats are rounded to what is sent


def test_unknown_fields_are_named():
    with pytest.raises(ValueError, match="colour: expected a field of Image .*encoding"):
        conversions.message(Image, {"colour": "red"})


def test_large_pictures_are_filled_in_quickly():
    """Data that is no ``array.array`` is checked byte by byte, which takes tens of milliseconds."""
    frame, seconds = np.zeros((480, 640, 3), np.uint8), []
    for _ in range(10):
        began = time.perf_counter()
        conversions.message(Image, conversions.image(frame, 0.0))
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.005


# ---------------------------------------------------------------------------------------------------------------- time


@FEW
@given(st.integers(0, 10_000_000))
def test_stamps_of_steps_are_exact(step: int):
    """Simulation time is a multiple of 0.1 s, and 3 * 0.1 is a little more than 0.3."""
    now = sent(Clock, conversions.clock(step * 0.1)).clock
    assert now.sec * 10 + now.nanosec // 100_000_000 == step and now.nanosec % 100_000_000 == 0
    assert conversions.seconds_of(now) == pytest.approx(step * 0.1)


def test_stamps_carry_into_seconds():
    assert conversions.stamp(1.9999999999) == {"sec": 2, "nanosec": 0}


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf, 2.0**31])
def test_impossible_times_are_refused(seconds: float):
    with pytest.raises(ValueError, match="seconds: expected a time"):
        conversions.stamp(seconds)


# -------------------------------------------------------------------------------------------------------------- camera


@FEW
@given(FRAMES)
def test_frames_come_back(frame: np.ndarray):
    message = sent(Image, conversions.image(frame, 2.5))
    assert (message.height, message.width, message.encoding) == (*frame.shape[:2], "rgb8")
    assert message.step == 3 * frame.shape[1] and message.header.frame_id == "camera_optical_frame"
    np.testing.assert_array_equal(conversions.frame_of(message), frame)


@FEW
@given(FRAMES, st.integers(0, 7), st.booleans())
def test_frames_of_others_may_be_padded_or_bgr(frame: np.ndarray, padding: int, swapped: bool):
    height, width, _ = frame.shape
    rows = (frame[..., ::-1] if swapped else frame).reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    message = Image(height=height, width=width, encoding="bgr8" if swapped else "rgb8", step=3 * width + padding)
    message.data = array("B", data.tobytes())
    np.testing.assert_array_equal(conversions.frame_of(message), frame)


def test_views_of_larger_pictures_are_sent_as_they_look():
    frame = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)[::-2, 1:5, ::-1]
    np.testing.assert_array_equal(conversions.frame_of(sent(Image, conversions.image(frame, 0.0))), frame)


@FEW
@given(MASKS)
def test_masks_come_back(mask: np.ndarray):
    message = sent(Image, conversions.mono_image(mask, 0.0))
    assert message.encoding == "mono8" and set(message.data) <= {0, 255}
    np.testing.assert_array_equal(conversions.mask_of(message), mask)


@FEW
@given(DEPTHS)
def test_depth_comes_back_and_is_nan_where_unknown(depth: np.ndarray):
    message = sent(Image, conversions.depth_image(depth, 0.0))
    assert message.encoding == "32FC1" and message.step == 4 * depth.shape[1]
    known = np.isfinite(depth) & (depth > 0)
    np.testing.assert_array_equal(
        np.frombuffer(message.data, "<f4").reshape(depth.shape), np.where(known, depth, np.nan)
    )
    np.testing.assert_array_equal(conversions.depth_of(message), np.where(known, depth, 0))


def test_depth_of_big_endian_machines_is_read():
    depth = np.array([[1.5, 0.25]], np.float32)
    message = Image(height=1, width=2, encoding="32FC1", step=8, is_bigendian=1)
    message.data = array("B", depth.astype(">f4").tobytes())
    np.testing.assert_array_equal(conversions.depth_of(message), depth)


def test_jpegs_show_the_frame_in_its_colours():
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:, :24], frame[:, 24:] = (220, 40, 30), (20, 60, 200)
    message = sent(CompressedImage, conversions.compressed_image(frame, 0.0, quality=95))
    assert message.format == "rgb8; jpeg compressed bgr8"
    shown = np.asarray(Pictures.open(io.BytesIO(bytes(message.data))).convert("RGB"), np.int64)
    assert np.abs(shown - frame)[:, [4, 44]].max() < 12
    small = conversions.compressed_image(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), 0.0, quality=20
    )
    large = conversions.compressed_image(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), 0.0, quality=90
    )
    assert len(small["data"]) < len(large["data"])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: conversions.image(np.zeros((2, 2), np.uint8), 0.0), r"frame: expected uint8 .* got uint8 \[2, 2\]"),
        (lambda: conversions.image(np.zeros((2, 2, 3)), 0.0), "frame: expected uint8 .* got float64"),
        (lambda: conversions.image([[1]], 0.0), "frame: expected uint8 .* got list"),
        (lambda: conversions.compressed_image(np.zeros((2, 2, 3), np.uint8), 0.0, quality=0), "quality: .*got 0"),
        (lambda: conversions.mono_image(np.zeros((2, 2), np.uint8), 0.0), "mask: expected bool"),
        (lambda: conversions.depth_image(np.zeros((2, 2)), 0.0), "depth: expected float32"),
        (lambda: conversions.camera_info(np.eye(4), (2, 2), 0.0), r"K: expected \[3, 3\], got \[4, 4\]"),
        (lambda: conversions.frame_of(Image(encoding="yuv422")), "encoding: expected rgb8 or bgr8, got 'yuv422'"),
        (lambda: conversions.depth_of(Image(encoding="16UC1")), "encoding: expected 32FC1, got '16UC1'"),
        (lambda: conversions.frame_of(Image(encoding="rgb8", height=2, width=2, step=6)), "data: .*0 bytes in all"),
        (lambda: conversions.frame_of(Image(encoding="rgb8", height=1, width=2, step=5)), "data: .*rows of 5 bytes"),
    ],
)
def test_what_is_no_picture_is_named(make: Any, named: str):
    with pytest.raises(ValueError, match=named):
        make()


@FEW
@given(
    st.floats(30, 120),
    POSES,
    arrays(np.float64, 3, elements=st.floats(-0.9, 0.9)),
)
def test_intrinsics_show_a_point_in_the_same_pixel(fov: float, c2w: np.ndarray, place: np.ndarray):
    """OpenCV's projection, with ROS's intrinsics, counts from the centre of the first pixel; ours from its corner."""
    camera = Camera.from_fov(torch.from_numpy(c2w).float(), fov, (96, 128)).resize((480, 640))
    seen = np.array([place[0], place[1], 2 + place[2], 1.0])  # in front of the camera
    point = torch.from_numpy(camera.c2w.double().numpy() @ seen)[:3].float()
    u, v, z = (float(value) for value in project(point[None], camera))
    info = sent(CameraInfo, conversions.camera_info(camera.K.numpy(), camera.size, 0.0))
    assert (info.height, info.width) == (480, 640)
    K, P = np.array(info.k).reshape(3, 3), np.array(info.p).reshape(3, 4)
    shown, _ = cv2.projectPoints(seen[None, :3], np.zeros(3), np.zeros(3), K, np.array(info.d))
    assert shown.ravel() == pytest.approx([u - 0.5, v - 0.5], abs=0.02)
    assert P @ seen == pytest.approx([(u - 0.5) * z, (v - 0.5) * z, z], abs=0.1)
    assert (K[0, 2], K[1, 2]) == (319.5, 239.5)  # the middle of 640 pixels numbered from 0
    np.testing.assert_array_equal(np.array(info.r).reshape(3, 3), np.eye(3))
    assert info.distortion_model == "plumb_bob" and list(info.d) == [0.0] * 5
    back, size = conversions.intrinsics_of(info)
    np.testing.assert_array_equal(back, camera.K.double().numpy())
    assert size == camera.size


# ------------------------------------------------------------------------------------------------------------ movement


@FEW
@given(RATES, RATES)
def test_twists_come_back(forward: float, turn: float):
    fields = conversions.twist(forward, turn)
    assert conversions.twist_of(sent(Twist, fields)) == (forward, turn)
    stamped = {"header": conversions.header(1.0, "base_link"), "twist": fields}
    assert conversions.twist_of(sent(TwistStamped, stamped)) == (forward, turn)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e6, -100.1, 1e308])
@pytest.mark.parametrize("part", ["linear", "angular"])
@pytest.mark.parametrize("axis", "xyz")
def test_absurd_twists_are_refused(part: str, axis: str, value: float):
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
    x, y, z, w = frames.quaternion_of(pose[:3, :3]).tolist()
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
def test_poses_come_back(c2w: np.ndarray, height: float):
    back = conversions.pose_of(stamped_pose(c2w, height), height)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, c2w, atol=1e-5)


def test_a_pose_on_the_floor_is_a_camera_above_it():
    """As RViz sends it: 2 m ahead, 1 m to the left, turned to the left."""
    message = PoseWithCovarianceStamped()
    message.header.frame_id = "map"
    message.pose.pose.position.x, message.pose.pose.position.y = 2.0, 1.0
    message.pose.pose.orientation.z = message.pose.pose.orientation.w = math.sqrt(0.5)
    c2w = conversions.pose_of(message)
    np.testing.assert_allclose(c2w[:3, 3], [-1, 0, 2], atol=1e-6)
    np.testing.assert_allclose(c2w[:3, 2], [-1, 0, 0], atol=1e-6)  # looks to where the left was
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
def test_absurd_poses_are_refused(path: str, value: Any, named: str):
    message = stamped_pose(EYE)
    *parents, last = path.split(".")
    holder: Any = message
    for parent in parents:
        holder = getattr(holder, parent)
    setattr(holder, last, value)
    with pytest.raises(ValueError, match=named):
        conversions.pose_of(message)


def as_motion(translation: Any, rotation: Any) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = frames.rotation_of([rotation.x, rotation.y, rotation.z, rotation.w])
    out[:3, 3] = translation.x, translation.y, translation.z
    return out


@FEW
@given(POSES, POSES, arrays(np.float64, 6, elements=st.floats(-2, 2)))
def test_odometry_and_transforms_lead_to_the_camera(c2w: np.ndarray, origin: np.ndarray, velocity: np.ndarray):
    """map -> odom -> base_link -> camera_link -> camera_optical_frame is a camera-to-world pose, in the map's axes."""
    parts = [*conversions.transforms(c2w, origin, 1.5)["transforms"], *conversions.static_transforms()["transforms"]]
    tree = [sent(TransformStamped, part) for part in parts]
    chain = ["map", "odom", "base_link", "camera_link", "camera_optical_frame"]
    assert [part.header.frame_id for part in tree] == chain[:-1] and [part.child_frame_id for part in tree] == chain[1:]
    steps = [as_motion(part.transform.translation, part.transform.rotation) for part in tree]
    optical = np.linalg.multi_dot(steps)
    np.testing.assert_allclose(optical, frames.base_from_camera() @ c2w, atol=1e-8)

    odometry = sent(Odometry, conversions.odometry(c2w, origin, velocity, 1.5))
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
    pose, twist = odometry.pose.pose, odometry.twist.twist
    np.testing.assert_allclose(as_motion(pose.position, pose.orientation), steps[1], atol=1e-12)
    parts = [getattr(vector, axis) for vector in (twist.linear, twist.angular) for axis in "xyz"]
    np.testing.assert_array_equal(parts, velocity)


# ------------------------------------------------------------------------------------------------ memory, scan, health


def pillar(x: float, z: float, footprint: float = 0.05) -> LatentMap:
    """A column of remembered points; x to the right of the camera, z ahead."""
    heights = np.arange(0.2, 1.5, 0.05)
    xyz = np.stack([np.full_like(heights, x), frames.CAMERA_HEIGHT - heights, np.full_like(heights, z)], 1)
    n = len(xyz)
    points = Points(torch.from_numpy(xyz).float(), torch.zeros(n, 1), torch.arange(n), torch.full((n,), footprint))
    return LatentMap.empty(1).add(points, torch.zeros(0, dtype=torch.int64), n)


@pytest.mark.parametrize(("x", "z"), [(0.0, 2.0), (-2.0, 0.0), (2.0, 0.0), (0.0, -2.0), (-1.5, 2.0)])
@pytest.mark.parametrize("turn", [0.0, 0.5, -2.0])
def test_scan_and_cloud_show_a_thing_at_the_same_place(x: float, z: float, turn: float):
    map = pillar(x, z)
    c2w = se3_exp(torch.tensor([0.3, 0.0, -0.2, 0.0, -turn, 0.0]))
    ranges = Body().around(map, Camera.from_fov(c2w, 60.0, (96, 128))).scan(720)
    scan = sent(LaserScan, conversions.laser_scan(ranges, 1.0))
    assert scan.header.frame_id == "base_link" and (scan.range_min, scan.range_max) == (0.0, RANGE)
    assert scan.angle_max == pytest.approx(scan.angle_min + 719 * scan.angle_increment)
    measured = np.array(scan.ranges)
    angles = scan.angle_min + np.flatnonzero(np.isfinite(measured)) * scan.angle_increment
    measured = measured[np.isfinite(measured)]
    assert len(measured) > 0
    in_base = np.stack([measured * np.cos(angles), measured * np.sin(angles), 0 * angles, 1 + 0 * angles])
    seen = (frames.map_from_base(c2w.numpy()) @ in_base)[:2].T

    colours = np.full(map.xyz().shape, 9, np.uint8)
    cloud = sent(PointCloud2, conversions.point_cloud(map.xyz().numpy(), colours, 1.0))
    assert cloud.header.frame_id == "map"
    points = np.frombuffer(cloud.data, [(field.name, "<f4") for field in cloud.fields])
    np.testing.assert_allclose(points["x"], z, atol=1e-6)  # ahead of the start
    np.testing.assert_allclose(points["y"], -x, atol=1e-6)  # and to its left
    assert points["z"].min() == pytest.approx(0.2, abs=1e-6)  # above the floor
    np.testing.assert_allclose(seen, np.broadcast_to([z, -x], seen.shape), atol=0.06)


def test_scans_are_infinite_where_nothing_is():
    scan = sent(LaserScan, conversions.laser_scan(np.array([1.0, np.inf, 3.0, np.inf], np.float32), 1.0, scan_time=0.1))
    assert list(scan.ranges) == [1.0, math.inf, 3.0, math.inf]
    assert scan.angle_min == pytest.approx(-math.pi) and scan.angle_increment == pytest.approx(math.pi / 2)
    assert scan.scan_time == pytest.approx(0.1)


@FEW
@given(arrays(np.uint8, st.tuples(st.integers(0, 5), st.just(3))))
def test_clouds_carry_colours_as_rviz_reads_them(rgb: np.ndarray):
    cloud = sent(PointCloud2, conversions.point_cloud(np.zeros(rgb.shape, np.float32), rgb, 0.0))
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
def test_what_is_no_cloud_is_named(xyz: np.ndarray, rgb: np.ndarray, named: str):
    with pytest.raises(ValueError, match=named):
        conversions.point_cloud(xyz, rgb, 0.0)


def test_diagnostics_tell_name_level_and_values():
    fields = conversions.diagnostics(
        "world", {"steps/s": 12.5, "points": 3}, 4.0, level=1, text="slow", hardware_id="cpu"
    )
    (status,) = sent(DiagnosticArray, fields).status
    assert (status.name, status.level, status.message, status.hardware_id) == ("world", b"\x01", "slow", "cpu")
    assert {value.key: value.value for value in status.values} == {"steps/s": "12.5", "points": "3"}
    with pytest.raises(ValueError, match="level: expected 0 to 3, got 7"):
        conversions.diagnostics("world", {}, 0.0, level=7)


def test_messages_of_any_maker_are_read():
    """Those of a bag's reader, for example, which are no rclpy classes."""
    frame = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    message = SimpleNamespace(**(conversions.image(frame, 0.0) | {"data": frame.tobytes()}))
    np.testing.assert_array_equal(conversions.frame_of(message), frame)
