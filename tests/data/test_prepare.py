"""Conversion of videos to clips."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.clips import SIZE, toy_clip
from support.videos import FRAMES, write_realestate10k, write_table, write_video, write_vipe

from mirage_sim.build import compose
from mirage_sim.cli import main
from mirage_sim.data.clips import load_clip, save_clip
from mirage_sim.data.dataset import WalkDataset
from mirage_sim.data.prepare import choose_frames, prepare
from mirage_sim.geometry import project, unproject
from mirage_sim.settings import VideoSettings


def config(layout: str, source: Path, output: Path, **changes: Any) -> VideoSettings:
    settings: VideoSettings = compose(f"prepare {layout}", [f"source={source}", f"output={output}"])
    return replace(settings, **{"size": SIZE, "frames": 13} | changes)


WRITERS = {"vipe": write_vipe, "realestate10k": write_realestate10k}


@pytest.mark.parametrize("layout", WRITERS)
def test_video_becomes_clips_with_depth_and_cameras(layout: str, tmp_path: Path) -> None:
    walk = WRITERS[layout](tmp_path / "videos")
    (tmp_path / "videos" / "captions").mkdir()
    (tmp_path / "videos" / "captions" / "walk.txt").write_text("a  toy\nroom")
    cfg = config(layout, tmp_path / "videos", tmp_path / "clips")
    assert prepare(cfg) == {"clips": 2, "refused": 0, "output": str(tmp_path / "clips")}  # of 30 frames
    for number in (0, 1):
        clip = load_clip(tmp_path / "clips" / f"walk-{number:03d}.safetensors")
        these = slice(13 * number, 13 * number + 13)
        difference = (clip.frames.float() - walk.frames[these].float()).abs()
        assert difference.max() == 0 if layout == "realestate10k" else difference.mean() < 12  # mp4 is lossy
        assert torch.equal(clip.depth, walk.depth[these])
        torch.testing.assert_close(clip.c2w, walk.c2w[these], atol=1e-5, rtol=0)
        torch.testing.assert_close(clip.K, walk.K, atol=1e-4, rtol=0)
        assert clip.source == {"film": "walk", "caption": "a toy room"} and clip.commands.shape == (0, 2)
    assert prepare(cfg) == {"clips": 0, "refused": 0, "output": str(tmp_path / "clips")}  # existing clips
    assert len(WalkDataset(tmp_path / "clips")) == 2


def test_resized_clips_keep_depth_and_cameras_aligned(tmp_path: Path) -> None:
    write_realestate10k(tmp_path / "videos")
    prepare(config("realestate10k", tmp_path / "videos", tmp_path / "clips", size=[32, 32]))
    clip = load_clip(tmp_path / "clips" / "walk-000.safetensors")
    cameras = clip.cameras.validate()
    assert cameras.size == (32, 32) and clip.depth.shape == (13, 32, 32)
    points = unproject(clip.depth[0].float(), cameras[0]).flatten(0, 1)
    u, v, z = project(points, cameras[6])
    inside = (u >= 1) & (u < 31) & (v >= 1) & (v < 31)
    seen = clip.depth[6].float()[v[inside].long(), u[inside].long()]
    assert inside.float().mean() > 0.5 and (z[inside] / seen - 1).abs().median() < 0.02
    shown, first = (
        clip.frames[6].float()[v[inside].long(), u[inside].long()],
        clip.frames[0].float().flatten(0, 1)[inside],
    )
    assert (shown - first).abs().mean() < 12  # of 255


def test_recorded_walks_are_resized(tmp_path: Path) -> None:
    save_clip(toy_clip(3, 27), tmp_path / "videos" / "Box-000003.safetensors")
    assert prepare(config("clips", tmp_path / "videos", tmp_path / "clips", size=[24, 32]))["clips"] == 2
    clip = load_clip(tmp_path / "clips" / "Box-000003-001.safetensors")
    assert clip.frames.shape == (13, 24, 32, 3) and torch.equal(clip.c2w, toy_clip(3, 27).c2w[13:26])


def test_video_can_replace_a_folder_of_images(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    walk = write_realestate10k(videos)
    for path in (videos / "frames" / "walk").iterdir():
        path.unlink()
    (videos / "frames" / "walk").rmdir()
    write_video(videos / "frames" / "walk.mp4", walk)
    assert prepare(config("realestate10k", videos, tmp_path / "clips"))["clips"] == 2
    poses = videos / "poses" / "walk.txt"
    poses.write_text("\n".join(poses.read_text().splitlines()[:-1]))
    with pytest.raises(ValueError, match="expected a frame for each of 29 poses, got 30"):
        prepare(config("realestate10k", videos, tmp_path / "others"))


def break_line(folder: Path) -> None:
    path = folder / "poses" / "walk.txt"
    lines = path.read_text().splitlines()
    lines[4] = lines[4].rsplit(" ", 1)[0]
    path.write_text("\n".join(lines))


def pickled(folder: Path) -> None:
    np.savez(folder / "depth" / "walk.npz", data=np.array([{"any": "thing"}]), inds=np.arange(1))


def truncated(folder: Path) -> None:
    path = folder / "depth" / "walk.npz"
    path.write_bytes(path.read_bytes()[:200])


def no_depth(folder: Path) -> None:
    (folder / "depth" / "walk.npz").unlink()


def unknown_depth(folder: Path) -> None:
    write_table(folder / "depth" / "walk.npz", np.full((FRAMES, 48, 64), np.nan, dtype=np.float32))


def missing_image(folder: Path) -> None:
    next((folder / "frames" / "walk").iterdir()).unlink()


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "line": (break_line, r"walk.txt: line 5: expected 19 finite numbers"),
    "pickle": (pickled, r"depth.walk\.npz: expected an \.npz file with arrays 'data' and 'inds', no pickles"),
    "truncated": (truncated, r"depth.walk\.npz: expected an \.npz file"),
    "depth": (no_depth, r"depth.walk\.npz: expected z-depth"),
    "nan": (unknown_depth, "depth: expected some known depth in each frame, got none in 13 of 13"),
    "image": (missing_image, "expected an image for each of 30 poses, got none named"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_video_is_skipped_with_a_warning(fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    videos = tmp_path / "videos"
    write_realestate10k(videos)
    damage, message = FAULTS[fault]
    damage(videos)
    with pytest.raises(ValueError, match=message):
        prepare(config("realestate10k", videos, tmp_path / "clips"))
    assert not list((tmp_path / "clips").glob("*"))
    write_realestate10k(videos, "good", seed=1)
    assert prepare(config("realestate10k", videos, tmp_path / "clips"))["refused"] == 1
    assert "skipped walk: " in caplog.text


def test_invalid_poses_intrinsics_and_videos_raise(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    walk = write_vipe(videos)
    scaled = walk.c2w.numpy().copy()
    scaled[:, :3, :3] *= 2
    write_table(videos / "pose" / "walk.npz", scaled)
    with pytest.raises(ValueError, match="walk: c2w: expected finite rigid transforms"):
        prepare(config("vipe", videos, tmp_path / "clips"))
    write_table(videos / "pose" / "walk.npz", walk.c2w.numpy())
    log_scale = np.linspace(50, 60, FRAMES, dtype=np.float32)
    write_table(
        videos / "intrinsics" / "walk.npz", np.stack([log_scale, log_scale, 0 * log_scale + 32, 0 * log_scale + 24], 1)
    )
    with pytest.raises(ValueError, match="intrinsics: expected one focal length per clip, got 0.78"):
        prepare(config("vipe", videos, tmp_path / "clips"))
    write_table(videos / "intrinsics" / "walk.npz", np.zeros((FRAMES, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r"expected floating point data \[n, 4\] and inds \[n\]"):
        prepare(config("vipe", videos, tmp_path / "clips"))
    (videos / "rgb" / "walk.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"walk\.mp4: expected a readable video"):
        prepare(config("vipe", videos, tmp_path / "clips"))


def test_frames_are_chosen_at_the_rate_of_the_clips() -> None:
    times = np.arange(61) / 30
    assert choose_frames(times, 15, 4)[:2] == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert len(choose_frames(times, 15, 4)) == 7
    assert choose_frames(times, 30, 61) == [list(range(61))]
    with pytest.raises(ValueError, match="fps: expected a video of at least 60 frames per second"):
        choose_frames(times, 60, 4)
    with pytest.raises(ValueError, match=r"frames: expected a video of at least 6\.0 s, got 2\.0 s"):
        choose_frames(times, 15, 90)
    with pytest.raises(ValueError, match="do not increase"):
        choose_frames(times[::-1], 15, 4)
    hole = np.delete(times, range(20, 30))
    with pytest.raises(ValueError, match="fps: expected a video of at least 15 frames per second"):
        choose_frames(hole, 15, 4)


def test_invalid_settings_raise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "vipe", f"source={tmp_path}", f"output={tmp_path}"]) == 2
    assert "expected videos in the layout vipe, got no pose/*.npz" in capsys.readouterr().err
    write_vipe(tmp_path)
    with pytest.raises(ValueError, match="frames: expected an integer from 2, got 0"):
        config("vipe", tmp_path, tmp_path, frames=0)
