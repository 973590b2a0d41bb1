"""Bags, read by a library that shares no code with the writer."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from support.rollouts import rollout_of
from support.toy_world import SIZE

from mirage_sim import cli
from mirage_sim.data.recordings import open_recording
from mirage_sim.geometry import VelocityLimits
from mirage_sim.ros import conversions

STEPS = 6
PER_FRAME = (
    "/clock",
    "/tf",
    "/odom",
    "/camera/image_raw",
    "/camera/camera_info",
    "/camera/depth/image_raw",
    "/camera/depth/camera_info",
    "/camera/remembered",
    "/scan",
)


def read(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """The messages of a file by topic, each with its log time in ns."""
    topics: dict[str, list[tuple[int, Any]]] = {}
    with path.open("rb") as file:
        for _, channel, entry, message in make_reader(
            file, decoder_factories=[DecoderFactory()]
        ).iter_decoded_messages():
            topics.setdefault(channel.topic, []).append((entry.log_time, message))
    return topics


@pytest.fixture(scope="module")
def walk(toy_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A bag of random steps, and the same episode as an archive."""
    folder = tmp_path_factory.mktemp("bags")
    settings = toy_config | {"policy": "random", "steps": STEPS, "seed": 5}
    settings["env"] = settings["env"] | {"scan": 90}
    rollout_of(settings | {"format": "mcap", "output": str(folder)})
    rollout_of(settings | {"format": "npz", "output": str(folder / "npz")})
    with np.load(folder / "npz" / "episode_0000.npz", allow_pickle=False) as archive:
        return folder / "episode_0000", dict(archive)


@pytest.fixture(scope="module")
def bag(walk: tuple[Path, dict[str, np.ndarray]]) -> dict[str, list[Any]]:
    return read(walk[0] / "episode_0000.mcap")


