import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mirage_sim.models.wan.codec import WanCodec, load_codec, published_config
from mirage_sim.models.wan.codec import _blend as blend
from mirage_sim.models.wan.codec import _spans as spans

WEIGHTS = "diffusion_pytorch_model.safetensors"
TOY = published_config() | {
    "base_dim": 8,
    "decoder_base_dim": 8,
    "z_dim": 6,
    "num_res_blocks": 1,
    "latents_mean": [0.3, -0.2, 0.1, 0.0, 0.5, -0.4],
    "latents_std": [0.5, 1.5, 2.0, 1.0, 0.25, 0.75],
}


def toy_vae() -> AutoencoderKLWan:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderKLWan(**TOY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def codec() -> WanCodec:
    return WanCodec(toy_vae())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "vae"
    toy_vae().save_pretrained(folder)
    return folder


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_coding_equals_diffusers_after_normalisation(codec: WanCodec) -> None:
    video = noise(2, 3, 5, 32, 48).clamp(-1, 1)
    latents = codec.encode(video)
    assert latents.shape == (2, 6, 2, 2, 3)
    assert (codec.channels, codec.stride) == (6, (4, 16, 16))
    raw = codec.vae.encode(video).latent_dist.mode()
    shape = (1, 6, 1, 1, 1)
    mean, std = (torch.tensor(TOY[name]).view(shape) for name in ("latents_mean", "latents_std"))
    torch.testing.assert_close(latents * std + mean, raw)
    # noise of unit variance, so that the output depends on all weights and needs clamping
    latents = noise(2, 6, 3, 2, 3)
    decoded = codec.decode(latents)
    assert decoded.shape == (2, 3, 9, 32, 48)
    assert decoded.abs().max() <= 1
    torch.testing.assert_close(decoded, codec.vae.decode(latents * std + mean).sample)


@pytest.mark.parametrize("tile", [None, (4, 4)])
def test_streaming_equals_decoding_bit_for_bit(tile: tuple[int, int] | None) -> None:
    codec = WanCodec(toy_vae(), tile)
    latents = noise(1, 6, 4, 5, 6)
    whole = codec.decode(latents)
    stream, frames = None, []
    for latent in latents.split(1, dim=2):
        made, stream = codec.decode_next(latent, stream)
        frames.append(made)
    assert [made.shape[2] for made in frames] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(frames, dim=2), whole)
    assert stream.nbytes > 0


def test_decoder_state_can_be_forked(codec: WanCodec) -> None:
    latents, other = noise(1, 6, 3, 2, 2), noise(1, 6, 1, 2, 2) * 2
    state = None
    for latent in latents[:, :, :2].split(1, dim=2):
        _, state = codec.decode_next(latent, state)
    before = [part.clone() if isinstance(part, torch.Tensor) else part for part in state.features[0]]
    left, _ = codec.decode_next(latents[:, :, 2:], state)
    right, _ = codec.decode_next(other, state)
    again, _ = codec.decode_next(latents[:, :, 2:], state)
    assert torch.equal(left, again) and not torch.equal(left, right)
    assert torch.equal(left, codec.decode(latents)[:, :, -4:])
    for part, kept in zip(state.features[0], before, strict=True):
        assert torch.equal(part, kept) if isinstance(part, torch.Tensor) else part == kept


def test_earlier_frames_affect_decoding(codec: WanCodec) -> None:
    """Otherwise the other tests would not notice a lost state."""
    latents = noise(1, 6, 2, 2, 2)
    _, state = codec.decode_next(latents[:, :, :1])
    _, other = codec.decode_next(-latents[:, :, :1])
    made = [codec.decode_next(latents[:, :, 1:], before)[0] for before in (state, other)]
    assert not torch.equal(*made)


