from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.clips import toy_clip, write_clips

from mirage_sim.data.clips import save_clip
from mirage_sim.data.dataset import WalkDataset


def test_draw_returns_the_stored_frames(tmp_path: Path):
    data = WalkDataset(write_clips(tmp_path, frames=7))
    assert len(data) == 3 and data.length == 7 and data.size == (48, 64)
    walks, times = torch.tensor([2, 0]), torch.tensor([[6, 1, 1], [0, 3, 5]])
    moments = data.draw(walks, times)
    assert moments.frames.shape == (2, 3, 3, 48, 64) and moments.depth.shape == (2, 3, 48, 64)
    assert moments.frames.dtype == moments.depth.dtype == torch.float32
    assert moments.camera.batch_shape == (2, 3) and moments.camera.validate().size == (48, 64)
    for b, walk in enumerate(walks.tolist()):
        clip = toy_clip(walk, frames=7)
        for s, time in enumerate(times[b].tolist()):
            pixels = ((moments.frames[b, s] + 1) * 127.5).round().byte()
            assert torch.equal(pixels.permute(1, 2, 0), clip.frames[time])
            assert torch.equal(moments.depth[b, s], clip.depth[time].float())
            assert torch.equal(moments.camera.c2w[b, s], clip.c2w[time])
            assert torch.equal(moments.camera.K[b, s], clip.K)
    assert moments.frames.min() >= -1 and moments.frames.max() <= 1


def test_clips_are_kept_in_their_stored_types(tmp_path: Path):
    data = WalkDataset(write_clips(tmp_path, count=1, frames=3))
    assert data.frames.dtype == torch.uint8 and data.depth.dtype == torch.float16


@pytest.mark.parametrize("folder", ["empty", "nowhere"])
def test_folder_without_clips_raises(tmp_path: Path, folder: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no clip")
    with pytest.raises(ValueError, match=f"{folder}: expected recorded clips"):
        WalkDataset(tmp_path / folder)


@pytest.mark.parametrize("other", [{"frames": 8}, {"size": (32, 64)}])
def test_clips_of_different_sizes_raise(tmp_path: Path, other: dict):
    write_clips(tmp_path, count=2, frames=7)
    save_clip(toy_clip(5, **({"frames": 7} | other)), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="expected clips of one length and size, got .*, .*"):
        WalkDataset(tmp_path)


def test_damaged_clip_raises(tmp_path: Path):
    write_clips(tmp_path, count=2, frames=3)
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match=r"broken\.safetensors: expected a readable clip"):
        WalkDataset(tmp_path)


def test_draw_returns_intrinsics_of_each_clip(tmp_path: Path):
    clips = [replace(toy_clip(seed, 4), K=toy_clip(seed, 4).K * torch.tensor([[scale], [scale], [1.0]]))
             for seed, scale in ((0, 1.0), (1, 0.8), (2, 1.3))]  # fmt: skip
    for number, clip in enumerate(clips):
        save_clip(clip, tmp_path / f"{number}.safetensors")
    data = WalkDataset(tmp_path)
    walks = torch.tensor([2, 0, 1, 2])
    times = torch.ones(4, 2, dtype=torch.long)
    for camera in (data.draw(walks, times).camera, data.cameras(walks, times)):
        for sample, walk in enumerate(walks):
            assert torch.equal(camera.K[sample], clips[walk].K.expand(2, 3, 3))


def test_choose_follows_weights_of_folders(tmp_path: Path):
    few, many = write_clips(tmp_path / "few", 1, 4), write_clips(tmp_path / "many", 3, 4)
    walks = WalkDataset({few: 3.0, many: 1.0}).choose(4000, torch.Generator().manual_seed(0))
    shares = torch.bincount(walks, minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.75, 1 / 12, 1 / 12, 1 / 12]), atol=0.03, rtol=0)


def test_invalid_weights_and_lengths_raise(tmp_path: Path):
    short, long = write_clips(tmp_path / "short", 1, 4), write_clips(tmp_path / "long", 1, 5)
    with pytest.raises(ValueError, match="short: expected a positive weight, got 0"):
        WalkDataset({short: 0.0, long: 1.0})
    with pytest.raises(ValueError, match="short, .*long: expected clips of one length and size"):
        WalkDataset({short: 1.0, long: 1.0})
