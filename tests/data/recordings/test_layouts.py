"""What comes out of a recording is what was written into it, whatever the layout."""

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support.clips import toy_clip
from support.recordings import (
    CAMERA_HEIGHT,
    START,
    toy_frames,
    write_bag,
    write_re10k,
    write_transforms,
    write_tum,
)

from mirage_sim.agents.formats import save_npz
from mirage_sim.data.clips import save_clip
from mirage_sim.data.recordings import RecordedFrame, open_recording
from mirage_sim.ros.frames import base_from_camera

Write = Callable[[Path, Sequence[RecordedFrame]], Path]
FILES: dict[str, tuple[Write, float | None]] = {  # how to write it, and how coarse its depth is, in metres
    "tum": (write_tum, 1.1e-4),
    "nerfstudio": (write_transforms, 5.1e-4),
    "nerfstudio, per frame": (lambda folder, frames: write_transforms(folder, frames, per_frame=True), 5.1e-4),
    "realestate10k": (write_re10k, None),
}
BAGS: dict[str, tuple[Write, float | None]] = {
    "rosbag2, mcap": (lambda folder, frames: write_bag(folder / "a bag", frames), 0.0),
    "rosbag2, sqlite3": (lambda folder, frames: write_bag(folder / "a bag", frames, "sqlite3"), 0.0),
}
LAYOUTS = FILES | BAGS