def test_tiled_result_is_close_to_untiled(codec: WanCodec) -> None:
    tiled = WanCodec(codec.vae, tile=(6, 6))
    video = torch.nn.functional.interpolate(noise(1, 3, 1, 4, 6).clamp(-1, 1), (1, 128, 192), mode="trilinear")
    latents = codec.encode(video)
    difference = (tiled.encode(video) - latents).abs().mean() / latents.abs().mean()
    assert 0 < difference < 0.2
    # an untrained decoder's image has low contrast
    whole = codec.decode(latents)
    difference = (tiled.decode(latents) - whole).abs().mean() / whole.std()
    assert 0 < difference < 0.2


def test_tile_larger_than_image_changes_nothing(codec: WanCodec) -> None:
    latents = noise(1, 6, 2, 3, 4)
    assert torch.equal(WanCodec(codec.vae, tile=(4, 9)).decode(latents), codec.decode(latents))


@given(st.integers(1, 90), st.integers(4, 40))
def test_spans_cover_length_and_overlap_by_a_quarter(length: int, tile: int) -> None:
    found = spans(length, tile)
    assert {span.stop - span.start for span in found} == {min(tile, length)}
    assert (found[0].start, found[-1].stop) == (0, length)
    overlaps = [before.stop - after.start for before, after in zip(found, found[1:], strict=False)]
    assert all(overlap >= min(tile, length) // 4 for overlap in overlaps)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 20), st.integers(4, 20), st.integers(4, 8), st.sampled_from([1, 3]))
def test_pieces_of_an_image_blend_into_the_image(height: int, width: int, tile: int, scale: int) -> None:
    image = noise(2, height * scale, width * scale)
    windows = [(rows, columns) for rows in spans(height, tile) for columns in spans(width, tile)]
    pieces = [
        image[:, rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
        for rows, columns in windows
    ]
    torch.testing.assert_close(blend(pieces, windows, (height, width)), image)


@pytest.mark.parametrize("shape", [(4, 32, 32), (5, 30, 32), (5, 32, 40)])
def test_videos_of_wrong_size_are_rejected(codec: WanCodec, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"video: expected 4 n \+ 1 frames of multiples of 16 x 16, got"):
        codec.encode(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize("tile", [None, (4, 4)])
@pytest.mark.parametrize("frames", [1, 2])
def test_restored_stream_continues_bit_for_bit(tile: tuple[int, int] | None, frames: int) -> None:
    codec, stream = WanCodec(toy_vae(), tile), None
    for latent in noise(frames, 6, 1, 5, 6).split(1):
        _, stream = codec.decode_next(latent, stream)
    tensors = stream.tensors()
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    again = codec.stream(tensors, (5, 6))
    following = noise(1, 6, 1, 5, 6)
    assert torch.equal(codec.decode_next(following, again)[0], codec.decode_next(following, stream)[0])
    assert again.nbytes == stream.nbytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"7.0": torch.zeros(1)}, "expected features of 1 windows of .* layers, got '7.0'"),
        ({"0.999": torch.zeros(1)}, "got '0.999'"),
        ({"first": torch.zeros(1)}, "got 'first'"),
        ({"0.0": torch.zeros(1, 6, 1, 9, 9)}, "expected one of windows"),
        (None, "got none of some"),
    ],
)
def test_invalid_streams_are_rejected(codec: WanCodec, change: dict[str, torch.Tensor] | None, message: str) -> None:
    _, stream = codec.decode_next(noise(1, 6, 1, 2, 3))
    tensors = {} if change is None else stream.tensors() | change
    with pytest.raises(ValueError, match=message):
        codec.stream(tensors, (2, 3))


