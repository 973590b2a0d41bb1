from pathlib import Path

import pytest
import torch
from support.clips import SIZE, toy_clip, write_clips
from support.toy_world import toy_model

from mirage_sim.data.clips import save_clip
from mirage_sim.data.latent_cache import LatentClips
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.models import MiniCodec


class Counting(MiniCodec):
    count = 0

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return super().encode(video)


def counting(channels: int = 8) -> Counting:
    codec = Counting(channels, encoder_width=16, encoder_depth=1, decoder_width=16, decoder_depth=1)
    codec.load_state_dict(toy_model(channels).codec.state_dict())
    return codec.eval().requires_grad_(False)


def test_latents_are_encoded_once(tmp_path: Path) -> None:
    folder, codec = write_clips(tmp_path / "clips", count=2, frames=5), counting()
    clips = LatentClips(folder, codec, SIZE, tmp_path / "cache")
    assert len(clips) == 2 and clips.captions == ["", ""]
    clip = clips[1]
    walk = toy_clip(1, 5)
    expected = codec.encode(walk.frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1)[0]
    torch.testing.assert_close(clip.latents, expected, atol=2e-3, rtol=0)
    assert torch.equal(clip.depth, resample_depth(walk.depth.float(), (12, 16)))
    assert torch.equal(clip.camera.c2w, walk.c2w) and clip.camera.size == SIZE
    before = codec.count
    again = LatentClips(folder, codec, SIZE, tmp_path / "cache")[1]
    assert codec.count == before and torch.equal(again.latents, clip.latents)
    assert not list((tmp_path / "cache").glob("*partial*"))


def test_changed_clip_or_codec_is_encoded_again(tmp_path: Path) -> None:
    folder, codec = write_clips(tmp_path / "clips", count=1, frames=3), counting()
    first = LatentClips(folder, codec, SIZE, tmp_path / "cache")[0].latents
    save_clip(toy_clip(7, 3), folder / "Box-000000.safetensors")  # recorded again
    second = LatentClips(folder, codec, SIZE, tmp_path / "cache")[0].latents
    assert not torch.equal(first, second)
    other = counting()
    next(other.parameters()).data += 0.1
    third = LatentClips(folder, other, SIZE, tmp_path / "cache")[0].latents
    assert not torch.equal(second, third) and len(list((tmp_path / "cache").iterdir())) == 3


def test_damaged_cache_is_encoded_again(tmp_path: Path) -> None:
    folder, codec = write_clips(tmp_path / "clips", count=1, frames=3), counting()
    clips = LatentClips(folder, codec, SIZE, tmp_path / "cache")
    expected = clips[0].latents
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(clips[0].latents, expected)


def test_invalid_folders_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected clips .* mirage prepare"):
        LatentClips(tmp_path, counting(), SIZE)
    write_clips(tmp_path, count=1, frames=3)
    with pytest.raises(ValueError, match=r"expected images of \[32, 32\], got \[48, 64\]"):
        LatentClips(tmp_path, counting(), (32, 32), tmp_path / "cache")[0]
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match=r"broken\.safetensors: expected a readable clip"):
        LatentClips(tmp_path, counting(), SIZE)
