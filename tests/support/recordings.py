"""The toy room as recordings in the layouts of others: what was written is known to the bit."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mirage_sim.data.recordings import RecordedFrame
from support.clips import toy_clip

CAMERA_HEIGHT = 1.5
START = 1_700_000_000.0  # seconds, as clocks of robots have them
OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
Change = Callable[[str, dict[str, Any]], dict[str, Any] | None]


def toy_frames(count: int = 6, size: tuple[int, int] = (48, 64), seed: int = 0) -> list[RecordedFrame]:
    """A walk through the toy room at 10 Hz."""
    clip = toy_clip(seed, count, size)
    return [
        RecordedFrame(image.numpy(), depth.float().numpy(), camera, START + 0.1 * i)
        for i, (image, depth, camera) in enumerate(zip(clip.frames, clip.depth, clip.cameras, strict=True))
    ]


def _png(path: Path, image: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path.name


def codes(depth: np.ndarray, units_per_metre: float) -> np.ndarray:
    """Depth as 16-bit codes; what does not fit is unknown, 0."""
    scaled = np.round(depth * units_per_metre)
    return np.where(scaled < 2**16, scaled, 0).astype(np.uint16)


def write_tum(folder: Path, frames: Sequence[RecordedFrame], depth_delay: float = 0.004) -> Path:
    """A TUM folder whose depth stamps are a little later than those of the images; true intrinsics in camera.json."""
    from mirage_sim.geometry.quaternions import quaternion_of

    lists: dict[str, list[str]] = {"rgb.txt": [], "depth.txt": [], "groundtruth.txt": []}
    for i, frame in enumerate(frames):
        lists["rgb.txt"].append(f"{frame.stamp:.6f} rgb/{_png(folder / 'rgb' / f'{i}.png', frame.image)}")
        if frame.depth is not None:
            name = _png(folder / "depth" / f"{i}.png", codes(frame.depth, 5000))
            lists["depth.txt"].append(f"{frame.stamp + depth_delay:.6f} depth/{name}")
        c2w = frame.camera.c2w.double().numpy()
        pose = [*c2w[:3, 3], *quaternion_of(c2w[:3, :3])]
        lists["groundtruth.txt"].append(" ".join([f"{frame.stamp:.6f}", *(f"{number:.9f}" for number in pose)]))
    for name, lines in lists.items():
        if lines:
            (folder / name).write_text("\n".join(["# written by a test", *lines]) + "\n")
    K, (height, width) = frames[0].camera.K.double().numpy(), frames[0].camera.size
    camera = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2] - 0.5, "cy": K[1, 2] - 0.5, "w": width, "h": height}
    (folder / "camera.json").write_text(json.dumps(camera))
    return folder


def write_transforms(folder: Path, frames: Sequence[RecordedFrame], per_frame: bool = False, **facts: Any) -> Path:
    """A folder with transforms.json; ``facts`` are added to it."""
    K, (height, width) = frames[0].camera.K.double().numpy(), frames[0].camera.size
    lens = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": width, "h": height}
    entries: list[dict[str, Any]] = []
    for i, frame in enumerate(frames):
        name = _png(folder / "images" / f"Küche {i}.png", frame.image)
        entry = {"file_path": f"images/{name}", "timestamp": frame.stamp, **(lens if per_frame else {})}
        entry["transform_matrix"] = (frame.camera.c2w.double().numpy() @ OPENCV_TO_OPENGL).tolist()
        if frame.depth is not None:
            name = _png(folder / "depth" / f"Küche {i}.png", codes(frame.depth, 1000))
            entry["depth_file_path"] = f"depth/{name}"
        entries.append(entry)
    content = {**({} if per_frame else lens), **facts, "frames": entries[::-1]}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def write_re10k(folder: Path, frames: Sequence[RecordedFrame], name: str = "walk") -> Path:
    """NAME.txt beside the frames of folder NAME."""
    lines = ["https://example.org/film"]
    for frame in frames:
        K, (height, width) = frame.camera.K.double().numpy(), frame.camera.size
        micros = round(frame.stamp * 1e6)
        _png(folder / name / f"{micros}.png", frame.image)
        share = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height]
        w2c = np.linalg.inv(frame.camera.c2w.double().numpy())[:3].ravel()
        lines.append(" ".join([str(micros), *(f"{number:.9f}" for number in (*share, 0, 0, *w2c))]))
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


KINDS = {
    "/tf_static": "tf2_msgs/msg/TFMessage",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/odom": "nav_msgs/msg/Odometry",
    "/camera/image_raw": "sensor_msgs/msg/Image",
    "/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/depth/image_raw": "sensor_msgs/msg/Image",
    "/camera/depth/image_raw/compressedDepth": "sensor_msgs/msg/CompressedImage",
    "/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo",
}
TOPICS = ("/tf_static", "/tf", "/camera/image_raw", "/camera/camera_info", "/camera/depth/image_raw")


def write_bag(
    folder: Path,
    frames: Sequence[RecordedFrame],
    storage: str = "mcap",
    topics: Sequence[str] = TOPICS,
    change: Change = lambda _, fields: fields,
    kinds: Mapping[str, str] = KINDS,
) -> Path:
    """A rosbag2 folder; ``change`` may replace the fields of a message of a topic, or leave it out (None)."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    from mirage_sim.ros.bag import _build

    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()]) as bag:
        connections = {topic: bag.add_connection(topic, kinds[topic], typestore=store) for topic in topics}
        for i, frame in enumerate(frames):
            for topic in topics:
                if topic == "/tf_static" and i:
                    continue
                if (fields := change(topic, _fields(topic, frame))) is not None:
                    data = store.serialize_cdr(_build(store, kinds[topic], fields), kinds[topic])
                    bag.write(connections[topic], round(frame.stamp * 1e9), data)
    return folder


def _fields(topic: str, frame: RecordedFrame) -> dict[str, Any]:
    from mirage_sim.ros import conversions

    c2w, stamp = frame.camera.c2w.double().numpy(), frame.stamp
    if topic == "/tf_static":
        return conversions.static_transforms(stamp, CAMERA_HEIGHT)
    if topic == "/tf":
        return conversions.transforms(c2w, np.eye(4), stamp, CAMERA_HEIGHT)
    if topic == "/odom":
        return conversions.odometry(c2w, np.eye(4), np.zeros(6), stamp, CAMERA_HEIGHT)
    if topic.endswith("camera_info"):
        return conversions.camera_info(frame.camera.K.numpy(), frame.camera.size, stamp)
    if topic.endswith("compressedDepth"):
        png = cv2.imencode(".png", codes(frame.depth, 1000))[1]
        data = np.concatenate([np.zeros(12, np.uint8), png])
        header = conversions.header(stamp, "camera_optical_frame")
        return {"header": header, "format": "16UC1; compressedDepth png", "data": data}
    if topic.endswith("compressed"):
        return conversions.compressed_image(frame.image, stamp, quality=100)
    if "depth" in topic:
        return conversions.depth_image(frame.depth, stamp)
    return conversions.image(frame.image, stamp)