def test_mcap_folder_is_a_rosbag2(walk: tuple[Path, Any]) -> None:
    folder = walk[0]
    assert sorted(path.name for path in folder.iterdir()) == ["episode_0000.mcap", "metadata.yaml"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [".rollout", "episode_0000", "metrics.json", "npz"]
    facts = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert facts["storage_identifier"] == "mcap" and facts["relative_file_paths"] == ["episode_0000.mcap"]
    assert facts["duration"]["nanoseconds"] == STEPS * 100_000_000
    assert facts["message_count"] == len(PER_FRAME) * (STEPS + 1) + STEPS + 1
    with (folder / "episode_0000.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == facts["message_count"]


def test_bag_has_every_frame_with_its_time(bag: dict[str, list[Any]]) -> None:
    assert sorted(bag) == sorted([*PER_FRAME, "/cmd_vel", "/tf_static"])
    expected = [i * 100_000_000 for i in range(STEPS + 1)]
    for topic in PER_FRAME:
        assert [time for time, _ in bag[topic]] == expected, topic
    for topic in PER_FRAME[2:]:
        stamps = [message.header.stamp for _, message in bag[topic]]
        assert [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps] == expected, topic
    assert [message.clock.sec * 10**9 + message.clock.nanosec for _, message in bag["/clock"]] == expected
    assert [time for time, _ in bag["/cmd_vel"]] == expected[:-1]
    assert [time for time, _ in bag["/tf_static"]] == [0]


def test_bag_images_equal_the_archive(bag: dict[str, list[Any]], walk: tuple[Path, dict[str, np.ndarray]]) -> None:
    archive = walk[1]
    frames = np.stack([conversions.frame_of(message) for _, message in bag["/camera/image_raw"]])
    depth = np.stack([conversions.depth_of(message) for _, message in bag["/camera/depth/image_raw"]])
    remembered = np.stack([conversions.mask_of(message) for _, message in bag["/camera/remembered"]])
    np.testing.assert_array_equal(frames, archive["observations/rgb"])
    np.testing.assert_array_equal(depth, archive["observations/depth"])
    np.testing.assert_array_equal(remembered, archive["observations/remembered"].astype(bool))
    assert {message.header.frame_id for _, message in bag["/camera/image_raw"]} == {"camera_optical_frame"}
    for name in ("/camera/camera_info", "/camera/depth/camera_info"):
        info = bag[name][0][1]
        assert (info.height, info.width) == SIZE
        assert info.k[2] == pytest.approx(SIZE[1] / 2 - 0.5) and info.k[5] == pytest.approx(SIZE[0] / 2 - 0.5)


def test_odometry_equals_the_camera_poses(bag: dict[str, list[Any]], walk: tuple[Path, dict[str, np.ndarray]]) -> None:
    """Computed from odometry and static transforms alone, as TF does."""

    def motion(translation: Any, rotation: Any) -> np.ndarray:
        x, y, z, w = rotation.x, rotation.y, rotation.z, rotation.w
        hat = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        out = np.eye(4)
        out[:3, :3] += 2 * (w * hat + hat @ hat)
        out[:3, 3] = translation.x, translation.y, translation.z
        return out

    static = {part.child_frame_id: part for part in bag["/tf_static"][0][1].transforms}
    optical, link = static["camera_optical_frame"], static["camera_link"]
    assert (link.header.frame_id, optical.header.frame_id) == ("base_link", "camera_link")
    base_from_camera = motion(link.transform.translation, link.transform.rotation) @ motion(
        optical.transform.translation, optical.transform.rotation
    )
    start = walk[1]["c2w"][0].astype(np.float64)
    for (_, odometry), (_, tf), c2w in zip(bag["/odom"], bag["/tf"], walk[1]["c2w"], strict=True):
        pose = odometry.pose.pose
        camera = np.linalg.inv(base_from_camera) @ motion(pose.position, pose.orientation) @ base_from_camera
        np.testing.assert_allclose(start @ camera, c2w, atol=1e-5)
        moving = tf.transforms[1]
        assert (moving.header.frame_id, moving.child_frame_id) == ("odom", "base_link")
        assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
        np.testing.assert_allclose(
            motion(moving.transform.translation, moving.transform.rotation), motion(pose.position, pose.orientation)
        )


def test_cmd_vel_equals_the_commanded_velocity(
    bag: dict[str, list[Any]], walk: tuple[Path, dict[str, np.ndarray]]
) -> None:
    drive = VelocityLimits()
    for i, ((_, command), action) in enumerate(zip(bag["/cmd_vel"], walk[1]["actions"], strict=True)):
        assert command.linear.x == pytest.approx(action[0] * drive.max_speed, abs=1e-5)
        assert command.angular.z == pytest.approx(action[1] * drive.max_turn_rate, abs=1e-5)
        done = bag["/odom"][i + 1][1].twist.twist  # nothing is in the way of collisions="report"
        assert done.linear.x == pytest.approx(command.linear.x, abs=1e-4)
        assert done.angular.z == pytest.approx(command.angular.z, abs=1e-4)


def test_actions_of_any_mode_become_commands(toy_config: dict[str, Any], tmp_path: Path) -> None:
    replay = toy_config | {"policy": "replay", "format": "mcap", "output": str(tmp_path)}
    rollout_of(replay)
    commands = [command for _, command in read(tmp_path / "episode_0000" / "episode_0000.mcap")["/cmd_vel"]]
    assert len(commands) == 8
    assert commands[0].linear.x == pytest.approx(1.5, abs=1e-3)  # the walk's first command, a replay's se3
    assert commands[1].angular.z == pytest.approx(np.pi / 3, abs=1e-3)
    assert commands[-1].linear.x == pytest.approx(-1.5, abs=1e-3)  # and back


def test_rosbag2_reads_the_messages(bag: dict[str, list[Any]], walk: tuple[Path, dict[str, np.ndarray]]) -> None:
    """Not only by a library that reads bags."""
    pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'mirage_sim[ros]', or source a ROS 2")
    from rclpy.serialization import deserialize_message

    received: dict[str, list[Any]] = {}
    with (walk[0] / "episode_0000.mcap").open("rb") as file:
        for schema, channel, entry in make_reader(file).iter_messages():
            assert schema is not None
            package, _, name = schema.name.split("/")
            if package != "tf2_msgs":  # of which there are no wheels
                cls = getattr(importlib.import_module(f"{package}.msg"), name)
                received.setdefault(channel.topic, []).append(deserialize_message(entry.data, cls))
    assert sorted(received) == sorted({*PER_FRAME, "/cmd_vel"} - {"/tf"})
    frames = np.stack([conversions.frame_of(message) for message in received["/camera/image_raw"]])
    np.testing.assert_array_equal(frames, walk[1]["observations/rgb"])
    for i, (odometry, scan, info) in enumerate(
        zip(*(received[topic] for topic in ("/odom", "/scan", "/camera/camera_info")), strict=True)
    ):
        other = {topic: bag[topic][i][1] for topic in received if topic != "/cmd_vel"}
        assert conversions.seconds_of(odometry.header.stamp) == pytest.approx(0.1 * i)
        assert odometry.pose.pose.position.x == other["/odom"].pose.pose.position.x
        assert odometry.twist.twist.angular.z == other["/odom"].twist.twist.angular.z
        assert list(scan.ranges) == list(other["/scan"].ranges) and len(scan.ranges) == 90
        assert list(info.p) == list(other["/camera/camera_info"].p)
    assert [command.linear.x for command in received["/cmd_vel"]] == [
        message.linear.x for _, message in bag["/cmd_vel"]
    ]


def test_bag_and_archive_are_the_same_recording(walk: tuple[Path, dict[str, np.ndarray]]) -> None:
    """A bag's world is its map; from the first camera on, both cameras move alike."""
    bag, archive = open_recording(walk[0]), open_recording(walk[0].parent / "npz" / "episode_0000.npz")
    assert bag.info.sources["image"] == "/camera/image_raw" and archive.info.layout == "rollout"
    first = [np.linalg.inv(recording.c2w[0]) for recording in (bag, archive)]
    for one, other in zip(bag.frames(), archive.frames(), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.depth, other.depth)
        np.testing.assert_allclose(first[0] @ one.camera.c2w.numpy(), first[1] @ other.camera.c2w.numpy(), atol=1e-4)
        np.testing.assert_allclose(one.camera.K, other.camera.K, atol=1e-4)
        assert one.stamp == pytest.approx(other.stamp)


@pytest.mark.parametrize("height", [0, -1.5, float("nan"), "tall", True])
def test_impossible_camera_heights_are_named(toy_config: dict[str, Any], tmp_path: Path, height: Any) -> None:
    bag = toy_config["bag"] | {"camera_height": height}
    with pytest.raises(ValueError, match=f"camera_height: expected positive metres, got {height!r}"):
        rollout_of(toy_config | {"bag": bag, "format": "mcap", "output": str(tmp_path / "new")})
    assert not list(tmp_path.iterdir())


def test_episodes_are_separate_bags_and_not_overwritten(toy_config: dict[str, Any], tmp_path: Path) -> None:
    settings = toy_config | {"policy": "random", "steps": 1, "episodes": 2, "format": "mcap", "output": str(tmp_path)}
    rollout_of(settings)
    names = [".rollout", "episode_0000", "episode_0001", "metrics.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    rollout_of(settings)
    with pytest.raises(ValueError, match="output: expected a folder without episodes, .* whose steps differ; delete"):
        rollout_of(settings | {"steps": 2})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / ".rollout" / "settings.json").unlink()
    with pytest.raises(ValueError, match="whose settings differ"):
        rollout_of(settings)


def test_failed_bag_leaves_no_files(tmp_path: Path) -> None:
    from mirage_sim.agents.episodes import Episode
    from mirage_sim.ros.bag import BagWriter

    frame = np.zeros((*SIZE, 3), np.uint8)
    info = {"time": 0.0, "c2w": np.eye(4, dtype=np.float32)}
    broken = Episode(0, frames=[frame], depths=[frame[..., 0]], remembered=[frame[..., 0] > 0], infos=[info])
    with pytest.raises(ValueError, match="depth: expected float32"):
        BagWriter().write(tmp_path / "episode_0000", broken, "twist")
    assert not list(tmp_path.iterdir())


def test_missing_rosbags_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "mirage_sim.ros.bag", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "rosbags"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rosbags", None)  # what an import finds where it is not installed
    assert cli.main(["rollout", "format=mcap", "steps=1", f"output={tmp_path / 'new'}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "mirage: error: rosbags is not installed: pip install 'mirage_sim[data]'"
    assert not list(tmp_path.iterdir())
