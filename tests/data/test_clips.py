from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.clips import toy_clip

from mirage_sim.data.clips import Clip, load_clip, save_clip
from mirage_sim.geometry import project, unproject

TENSORS = [field.name for field in fields(Clip) if field.name != "source"]


def test_saved_clip_is_loaded_again(tmp_path: Path):
    clip = toy_clip(0, frames=6)
    clip = replace(clip, frames=clip.frames.flip(2), K=clip.K.T.contiguous().T)  # not contiguous
    path = tmp_path / "new" / "clip.safetensors"
    save_clip(clip, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    loaded = load_clip(path)
    for name in TENSORS:
        stored, original = getattr(loaded, name), getattr(clip, name)
        assert stored.dtype == original.dtype and torch.equal(stored, original), name
    assert loaded.source == {"environment": "Box", "seed": "0"} and len(loaded) == 6


def test_float32_depth_stays_float32(tmp_path: Path):
    clip = toy_clip(0, frames=2)
    clip = replace(clip, depth=clip.depth.float() + 1e-4)
    save_clip(clip, tmp_path / "clip.safetensors")
    assert torch.equal(load_clip(tmp_path / "clip.safetensors").depth, clip.depth)


def test_cameras_agree_with_depth():
    clip = toy_clip(1, frames=6)
    cameras = clip.cameras.validate()
    assert cameras.batch_shape == (6,) and cameras.size == (48, 64)
    # points of the first frame lie at the depth of the last one
    points = unproject(clip.depth[0].float(), cameras[0]).flatten(0, 1)
    u, v, z = project(points, cameras[5])
    inside = (u >= 1) & (u < 63) & (v >= 1) & (v < 47)
    seen = clip.depth[5].float()[v[inside].long(), u[inside].long()]
    assert inside.float().mean() > 0.5 and (z[inside] / seen - 1).abs().median() < 0.02


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_truncated_file_raises(tmp_path: Path, share: float):
    path = tmp_path / "clip.safetensors"
    save_clip(toy_clip(0, frames=3), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="expected a readable clip in safetensors format"):
        load_clip(path)


def test_file_that_is_no_clip_raises(tmp_path: Path):
    path = tmp_path / "clip.safetensors"
    with pytest.raises(FileNotFoundError, match=r"clip\.safetensors: expected a readable clip"):
        load_clip(path)
    path.write_text("some text that is long enough for a header")
    with pytest.raises(ValueError, match=r"clip\.safetensors: expected a readable clip"):
        load_clip(path)
    clip = toy_clip(0, frames=3)
    save_file({name: getattr(clip, name) for name in TENSORS if name not in ("K", "depth")}, path)
    with pytest.raises(ValueError, match=r"missing \['K', 'depth'\]"):
        load_clip(path)


def test_saving_again_replaces_the_clip(tmp_path: Path):
    path = tmp_path / "clip.safetensors"
    for seed in (0, 1):
        save_clip(toy_clip(seed, frames=3), path)
    assert torch.equal(load_clip(path).frames, toy_clip(1, frames=3).frames)
