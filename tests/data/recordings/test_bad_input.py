"""Recordings that cannot be read are refused when they are opened: one line that names the source."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.clips import toy_clip
from support.recordings import TOPICS, toy_frames, write_bag, write_re10k, write_transforms, write_tum

from mirage_sim.agents.formats import save_npz
from mirage_sim.data.recordings import open_recording
from mirage_sim.data.recordings.files import MAX_TEXT

IMAGE, INFO, DEPTH = TOPICS[2:]
Fields = dict[str, Any]


def refused(source: Path, said: str, kind: type[Exception] = ValueError, **arguments: Any) -> str:
    """Open a recording, and see it refused in one line that begins with the source, or a file in it."""
    with pytest.raises(kind) as caught:
        open_recording(source, **arguments)
    line = str(caught.value)
    assert re.search(said, line), line
    assert line.startswith((str(source), "topics:")) and "\n" not in line and "expected" in line
    return line


def test_unknown_sources_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "expected a recording, got no file or folder of that name", FileNotFoundError)
    refused(tmp_path, "expected a recording of a layout among rosbag2, tum, .* got none of these")
    (tmp_path / "notes.txt").touch()
    refused(tmp_path / "notes.txt", "got none of these")
    for name in ("b", "a"):
        write_tum(tmp_path / name, toy_frames(1))
    refused(tmp_path, f"got several recordings, choose one: {tmp_path / 'a'}, {tmp_path / 'b'}")


BAGS: dict[str, tuple[tuple[str, ...], Callable[[str, Fields], Fields | None], str]] = {
    "no intrinsics": (
        ("/tf_static", "/tf", IMAGE),
        lambda _, fields: fields,
        rf"expected intrinsics in {INFO} \(sensor_msgs/msg/CameraInfo\) for {IMAGE}, got topics {IMAGE} .*/tf ",
    ),
    "no images": (
        ("/tf_static", "/tf", INFO, DEPTH),
        lambda _, fields: fields,
        rf"expected a topic of colour images .* got topics {INFO}",
    ),
    "no poses": (
        (IMAGE, INFO),
        lambda _, fields: fields,
        r"expected poses in /tf .*or nav_msgs/msg/Odometry, got topics",
    ),
    "nothing moves": (
        ("/tf_static", IMAGE, INFO),
        lambda _, fields: fields,
        "base_link -> camera_link -> camera_optical_frame, where nothing moves; frames in .*: base_link, camera_link",
    ),
    "no extrinsics": (
        ("/tf", IMAGE, INFO),
        lambda _, fields: fields,
        "expected transforms from 'camera_optical_frame' up to a frame .* frames in .*: base_link, map, odom",
    ),
    "size": (
        TOPICS,
        lambda topic, fields: fields | {"height": 24} if topic == INFO else fields,
        r"expected image 0 of the size of its intrinsics, \[24, 64\], got \[48, 64\]",
    ),
    "huge": (
        TOPICS,
        lambda topic, fields: fields | {"height": 100_000} if topic == INFO else fields,
        "expected images with sides of 16 to 8192 pixels",
    ),
    "huge image": (
        TOPICS,
        lambda topic, fields: fields | {"height": 2**31} if topic == IMAGE else fields,
        f"{IMAGE}: expected sides of 16 to 8192 pixels",
    ),
    "short image": (
        TOPICS,
        lambda topic, fields: fields | {"data": fields["data"][:99]} if topic == IMAGE else fields,
        f"{IMAGE}: expected 48 rows of 192 bytes, got rows of 192 bytes and 99 bytes in all",
    ),
    "uncalibrated": (
        TOPICS,
        lambda topic, fields: fields | {"k": [0.0] * 9} if topic == INFO else fields,
        rf"expected finite intrinsics with positive focal lengths.*\({INFO}\)",
    ),
    "times": (
        TOPICS,
        lambda topic, fields: (
            fields | {"header": fields["header"] | {"stamp": {"sec": 5, "nanosec": 0}}} if topic == IMAGE else fields
        ),
        rf"expected poses at the stamps of {IMAGE}, got images from 5.000 to 5.000 s and poses of map .* from 17000",
    ),
    "depth times": (
        TOPICS,
        lambda topic, fields: (
            fields | {"header": fields["header"] | {"stamp": {"sec": 5, "nanosec": 0}}} if topic == DEPTH else fields
        ),
        rf"expected stamps of {DEPTH} within 0.050 s of those of {IMAGE}, got 5.000 to 5.000 s and 1700000000",
    ),
}


@pytest.mark.parametrize("case", BAGS)
def test_bags_that_lack_something_are_refused(case: str, tmp_path: Path) -> None:
    topics, change, said = BAGS[case]
    refused(write_bag(tmp_path / "a {bag}", toy_frames(3), topics=topics, change=change), said)


def test_quaternions_that_are_none_are_refused(tmp_path: Path) -> None:
    def change(topic: str, fields: Fields) -> Fields:
        if topic == "/tf":
            fields["transforms"][1]["transform"]["rotation"] = {"x": 0.0, "y": 0.0, "z": 0.0, "w": 0.5}
        return fields

    refused(write_bag(tmp_path / "bag", toy_frames(3), change=change), "expected finite positions and unit quaternions")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.97])
def test_truncated_bags_are_refused(storage: str, kept: float, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", toy_frames(20), storage)
    (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    refused(bag, "expected a whole rosbag2 recording")


def test_damaged_metadata_is_refused(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", toy_frames(2))
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    refused(bag, "expected a whole rosbag2 recording")
    (bag / "metadata.yaml").write_text("!!python/object/apply:os.system ['false']")
    refused(bag, "expected a whole rosbag2 recording")


def test_topics_that_are_not_there_are_named(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", toy_frames(2))
    refused(
        bag,
        rf"expected a topic /rear \(sensor_msgs/msg/Image or sensor_msgs.*, got topics {INFO} ",
        topics={"image": "/rear"},
    )
    refused(bag, rf"expected a topic {INFO} \(sensor_msgs/msg/Image or", topics={"depth": INFO})
    refused(bag, r"topics: expected roles among .* got 'scan'", topics={"scan": "/scan"})
    tum = write_tum(tmp_path / "tum", toy_frames(1))
    refused(tum, "topics: expected none for the layout tum", topics={"image": "/rear"})


def test_unknown_encodings_are_named(tmp_path: Path) -> None:
    change = lambda topic, fields: fields | {"encoding": "bayer_rggb8"} if topic == IMAGE else fields  # noqa: E731
    bag = write_bag(tmp_path / "bag", toy_frames(2), change=change)
    refused(bag, f"{IMAGE}: expected an encoding among .* got 'bayer_rggb8'", topics={"image": IMAGE})


def test_bags_without_the_library_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = write_bag(tmp_path / "bag", toy_frames(1))
    for name in [name for name in sys.modules if name.split(".")[0] == "rosbags"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(ImportError, match=r"rosbags: expected it to be installed \(pip install 'mirage_sim\[data\]'\)"):
        open_recording(bag)


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_depth_in_a_wrong_unit_is_refused(factor: float, tmp_path: Path) -> None:
    frames = [replace(frame, depth=frame.depth * np.float32(factor)) for frame in toy_frames(3)]
    refused(
        write_bag(tmp_path / "bag", frames), r"expected depth in metres with a median in 0.05 to 200 m, got a median"
    )


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of the first frame of transforms.json; ``facts`` are those of the file."""
    content = json.loads((folder / "transforms.json").read_text())
    content |= changes.pop("facts", {})
    if changes:
        content["frames"][0] |= changes
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"file_path": "../secret.png"}, ValueError, r"expected files inside .*, got '../secret.png'"),
        ({"file_path": "/etc/hostname"}, ValueError, "expected files inside"),
        ({"depth_file_path": "images/../../secret.png"}, ValueError, "expected files inside"),
        ({"file_path": "images/none.png"}, FileNotFoundError, "expected a file 'images/none.png'"),
        ({"file_path": 5}, ValueError, "expected the path of a file, got 5"),
        ({"transform_matrix": [[1, 0], [0, 1]]}, ValueError, r"expected 'transform_matrix' \[4, 4\]"),
        ({"transform_matrix": "eye"}, ValueError, r"expected 'transform_matrix' \[4, 4\]"),
        ({"transform_matrix": (2 * np.eye(4)).tolist()}, ValueError, "expected rigid poses"),
        ({"transform_matrix": np.diag([1.0, 1, -1, 1]).tolist()}, ValueError, "expected rigid poses"),
        ({"transform_matrix": np.diag([1.0, 1, float("nan"), 1]).tolist()}, ValueError, "expected rigid poses"),
        ({"timestamp": "now"}, ValueError, "expected a number 'timestamp', got 'now'"),
        ({"facts": {"fl_x": None}}, ValueError, "expected a number 'fl_x', got 'None'"),
        ({"facts": {"fl_x": 10**400}}, ValueError, "expected a number 'fl_x', got '1000"),
        ({"facts": {"h": float("nan")}}, ValueError, "expected a number 'h', got 'nan'"),
        ({"transform_matrix": [[10**400] * 4] * 4}, ValueError, r"expected 'transform_matrix' \[4, 4\]"),
        ({"facts": {"fl_x": -3}}, ValueError, "expected finite intrinsics with positive focal lengths"),
        ({"facts": {"w": 9000}}, ValueError, "expected images with sides of 16 to 8192 pixels"),
        ({"facts": {"w": 65}}, ValueError, r"size of its intrinsics, \[48, 65\], got \[48, 64\]"),
        ({"facts": {"camera_model": "EQUIRECTANGULAR"}}, ValueError, "expected a camera_model among"),
        ({"facts": {"k1": -1e9}}, ValueError, "expected distortion that can be undone, got coefficients"),
        ({"facts": {"k1": -0.8}}, ValueError, "expected distortion that can be undone, got coefficients"),
        ({"facts": {"frames": []}}, ValueError, "expected a list 'frames' of objects"),
        ({"facts": {"frames": [3]}}, ValueError, "expected a list 'frames' of objects"),
    ],
)
def test_wrong_transforms_are_refused(changes: Fields, kind: type[Exception], said: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "secret.png")
    refused(edit(write_transforms(tmp_path / "a folder", toy_frames(2)), **changes), said, kind)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "secret.png")
    folder = write_transforms(tmp_path / "a folder", toy_frames(2))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    refused(edit(folder, file_path="link.png"), "expected files inside")


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000])
def test_json_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text(content)
    refused(tmp_path, "expected (a )?JSON")


