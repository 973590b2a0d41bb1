import pytest
import torch

from mirage_sim.models import MiniCodec
from mirage_sim.models.codec import BOUND, PATCH, transform_basis

SIZES = {"encoder_width": 16, "encoder_depth": 1, "decoder_width": 16, "decoder_depth": 1}
REACH = 5  # cells: a 3x3 convolution before, three in the block and one after it


@pytest.fixture
def codec(awake) -> MiniCodec:
    torch.manual_seed(0)
    return awake(MiniCodec(8, **SIZES))


def video(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("channels", [3, 16, 48])
def test_transform_is_an_orthogonal_projection(channels: int):
    analysis, synthesis = (matrix.double() for matrix in transform_basis(channels))
    assert analysis.shape == (channels, 48) and synthesis.shape == (48, channels)
    project = synthesis @ analysis
    torch.testing.assert_close(project @ project, project, atol=1e-6, rtol=0)
    torch.testing.assert_close(project.T, project, atol=1e-6, rtol=0)
    torch.testing.assert_close(project.trace().item(), float(channels), atol=1e-5, rtol=0)
    rows = analysis / analysis.norm(dim=1, keepdim=True)
    torch.testing.assert_close(rows @ rows.T, torch.eye(channels, dtype=torch.float64), atol=1e-6, rtol=0)


def test_first_channel_is_brightness_and_flat_images_are_kept():
    analysis, synthesis = transform_basis(16)
    grey = torch.full((48,), 0.3)
    coefficients = analysis @ grey
    assert coefficients[0] > 0.1 and coefficients[1:].abs().max() < 1e-6
    colour = torch.tensor([0.5, -0.2, 0.1]).repeat_interleave(PATCH * PATCH)  # as pixel_unshuffle orders channels
    torch.testing.assert_close(synthesis @ (analysis @ colour), colour, atol=1e-6, rtol=0)


def test_untrained_codec_equals_the_transform():
    codec = MiniCodec(8, **SIZES)
    frames = torch.tensor([0.06, -0.03, 0.02]).view(1, 3, 1, 1).expand(2, 3, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(codec.decode_frames(codec.encode_frames(frames)), frames, atol=1e-3, rtol=0)
        patches = torch.nn.functional.pixel_unshuffle(video(2, 3, 12, 16), PATCH)
        expected = torch.einsum("cp,nphw->nchw", transform_basis(8)[0], patches)
        found = codec.encode_frames(video(2, 3, 12, 16))
    torch.testing.assert_close(torch.atanh(found / BOUND) * BOUND, expected, atol=1e-4, rtol=0)


def test_videos_keep_their_shapes(codec: MiniCodec):
    clip = video(2, 3, 5, 12, 20)
    latents = codec.encode(clip)
    assert latents.shape == (2, 8, 5, 3, 5) and codec.stride == (1, 4, 4) and codec.channels == 8
    assert codec.decode(latents).shape == clip.shape


def test_latents_are_bounded_and_frames_clamped(codec: MiniCodec):
    latents = codec.encode(20 * video(1, 3, 2, 16, 16))
    assert latents.abs().max() <= BOUND
    assert latents.abs().max() > 0.9 * BOUND  # the input is strong enough to reach the bound
    wild = 10 * torch.randn(1, 8, 2, 4, 4)
    assert codec.decode_frames(wild[:, :, 0]).abs().max() > 1.5
    decoded = codec.decode(wild)
    assert decoded.max() == 1.0 and decoded.min() == -1.0
    torch.testing.assert_close(decoded[:, :, 0], codec.decode_frames(wild[:, :, 0]).clamp(-1, 1))


def test_frames_are_coded_independently(codec: MiniCodec):
    clip = video(2, 3, 4, 16, 16)
    other = clip.clone()
    other[1, :, 2] = -other[1, :, 2]
    for half, before, after in (
        ("encode", codec.encode(clip), codec.encode(other)),
        ("decode", codec.decode(clip.repeat(1, 3, 1, 1, 1)[:, :8]), codec.decode(other.repeat(1, 3, 1, 1, 1)[:, :8])),
    ):
        same = (before == after).transpose(1, 2).flatten(2).all(-1)
        assert same.tolist() == [[True] * 4, [True, True, False, True]], half
    alone = torch.stack([codec.encode_frames(clip[:, :, i]) for i in range(4)], dim=2)
    torch.testing.assert_close(codec.encode(clip), alone, atol=1e-5, rtol=0)


def test_latents_depend_on_their_neighbourhood_only(codec: MiniCodec):
    frames = video(1, 3, 64, 80)
    other = frames.clone()
    other[..., :PATCH, :PATCH] *= -1
    changed = (codec.encode_frames(frames) != codec.encode_frames(other)).any(1)[0]
    assert changed[:3, :3].all()  # neighbours do affect each other
    assert not changed[REACH + 1 :].any() and not changed[:, REACH + 1 :].any()
    latents = torch.randn(1, 8, 16, 20)
    poked = latents.clone()
    poked[..., 0, 0] += 1
    drawn = (codec.decode_frames(latents) != codec.decode_frames(poked)).any(1)[0]
    edge = PATCH * (REACH + 1)
    assert drawn[: 2 * PATCH, : 2 * PATCH].any(-1).all() and not drawn[edge:].any() and not drawn[:, edge:].any()
