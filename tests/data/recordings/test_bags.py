"""Topics, encodings and transforms of bags."""

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from support.recordings import CAMERA_HEIGHT, KINDS, TOPICS, codes, toy_frames, write_bag

from mirage_sim.data.recordings import RecordedFrame, open_recording
from mirage_sim.geometry import Camera
from mirage_sim.ros import conversions
from mirage_sim.ros.frames import base_from_camera

Fields = dict[str, Any]
IMAGE, INFO, DEPTH = "/camera/image_raw", "/camera/camera_info", "/camera/depth/image_raw"


@pytest.fixture(scope="module")
def walk() -> list[RecordedFrame]:
    return toy_frames(3)


def raw(fields: Fields, pixels: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Fields:
    """Fields of an image with other pixels, its rows padded by some bytes."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    return fields | {"encoding": encoding, "step": rows.shape[1], "data": rows.ravel(), "is_bigendian": int(big)}


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_colours_of_any_encoding_are_rgb(encoding: str, tmp_path: Path) -> None:
    (frame,) = toy_frames(1)
    opaque = np.full((48, 64, 1), 255, np.uint8)
    pixels = {
        "rgb8": frame.image,
        "bgr8": frame.image[..., ::-1],
        "rgba8": np.concatenate([frame.image, opaque], axis=-1),
        "bgra8": np.concatenate([frame.image[..., ::-1], opaque], axis=-1),
        "mono8": frame.image[..., 0],
    }[encoding]
    change = lambda topic, fields: raw(fields, pixels, encoding, padding=5) if topic == IMAGE else fields  # noqa: E731
    (read,) = open_recording(write_bag(tmp_path / "bag", [frame], change=change)).frames()
    wanted = frame.image[..., :1].repeat(3, axis=-1) if encoding == "mono8" else frame.image
    np.testing.assert_array_equal(read.image, wanted)


@pytest.mark.parametrize("big", [False, True])
def test_depth_in_millimetres_becomes_metres(big: bool, tmp_path: Path) -> None:
    (frame,) = toy_frames(1)
    millimetres = np.where(np.arange(64) < 5, 0, codes(frame.depth, 1000)).astype(">u2" if big else "<u2")  # type: ignore[arg-type]
    change = lambda topic, fields: raw(fields, millimetres, "16UC1", big=big) if topic == DEPTH else fields  # noqa: E731
    (read,) = open_recording(write_bag(tmp_path / "bag", [frame], change=change)).frames()
    assert read.depth is not None and (read.depth[:, :5] == 0).all()
    np.testing.assert_allclose(read.depth[:, 5:], frame.depth[:, 5:], atol=5.1e-4)  # type: ignore[index]


def test_unknown_depth_is_zero(tmp_path: Path) -> None:
    (frame,) = toy_frames(1)
    holes = frame.depth.copy()  # type: ignore[union-attr]
    holes[:, 0], holes[:, 1], holes[:, 2] = np.nan, np.inf, -1.0
    change = lambda topic, fields: raw(fields, holes, "32FC1") if topic == DEPTH else fields  # noqa: E731
    (read,) = open_recording(write_bag(tmp_path / "bag", [frame], change=change)).frames()
    assert read.depth is not None and (read.depth[:, :3] == 0).all()
    np.testing.assert_array_equal(read.depth[:, 3:], frame.depth[:, 3:])  # type: ignore[index]


def test_compressed_topics_are_read(walk: list[RecordedFrame], tmp_path: Path) -> None:
    topics = ("/tf_static", "/tf", f"{IMAGE}/compressed", INFO, f"{DEPTH}/compressedDepth")
    recording = open_recording(write_bag(tmp_path / "bag", walk, topics=topics))
    assert recording.info.sources["image"] == f"{IMAGE}/compressed"
    for read, true in zip(recording.frames(), walk, strict=True):
        assert np.abs(read.image.astype(int) - true.image).mean() < 3  # JPEG
        np.testing.assert_allclose(read.depth, true.depth, atol=5.1e-4)  # type: ignore[arg-type]


def test_quantised_inverse_depth_is_undone(tmp_path: Path) -> None:
    """32FC1 of the compressedDepth transport: code = a / depth + b."""
    (frame,) = toy_frames(1)
    a, b = 10_000.0, -50.0
    png = cv2.imencode(".png", np.round(a / frame.depth + b).astype(np.uint16))[1]  # type: ignore[operator]
    data = np.concatenate([np.frombuffer(struct.pack("<iff", 0, a, b), np.uint8), png])

    def change(topic: str, fields: Fields) -> Fields:
        compressed = {"format": "32FC1; compressedDepth png", "data": data}
        return fields | compressed if topic.endswith("compressedDepth") else fields

    topics = (*TOPICS[:-1], f"{DEPTH}/compressedDepth")
    (read,) = open_recording(write_bag(tmp_path / "bag", [frame], topics=topics, change=change)).frames()
    np.testing.assert_allclose(read.depth, frame.depth, rtol=1e-3)  # type: ignore[arg-type]


def test_odometry_serves_without_tf(walk: list[RecordedFrame], tmp_path: Path) -> None:
    topics = ("/tf_static", "/odom", IMAGE, INFO)
    recording = open_recording(write_bag(tmp_path / "bag", walk, topics=topics))
    assert recording.info.sources["poses"] == "odom -> base_link -> camera_link -> camera_optical_frame"
    for read, true in zip(recording.frames(), walk, strict=True):
        np.testing.assert_allclose(
            read.camera.c2w, base_from_camera(CAMERA_HEIGHT) @ true.camera.c2w.numpy(), atol=2e-6
        )
        assert read.depth is None


def test_named_odometry_comes_before_tf(walk: list[RecordedFrame], tmp_path: Path) -> None:
    """Which says that the robot is 1 m further to the left."""

    def change(topic: str, fields: Fields) -> Fields:
        if topic == "/odom":
            fields["pose"]["pose"]["position"]["y"] += 1.0
        return fields

    bag = write_bag(tmp_path / "bag", walk, topics=(*TOPICS, "/odom"), change=change)
    (by_tf, by_odometry) = open_recording(bag), open_recording(bag, topics={"odometry": "/odom"})
    np.testing.assert_allclose((by_odometry.c2w - by_tf.c2w)[:, :3, 3], [[0, 1, 0]] * 3, atol=1e-9)


def straight(count: int, every: float, speed: float = 1.0, turn: float = 0.5) -> list[RecordedFrame]:
    """A camera that moves along its world's x and turns about y, both at constant rates."""
    (frame,) = toy_frames(1)
    frames = []
    for i in range(count):
        time, c2w = every * i, torch.eye(4)
        angle = torch.tensor(turn * time)
        c2w[0, 0] = c2w[2, 2] = angle.cos()
        c2w[0, 2], c2w[2, 0] = angle.sin(), -angle.sin()
        c2w[0, 3] = speed * time
        camera = Camera(c2w, frame.camera.K, frame.camera.size)
        frames.append(RecordedFrame(frame.image, frame.depth, camera, 1000.0 + time))
    return frames


def only(topics: tuple[str, ...], every: int, shift: int = 0) -> Any:
    """Leaves out all messages of some topics but each ``every``-th."""
    counts = dict.fromkeys(topics, -1)

    def change(topic: str, fields: Fields) -> Fields | None:
        if topic not in counts:
            return fields
        counts[topic] += 1
        return fields if counts[topic] % every == shift else None

    return change


def test_poses_are_interpolated_at_the_stamps_of_images(tmp_path: Path) -> None:
    """Poses at 10 Hz, images between them: 50 ms after each."""
    frames = straight(11, 0.05)
    tf, images = only(("/tf",), 2), only((IMAGE, DEPTH), 2, 1)

    def change(topic: str, fields: Fields) -> Fields | None:
        return tf(topic, fields) if topic == "/tf" else images(topic, fields)

    recording = open_recording(write_bag(tmp_path / "bag", frames, change=change))
    assert len(recording) == 5
    # base_link, about which the tree turns, is exactly below the camera: its path is straight, too
    for read, true in zip(recording.frames(), frames[1::2], strict=True):
        np.testing.assert_allclose(
            read.camera.c2w, base_from_camera(CAMERA_HEIGHT) @ true.camera.c2w.numpy(), atol=1e-5
        )


def test_images_before_and_after_the_poses_are_left_out(tmp_path: Path) -> None:
    frames = straight(10, 0.1)
    seen: list[int] = []

    def change(topic: str, fields: Fields) -> Fields | None:
        if topic != "/tf":
            return fields
        seen.append(1)
        return fields if 3 <= len(seen) <= 8 else None

    recording = open_recording(write_bag(tmp_path / "bag", frames, change=change))
    assert [frame.stamp for frame in recording.frames()] == pytest.approx([frame.stamp for frame in frames[2:8]])
    assert "4 of 10 images" in recording.info.notes[0]


def test_depth_belongs_to_the_nearest_image(tmp_path: Path) -> None:
    """Depth at half the rate, and 20 ms late: every second image has none."""
    frames = straight(8, 0.1)
    late = only((DEPTH,), 2)

    def change(topic: str, fields: Fields) -> Fields | None:
        if topic != DEPTH or (kept := late(topic, fields)) is None:
            return fields if topic != DEPTH else None
        stamp = kept["header"]["stamp"]
        moved = {"sec": stamp["sec"], "nanosec": stamp["nanosec"] + 20_000_000}
        return kept | {"header": kept["header"] | {"stamp": moved}}

    recording = open_recording(write_bag(tmp_path / "bag", frames, change=change))
    assert [frame.depth is not None for frame in recording.frames()] == [True, False] * 4
    assert recording.info.depth == 4


def test_extrinsics_of_the_camera_count(tmp_path: Path) -> None:
    """A camera that is mounted 0.2 m ahead of the axis, and looks to the left."""
    frames = straight(3, 0.1, speed=1.0, turn=0.0)

    def change(topic: str, fields: Fields) -> Fields:
        if topic == "/tf_static":
            mount = fields["transforms"][0]["transform"]
            mount["translation"] = {"x": 0.2, "y": 0.0, "z": 0.5}
            mount["rotation"] = {"x": 0.0, "y": 0.0, "z": np.sqrt(0.5), "w": np.sqrt(0.5)}
        return fields

    frame = list(open_recording(write_bag(tmp_path / "bag", frames, change=change)).frames())[2]
    right, down, ahead, position = frame.camera.c2w[:3].T.numpy()
    np.testing.assert_allclose(ahead, [0, 1, 0], atol=1e-6)  # left of a robot that looks along x
    np.testing.assert_allclose(down, [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(right, [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(position, [0.2, -0.2, 0.5], atol=1e-6)  # the camera's x is the robot's right


def test_topics_can_be_named(walk: list[RecordedFrame], tmp_path: Path) -> None:
    kinds = KINDS | {"/rear/image_raw": KINDS[IMAGE], "/rear/camera_info": KINDS[INFO]}
    topics = (*TOPICS, f"{IMAGE}/compressed", "/rear/image_raw", "/rear/camera_info")

    def change(topic: str, fields: Fields) -> Fields:
        return raw(fields, np.full((48, 64, 3), 9, np.uint8), "rgb8") if topic == "/rear/image_raw" else fields

    bag = write_bag(tmp_path / "bag", walk, topics=topics, kinds=kinds, change=change)
    found = open_recording(bag)
    assert found.info.sources["image"] == IMAGE
    assert found.info.notes == ("other cameras were left out: /rear/image_raw",)
    rear = open_recording(bag, topics={"image": "/rear/image_raw"})
    assert rear.info.sources["intrinsics"] == "/rear/camera_info"
    assert all((frame.image == 9).all() for frame in rear.frames())


def test_depth_of_another_camera_is_left_out(walk: list[RecordedFrame], tmp_path: Path) -> None:
    info = "/camera/depth/camera_info"

    def change(topic: str, fields: Fields) -> Fields:
        return fields | {"header": fields["header"] | {"frame_id": "infra"}} if topic == info else fields

    bag = write_bag(tmp_path / "bag", walk, topics=(*TOPICS, info), change=change)
    recording = open_recording(bag)
    assert recording.info.depth == 0 and "of another camera than the images" in recording.info.notes[0]
    assert open_recording(bag, topics={"depth": DEPTH}).info.depth == 3, "who names it knows"


def test_a_storage_file_alone_is_read(walk: list[RecordedFrame], tmp_path: Path) -> None:
    for storage, suffix in (("mcap", ".mcap"), ("sqlite3", ".db3")):
        bag = write_bag(tmp_path / storage, walk, storage)
        (file,) = bag.glob(f"*{suffix}")
        assert len(open_recording(file)) == 3
        (bag / "metadata.yaml").unlink()
        assert len(open_recording(bag)) == 3


@pytest.mark.parametrize(
    ("model", "distortion"),
    [("plumb_bob", [-0.1, 0.02, 0.001, 0.0, 0.0]), ("rational_polynomial", [0.1] * 8), ("equidistant", [0.01] * 4)],
)
def test_distortion_models_of_ros_are_undone(model: str, distortion: list[float], tmp_path: Path) -> None:
    """tests/data/recordings/test_lens.py has the values."""
    frames = toy_frames(1)

    def change(topic: str, fields: Fields) -> Fields:
        return fields | {"distortion_model": model, "d": distortion} if topic == INFO else fields

    (read,) = open_recording(write_bag(tmp_path / "bag", frames, change=change)).frames()
    assert not np.array_equal(read.image, frames[0].image) and not torch.equal(read.camera.K, frames[0].camera.K)


def test_rectified_images_have_the_intrinsics_of_p(tmp_path: Path) -> None:
    """Their camera_info still states the distortion that they had."""
    frames = toy_frames(1)
    topic = "/camera/image_rect_color"

    def change(name: str, fields: Fields) -> Fields:
        P = np.array([[40.0, 0, 30, 0], [0, 41.0, 20, 0], [0, 0, 1, 0]])
        return fields | {"d": [-0.1] * 5, "p": P.ravel().tolist()} if name == INFO else fields

    bag = write_bag(
        tmp_path / "bag",
        frames,
        topics=("/tf_static", "/tf", topic, INFO),
        kinds=KINDS | {topic: KINDS[IMAGE]},
        change=change,
    )
    (read,) = open_recording(bag).frames()
    np.testing.assert_array_equal(read.image, frames[0].image)
    assert read.camera.K.tolist() == [[40, 0, 30.5], [0, 41, 20.5], [0, 0, 1]]


def test_our_own_node_messages_are_understood() -> None:
    """The reader's conversions and those of the node agree; the principal point is half a pixel apart in ROS."""
    (frame,) = toy_frames(1)
    info = conversions.camera_info(frame.camera.K.numpy(), frame.camera.size, 0.0)
    assert info["k"][2] == frame.camera.K[0, 2] - 0.5