def test_huge_json_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "transforms.json").open("wb") as file:
        file.truncate(MAX_TEXT + 1)  # takes no room on the disk
    refused(tmp_path, "expected at most 64 MB, got 64 MB")


def test_damaged_images_are_refused(tmp_path: Path) -> None:
    folder = write_transforms(tmp_path, toy_frames(2))
    path = next((folder / "images").iterdir())
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"GIF89a", b""):
        path.write_bytes(broken)
        refused(folder, "expected a whole image")
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(path)
    refused(folder, "expected an image of 8 bits per channel")
    path.write_bytes(whole)
    depth = next((folder / "depth").iterdir())
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(depth)
    refused(folder, "expected depth in 16 bits per pixel")
    Image.fromarray(np.ones((48, 48), np.uint16)).save(depth)
    refused(folder, "expected depth that shows what the image")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("groundtruth.txt", None, "groundtruth.txt: expected a file, got none of that name"),
        ("groundtruth.txt", "1 2 3\n", "groundtruth.txt: line 1: expected 8 numbers, got 3 words"),
        ("groundtruth.txt", "# nothing\n", "expected lines of 8 numbers, got none"),
        ("groundtruth.txt", "1 0 0 0 0 0 0 one\n", "line 1: expected a number, got 'one'"),
        ("groundtruth.txt", "1 0 0 0 0 0 0 nan\n", "line 1: expected a number, got 'nan'"),
        ("groundtruth.txt", "1 0 0 0 0 0 0 0.5\n", "expected finite positions and unit quaternions"),
        (
            "groundtruth.txt",
            "1 0 0 0 0 0 0 1\n",
            "expected stamps of rgb.txt within 0.02 s of those of groundtruth.txt",
        ),
        ("depth.txt", "1 depth/0.png\n", "expected stamps of rgb.txt within 0.02 s of those of depth.txt"),
        ("depth.txt", "1 ../0.png\n", "expected files inside"),
        ("rgb.txt", "\n", "expected lines of a stamp and a file, got none"),
        ("rgb.txt", "1 rgb/none.png\n", "expected a file 'rgb/none.png'"),
        ("camera.json", '{"fx": 1}', "expected a number 'fy', got 'None'"),
        ("camera.json", '{"fx": 9, "fy": 9, "cx": 9, "cy": 9, "w": 640}', "expected intrinsics of images of"),
    ],
)
def test_wrong_tum_folders_are_refused(name: str, content: str | None, said: str, tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "a walk", toy_frames(2))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    refused(folder, said, (ValueError, FileNotFoundError))  # type: ignore[arg-type]