@pytest.fixture(scope="module")
def walk() -> list[RecordedFrame]:
    return toy_frames()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a name that people give, but programs seldom expect."""
    folder = tmp_path / "Küche, {2}. Stock"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", LAYOUTS)
def test_frames_equal_those_written(name: str, folder: Path, walk: list[RecordedFrame]) -> None:
    write, coarse = LAYOUTS[name]
    recording = open_recording(write(folder, walk))
    assert recording.info.layout == name.partition(",")[0]
    frames = list(recording.frames())
    assert len(frames) == len(recording) == len(walk)
    # a bag's world is its map frame: z up, below the camera where this room's origin is
    world = base_from_camera(CAMERA_HEIGHT) if name in BAGS else np.eye(4)
    for frame, true in zip(frames, walk, strict=True):
        np.testing.assert_array_equal(frame.image, true.image)
        np.testing.assert_allclose(frame.camera.c2w, world @ true.camera.c2w.numpy(), atol=2e-6)
        np.testing.assert_allclose(frame.camera.K, true.camera.K, atol=1e-5)
        frame.camera.validate()
        assert frame.camera.size == true.camera.size and frame.image.flags.c_contiguous
        assert frame.image.flags.writeable, "torch takes no other"
        assert frame.stamp == pytest.approx(true.stamp, abs=1e-6)
        if coarse is None:
            assert frame.depth is None
        else:
            assert frame.depth is not None and frame.depth.dtype == np.float32
            np.testing.assert_allclose(frame.depth, true.depth, atol=coarse)


@pytest.mark.parametrize("name", LAYOUTS)
def test_info_says_what_is_there(name: str, folder: Path, walk: list[RecordedFrame]) -> None:
    write, coarse = LAYOUTS[name]
    info = open_recording(write(folder, walk)).info
    path = sum(float((b.camera.c2w - a.camera.c2w)[:3, 3].norm()) for a, b in zip(walk, walk[1:], strict=False))
    assert (info.images, info.size, info.depth) == (6, (48, 64), 0 if coarse is None else 6)
    assert info.duration_s == pytest.approx(0.5) and info.rate_hz == pytest.approx(10.0)
    assert info.largest_gap_s == pytest.approx(0.1)
    assert info.path_m == pytest.approx(path, abs=1e-3)
    assert {"image", "poses", "intrinsics"} <= info.sources.keys()
    assert json.loads(json.dumps(info.as_dict()))["images"] == 6


@pytest.mark.parametrize("name", LAYOUTS)
def test_some_frames_are_read_by_number(name: str, folder: Path, walk: list[RecordedFrame]) -> None:
    recording = open_recording(LAYOUTS[name][0](folder, walk))
    frames = list(recording.frames([1, 4]))
    assert [frame.stamp for frame in frames] == [pytest.approx(walk[i].stamp, abs=1e-6) for i in (1, 4)]
    for frame, i in zip(frames, (1, 4), strict=True):
        np.testing.assert_array_equal(frame.image, walk[i].image)
    assert list(recording.frames([])) == []
    for wrong in ([4, 1], [2, 2], [6], [-1]):
        with pytest.raises(ValueError, match=r"numbers: expected ascending numbers in \[0, 6\)"):
            recording.frames(wrong)


@pytest.mark.parametrize("name", ["tum", "nerfstudio", *BAGS])
def test_memory_does_not_grow_with_the_recording(name: str, folder: Path) -> None:
    (frame,) = toy_frames(1, (240, 320))
    still = [RecordedFrame(frame.image, frame.depth, frame.camera, START + 0.1 * i) for i in range(40)]
    recording = open_recording(LAYOUTS[name][0](folder, still))
    tracemalloc.start()
    try:
        assert sum(1 for _ in recording.frames()) == 40
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    one = frame.image.nbytes + still[0].depth.nbytes  # type: ignore[union-attr]
    assert peak < 15 * one, f"{peak / one:.1f} frames"


def test_distant_messages_of_a_bag_are_found_by_seeking(tmp_path: Path) -> None:
    frames = [
        RecordedFrame(
            np.full((16, 16, 3), i, np.uint8), np.full((16, 16), 1 + i / 100, np.float32), camera, START + i / 9
        )
        for i, camera in enumerate([toy_frames(1, (16, 16))[0].camera] * 200)
    ]
    recording = open_recording(write_bag(tmp_path / "bag", frames))
    read = [(int(frame.image[0, 0, 0]), float(frame.depth[0, 0])) for frame in recording.frames([3, 4, 150, 151, 199])]  # type: ignore[index]
    assert read == [(i, pytest.approx(1 + i / 100)) for i in (3, 4, 150, 151, 199)]


def test_opengl_axes_become_opencv(tmp_path: Path) -> None:
    """A camera at (1, 2, 3) of OpenGL axes that are the world's looks along -z, its image's down is -y."""
    (frame,) = toy_frames(1)
    write_transforms(tmp_path, [frame])
    content = json.loads((tmp_path / "transforms.json").read_text())
    content["frames"][0]["transform_matrix"] = [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    (read,) = open_recording(tmp_path / "transforms.json").frames()
    right, down, ahead, position = read.camera.c2w[:3].T
    assert right.tolist() == [1, 0, 0] and down.tolist() == [0, -1, 0] and ahead.tolist() == [0, 0, -1]
    assert position.tolist() == [1, 2, 3]


def test_images_without_times_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    walk = toy_frames(12)
    write_transforms(tmp_path, walk)
    content = json.loads((tmp_path / "transforms.json").read_text())
    content["frames"] = [{k: v for k, v in frame.items() if k != "timestamp"} for frame in content["frames"]]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    recording = open_recording(tmp_path)
    assert recording.info.rate_hz is None and "no times" in recording.info.notes[0]
    for frame, true in zip(recording.frames(), walk, strict=True):
        np.testing.assert_array_equal(frame.image, true.image)


def test_field_of_view_alone_gives_intrinsics(tmp_path: Path) -> None:
    write_transforms(tmp_path, toy_frames(1))
    content = json.loads((tmp_path / "transforms.json").read_text())
    content = {"camera_angle_x": np.pi / 2, "frames": content["frames"]}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    (frame,) = open_recording(tmp_path).frames()
    assert frame.camera.K.tolist() == [[pytest.approx(32), 0, 32], [0, pytest.approx(32), 24], [0, 0, 1]]


def test_coarser_depth_comes_on_the_images_grid(tmp_path: Path) -> None:
    """As phones have it: each depth pixel covers a block of image pixels."""
    (frame,) = toy_frames(1)
    coarse = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    coarse = coarse.repeat(8, 0).repeat(8, 1)  # [24, 32]
    write_transforms(tmp_path, [RecordedFrame(frame.image, coarse, frame.camera, 0.0)])
    (read,) = open_recording(tmp_path).frames()
    np.testing.assert_array_equal(read.depth, coarse.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("name", "focal", "centre"),
    [
        ("rgbd_dataset_freiburg1_xyz", (517.3, 516.5), (319.1, 255.8)),
        ("rgbd_dataset_freiburg3_long_office_household", (535.4, 539.2), (320.6, 248.1)),
        ("my kitchen", (525.0, 525.0), (320.0, 240.0)),
    ],
)
def test_tum_folders_have_published_intrinsics(
    name: str, focal: tuple[float, float], centre: tuple[float, float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (frame,) = toy_frames(1, (480, 640))
    (write_tum(tmp_path / name, [frame]) / "camera.json").unlink()
    recording = open_recording(tmp_path / name)
    assert recording._lenses[0].focal == focal  # before distortion is undone
    assert recording._lenses[0].centre == pytest.approx(centre)
    assert "are assumed" in caplog.text and "are assumed" in recording.info.notes[0]


def test_calibration_txt_is_read(tmp_path: Path) -> None:
    (write_tum(tmp_path, toy_frames(1)) / "camera.json").unlink()
    (tmp_path / "calibration.txt").write_text("50 51 31.5 23.5\n")
    (frame,) = open_recording(tmp_path).frames()
    assert frame.camera.K.tolist() == [[50, 0, 32], [0, 51, 24], [0, 0, 1]]


def test_tum_images_without_a_pose_are_left_out(tmp_path: Path) -> None:
    walk = toy_frames()
    write_tum(tmp_path, walk)
    lines = (tmp_path / "groundtruth.txt").read_text().splitlines()
    (tmp_path / "groundtruth.txt").write_text("\n".join(lines[:3] + lines[4:]))
    recording = open_recording(tmp_path)
    assert [frame.stamp for frame in recording.frames()] == [walk[i].stamp for i in (0, 1, 3, 4, 5)]
    assert recording.info.largest_gap_s == pytest.approx(0.2)
    assert recording.info.notes == ("1 images without a pose within 0.02 s were left out",)


def test_tum_depth_that_is_too_late_is_none(tmp_path: Path) -> None:
    write_tum(tmp_path, toy_frames())
    lines = (tmp_path / "depth.txt").read_text().splitlines()
    (tmp_path / "depth.txt").write_text("\n".join(lines[:3] + lines[4:]))
    depths = [frame.depth is not None for frame in open_recording(tmp_path).frames()]
    assert depths == [True, True, False, True, True, True]


def test_clips_are_recordings(tmp_path: Path) -> None:
    clip = toy_clip(1, 5)
    save_clip(clip, tmp_path / "walk.safetensors")
    recording = open_recording(tmp_path / "walk.safetensors")
    assert recording.info.layout == "clip" and recording.info.rate_hz == pytest.approx(10.0)
    for i, frame in enumerate(recording.frames()):
        np.testing.assert_array_equal(frame.image, clip.frames[i])
        np.testing.assert_array_equal(frame.depth, clip.depth[i].float())
        assert torch.equal(frame.camera.c2w, clip.c2w[i]) and torch.equal(frame.camera.K, clip.K)


def test_archives_of_rollouts_are_recordings(tmp_path: Path) -> None:
    clip = toy_clip(2, 5)
    arrays = {"observations/rgb": clip.frames, "observations/depth": clip.depth.float(), "c2w": clip.c2w, "K": clip.K}
    times = {"times": 0.2 * np.arange(5), "rewards": np.zeros(4)}
    save_npz(tmp_path / "episode.npz", {name: array.numpy() for name, array in arrays.items()} | times)
    recording = open_recording(tmp_path / "episode.npz")
    assert recording.info.layout == "rollout" and recording.info.rate_hz == pytest.approx(5.0)
    for i, frame in zip((1, 3), recording.frames([1, 3]), strict=True):
        np.testing.assert_array_equal(frame.image, clip.frames[i])
        np.testing.assert_array_equal(frame.depth, clip.depth[i].float())
        assert torch.equal(frame.camera.c2w, clip.c2w[i]) and torch.equal(frame.camera.K, clip.K)