def test_streams_of_other_latents_are_rejected(codec: WanCodec) -> None:
    latents = noise(1, 6, 1, 2, 3)
    _, state = codec.decode_next(latents)
    for other in (noise(1, 6, 1, 3, 3), noise(2, 6, 1, 2, 3)):
        with pytest.raises(ValueError, match="stream: expected one of windows"):
            codec.decode_next(other, state)
    with pytest.raises(ValueError, match="stream: expected one of windows"):
        WanCodec(codec.vae, tile=(4, 4)).decode_next(noise(1, 6, 1, 6, 6), state)
    with pytest.raises(ValueError, match="latents: expected one latent frame, got 2"):
        codec.decode_next(noise(1, 6, 2, 2, 3), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale_factor_spatial": 8}, "vae: expected the stride of its layers"),
        ({"patch_size": None, "in_channels": 3, "out_channels": 3}, "vae: expected the stride of its layers"),
        ({"latents_mean": [0.0] * 5}, "vae: expected 6 latent means and deviations .* got 5 means and 6"),
    ],
)
def test_inconsistent_configs_are_rejected(change: dict[str, object], message: str) -> None:
    with torch.device("meta"):
        vae = AutoencoderKLWan(**(TOY | change))
    with pytest.raises(ValueError, match=message):
        WanCodec(vae)


def test_small_tiles_are_rejected(codec: WanCodec) -> None:
    with pytest.raises(ValueError, match="tile: expected height and width of at least 4 latent cells"):
        WanCodec(codec.vae, tile=(3, 8))


def test_published_folder_loads(published: Path, codec: WanCodec) -> None:
    loaded = load_codec(published)
    latents = noise(1, 6, 2, 2, 2)
    assert torch.equal(loaded.decode(latents), codec.decode(latents))
    assert not loaded.vae.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    half = load_codec(str(published), dtype="bfloat16", tile=(8, 8))
    assert half.vae.dtype == torch.bfloat16 and half.decode(latents).dtype == torch.float32
    torch.testing.assert_close(half.decode(latents), codec.decode(latents), atol=0.05, rtol=0)


def edit_config(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return edit


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: expected the configuration of an Autoencoder"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: expected the configuration"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json: expected the configuration"),
        (edit_config(_class_name="UNet2DModel"), "expected the class AutoencoderKLWan, got 'UNet2DModel'"),
        (edit_config(base_dim=16), "expected a folder that holds a whole AutoencoderKLWan"),
        (edit_config(base_dim="many"), "expected a folder that holds a whole AutoencoderKLWan"),
        (lambda folder: (folder / WEIGHTS).unlink(), "expected a folder that holds a whole AutoencoderKLWan"),
        (
            lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
            "expected a folder that holds a whole AutoencoderKLWan",
        ),
        (edit_weights(lambda tensors: tensors.pop("quant_conv.bias")), r"missing quant_conv.bias \(1 in all\)"),
        (edit_weights(lambda tensors: tensors.update(stranger=torch.zeros(2))), "unexpected stranger"),
        (edit_config(latents_mean=[0.0] * 5), "expected 6 latent means and deviations"),
    ],
)
def test_broken_folders_are_rejected_in_one_line(
    published: Path, tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "vae"
    shutil.copytree(published, folder)
    break_it(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load_codec(folder)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_unknown_dtype_are_rejected(tmp_path: Path, published: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vae: expected a folder .*mirage download wan5b"):
        load_codec(tmp_path / "vae")
    with pytest.raises(ValueError, match="dtype: expected one of .* got 'int8'"):
        load_codec(published, dtype="int8")


def test_published_config_has_the_published_size() -> None:
    """The codec of Wan2.2-TI2V-5B has 704.7 million parameters."""
    with torch.device("meta"):
        codec = WanCodec(AutoencoderKLWan(**published_config()))
        latents = torch.zeros(1, 48, 1, 44, 80)
        frames, state = codec.decode_next(latents)
        later, state = codec.decode_next(latents, state)
    assert sum(parameter.numel() for parameter in codec.vae.parameters()) == 704_688_668
    assert (codec.channels, codec.stride) == (48, (4, 16, 16))
    assert frames.shape == (1, 3, 1, 704, 1280) and later.shape == (1, 3, 4, 704, 1280)