def test_poses_that_jump_are_refused(tmp_path: Path) -> None:
    folder = write_tum(tmp_path, toy_frames(3))
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    words = lines[-1].split()
    lines[-1] = " ".join([words[0], "50", *words[2:]])
    (folder / "groundtruth.txt").write_text("\n".join(lines))
    refused(folder, r"expected poses of a camera that moves \(at most 5 m .* or at most 10 m/s\), got .*images 1 to 2")


def test_wrong_realestate10k_is_refused(tmp_path: Path) -> None:
    folder = write_re10k(tmp_path / "a", toy_frames(3))
    next((folder / "walk").iterdir()).unlink()
    refused(folder, r"walk.txt: expected a frame for each of 3 lines .* \(1 missing\)", FileNotFoundError)
    folder = write_re10k(tmp_path / "b", toy_frames(3))
    (folder / "walk.txt").write_text("address\n1 2 3\n")
    refused(folder, "line 2: expected 19 finite numbers")


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    refused(tmp_path / "a.safetensors", "expected a readable clip")
    (tmp_path / "a.npz").write_bytes(b"nothing")
    refused(tmp_path / "a.npz", "expected an archive of NumPy")
    save_npz(tmp_path / "b.npz", {"observations": np.zeros((3, 48, 64, 3), np.uint8), "c2w": np.zeros((3, 4, 4))})
    refused(tmp_path / "b.npz", "expected an archive of mirage rollout .* missing .*'K', 'observations/depth'")
    clip = toy_clip(0, 3)
    arrays = {"observations/rgb": clip.frames, "observations/depth": clip.depth, "c2w": clip.c2w[:2], "K": clip.K}
    save_npz(tmp_path / "c.npz", {name: array.numpy() for name, array in arrays.items()} | {"times": np.arange(3.0)})
    refused(tmp_path / "c.npz", r"expected c2w of shape \[3, 4, 4\], got \[2, 4, 4\]")
    np.savez(
        tmp_path / "d.npz",
        **{"observations/rgb": np.array([{}]), "observations/depth": 0, "c2w": 0, "K": 0, "times": 0},
    )
    refused(tmp_path / "d.npz", "expected an array of numbers")
