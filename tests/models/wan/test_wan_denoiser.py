from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from diffusers.hooks import apply_group_offloading
from support.toy_backbone import (
    CHANNELS,
    CONFIG,
    FRAMES,
    GRID,
    TOKENS,
    randn,
    toy_backbone,
    toy_branch,
    toy_codec,
    toy_conditioning,
    toy_view,
)
from torch import Tensor

from mirage_sim.models import MiniCodec
from mirage_sim.models.wan import published
from mirage_sim.models.wan.branch import MemoryBranch, in_precision
from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.protocols import Conditioning, MemoryView

X = randn(2, CHANNELS, FRAMES, *GRID, seed=11)
SIGMA = torch.tensor([[0.0, 0.3, 0.9], [0.5, 0.5, 1.0]])


@pytest.fixture(scope="module", autouse=True)
def nothing_is_learned() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def backbone() -> WanTransformer3DModel:
    return toy_backbone()


@pytest.fixture(scope="module")
def plain(backbone: WanTransformer3DModel) -> WanDenoiser:
    return WanDenoiser(backbone)


@pytest.fixture(scope="module")
def denoiser(backbone: WanTransformer3DModel) -> WanDenoiser:
    """A denoiser whose side branch has non-zero hints."""
    return WanDenoiser(backbone, toy_branch(backbone), toy_codec())


def velocity(denoiser: WanDenoiser, conditioning: Conditioning, x: Tensor = X, sigma: Tensor = SIGMA) -> Tensor:
    return denoiser.velocity(x, sigma, denoiser.condition(conditioning))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fresh_branch_keeps_diffusers_output_bit_identical(dtype: torch.dtype) -> None:
    backbone = in_precision(toy_backbone(), dtype)
    fresh = WanDenoiser(backbone, toy_branch(backbone, awake=False), toy_codec())
    conditioning = toy_conditioning()
    assert conditioning.text is not None
    timestep = (1000 * SIGMA).repeat_interleave(TOKENS, dim=1)
    (expected,) = backbone(X.to(dtype), timestep, conditioning.text.to(dtype), return_dict=False)
    assert torch.equal(velocity(fresh, conditioning), expected)
    assert expected.std() > 0.1


@pytest.mark.parametrize(("references", "preceding"), [(0, 2), (3, 0), (2, 1)])
def test_fresh_branch_changes_nothing_with_context(
    backbone: WanTransformer3DModel, plain: WanDenoiser, references: int, preceding: int
) -> None:
    fresh = WanDenoiser(backbone, toy_branch(backbone, awake=False), toy_codec())
    conditioning = toy_conditioning(references=references, preceding=preceding)
    with_context = velocity(fresh, conditioning)
    assert torch.equal(with_context, velocity(plain, conditioning))
    assert (with_context - velocity(plain, toy_conditioning())).abs().max() > 1e-2  # the context has an effect


def test_one_timestep_equals_diffusers_vace_transformer(denoiser: WanDenoiser) -> None:
    """Diffusers' transformer has the same parameters with the same names."""
    theirs = WanVACETransformer3DModel(**CONFIG, vace_layers=[0, 2], vace_in_channels=2 * CHANNELS).eval()
    assert denoiser.branch is not None
    theirs.load_state_dict(denoiser.backbone.state_dict() | denoiser.branch.state_dict())
    conditioning, sigma = toy_conditioning(), torch.tensor([0.4, 0.8])
    condition = denoiser.condition(conditioning)
    (expected,) = theirs(X, 1000 * sigma, conditioning.text, control_hidden_states=condition.control, return_dict=False)
    torch.testing.assert_close(denoiser.velocity(X, sigma[:, None].expand(-1, FRAMES), condition), expected)
    without = velocity(WanDenoiser(denoiser.backbone), conditioning, sigma=sigma[:, None].expand(-1, FRAMES))
    assert (without - expected).abs().max() > 1e-2


def test_branch_input_is_read_out_and_white_video(denoiser: WanDenoiser) -> None:
    conditioning = toy_conditioning(references=2, preceding=2)
    control = denoiser.condition(conditioning).control
    assert control.shape == (2, 2 * CHANNELS, FRAMES + 2, *GRID)
    assert torch.equal(control[:, :CHANNELS, :FRAMES], conditioning.view.latents)
    assert conditioning.preceding_readout is not None
    assert torch.equal(control[:, :CHANNELS, FRAMES:], conditioning.preceding_readout)
    white = toy_codec().encode(torch.ones(1, 3, FRAMES + 2, 4 * GRID[0], 4 * GRID[1]))
    torch.testing.assert_close(control[:, CHANNELS:], white.expand(2, -1, -1, -1, -1))
    unknown = denoiser.condition(replace(conditioning, preceding_readout=None)).control
    assert not unknown[:, :CHANNELS, FRAMES:].any()


def test_control_latent_is_encoded_once_per_shape(backbone: WanTransformer3DModel) -> None:
    class Counting(MiniCodec):
        encoded: list[tuple[int, ...]] = []

        def encode(self, video: Tensor) -> Tensor:
            self.encoded.append(tuple(video.shape))
            return super().encode(video)

    codec = Counting(CHANNELS, encoder_width=16, encoder_depth=1, decoder_width=16, decoder_depth=1)
    denoiser = WanDenoiser(backbone, toy_branch(backbone), codec)
    for batch, preceding in ((2, 0), (1, 0), (2, 2), (2, 0)):
        denoiser.condition(toy_conditioning(batch, preceding=preceding))
    assert codec.encoded == [(1, 3, 3, 16, 24), (1, 3, 5, 16, 24)]
    assert not any("codec" in name for name in denoiser.state_dict())


def watch(module: torch.nn.Module, seen: list[Any]) -> Any:
    return module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))


def test_tokens_are_ordered_and_known_frames_clean(denoiser: WanDenoiser) -> None:
    conditioning = toy_conditioning(references=2, preceding=1)
    latents: list[Any] = []
    times: list[Any] = []
    hooks = [
        watch(denoiser.backbone.patch_embedding, latents),
        watch(denoiser.backbone.condition_embedder, times),
    ]
    velocity(denoiser, conditioning)
    for hook in hooks:
        hook.remove()
    assert conditioning.references is not None
    assert torch.equal(latents[0][0], torch.cat([conditioning.references, X, conditioning.preceding], dim=2))
    expected = torch.nn.functional.pad(1000 * SIGMA, (2, 1)).repeat_interleave(TOKENS, dim=1)
    assert torch.equal(times[0][0].view(2, -1), expected)


def test_references_get_no_hint(denoiser: WanDenoiser, plain: WanDenoiser) -> None:
    conditioning = toy_conditioning(references=2, preceding=1)
    seen: list[Any] = []
    hook = watch(denoiser.backbone.blocks[1], seen)
    velocity(denoiser, conditioning)
    velocity(plain, conditioning)
    hook.remove()
    hinted, bare = seen[0][0], seen[1][0]
    assert torch.equal(hinted[:, : 2 * TOKENS], bare[:, : 2 * TOKENS])
    assert ((hinted - bare)[:, 2 * TOKENS :].abs().amax(-1) > 1e-3).all()


def test_positions_follow_the_published_layout(plain: WanDenoiser) -> None:
    """Compare with the definition: angles position / 10000^(2 i / d), each repeated once."""
    cosine, sine = plain.condition(toy_conditioning(references=2, preceding=1)).rotary
    places = [(time, row, column) for time in (-2, -1) for row in (2, 3) for column in (0, 1, 2)]
    places += [(time, row, column) for time in range(FRAMES + 1) for row in (0, 1) for column in (0, 1, 2)]
    widths = (8, 4, 4)  # a head of 16 channels, split among time, rows and columns
    angles = torch.tensor(
        [
            [
                at / 10000 ** (2 * (i // 2) / width)
                for at, width in zip(place, widths, strict=True)
                for i in range(width)
            ]
            for place in places
        ]
    )
    torch.testing.assert_close(cosine[0, :, 0], angles.cos())
    torch.testing.assert_close(sine[0, :, 0], angles.sin())


def test_worlds_of_a_batch_are_independent(denoiser: WanDenoiser) -> None:
    conditioning = toy_conditioning(references=1, preceding=1)
    both = velocity(denoiser, conditioning)
    fields = {name: getattr(conditioning, name) for name in ("preceding", "references", "preceding_readout", "text")}
    view = MemoryView(*(getattr(conditioning.view, name)[1:] for name in MemoryView.__dataclass_fields__))
    alone = replace(conditioning, view=view, **{name: value[1:] for name, value in fields.items()})
    torch.testing.assert_close(velocity(denoiser, alone, X[1:], SIGMA[1:]), both[1:])


def test_finer_read_out_is_resized_to_latent_grid(denoiser: WanDenoiser) -> None:
    fine = toy_view(2, size=(8, 12))
    condition = denoiser.condition(replace(toy_conditioning(), view=fine))
    coarse = fine.resize(GRID)
    assert torch.equal(condition.readout, coarse.latents) and torch.equal(condition.visible, coarse.visible)


def test_half_precision() -> None:
    backbone = in_precision(toy_backbone(), torch.bfloat16)
    denoiser = WanDenoiser(backbone, toy_branch(backbone), toy_codec())
    conditioning = toy_conditioning(references=1, preceding=1, first=True)
    got = velocity(denoiser, conditioning)
    assert got.dtype == torch.bfloat16
    full = toy_backbone()
    expected = velocity(WanDenoiser(full, toy_branch(full), toy_codec()), conditioning)
    assert (got.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_offloading_works_at_leaf_level(tmp_path: Path) -> None:
    """Offload to disk, which empties the weights, so that missing ones would fail."""
    conditioning = toy_conditioning(references=1, preceding=1)
    backbone = toy_backbone()
    denoiser = WanDenoiser(backbone, toy_branch(backbone), toy_codec())
    expected = velocity(denoiser, conditioning)
    by_hand = {"table": backbone.scale_shift_table, "cos": backbone.rope.freqs_cos, "sin": backbone.rope.freqs_sin}
    kept = {name: tensor.clone() for name, tensor in by_hand.items()}
    cpu = torch.device("cpu")
    apply_group_offloading(denoiser, cpu, cpu, offload_type="leaf_level", offload_to_disk_path=str(tmp_path))
    backbone.scale_shift_table.data, backbone.rope.freqs_cos.data, backbone.rope.freqs_sin.data = kept.values()
    assert not torch.equal(backbone.blocks[0].attn1.to_q.weight, toy_backbone().blocks[0].attn1.to_q.weight)
    assert torch.equal(velocity(denoiser, conditioning), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, r"text: expected \[2, any, 12\], got None"),
        ({"text": torch.zeros(2, 5, 7)}, r"text: expected \[2, any, 12\], got \[2, 5, 7\]"),
        ({"first": torch.zeros(2, CHANNELS, 2, *GRID)}, "first: expected"),
        ({"references": torch.zeros(1, CHANNELS, 2, *GRID)}, "references: expected"),
        ({"preceding": torch.zeros(2, 7, 1, *GRID)}, r"preceding: expected \[B, 8, P, h, w\]"),
        ({"preceding": torch.zeros(2, CHANNELS, 1, 4, 5)}, "preceding: expected .* w of 2, got"),
        ({"preceding_readout": torch.zeros(2, CHANNELS, 1, *GRID)}, "preceding_readout: expected"),
        ({"view": toy_view(1)}, "view.latents: expected"),
        ({"view": toy_view(2, size=(3, 6))}, "size: expected a multiple or a divisor"),
    ],
)
def test_misfit_is_rejected(denoiser: WanDenoiser, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoiser.condition(replace(toy_conditioning(), **change))


def test_mismatched_parts_are_rejected(backbone: WanTransformer3DModel) -> None:
    with pytest.raises(ValueError, match="backbone: expected one latent frame per token"):
        WanDenoiser(toy_backbone(in_channels=9))
    with pytest.raises(ValueError, match="backbone: .* image_dim 16"):
        WanDenoiser(toy_backbone(image_dim=16, added_kv_proj_dim=32))
    with pytest.raises(ValueError, match="branch: expected one made for this backbone"):
        WanDenoiser(backbone, toy_branch(toy_backbone(num_layers=2)), toy_codec())
    with pytest.raises(ValueError, match="codec: expected one of 8 channels beside a side branch, got None"):
        WanDenoiser(backbone, toy_branch(backbone))
    with pytest.raises(ValueError, match="codec: expected one of 8 channels beside a side branch, got 16"):
        WanDenoiser(backbone, toy_branch(backbone), MiniCodec())


def test_full_size_chunk_has_the_right_shape() -> None:
    """Check shapes on torch's meta device."""
    with torch.device("meta"):
        backbone = WanTransformer3DModel(**published.config())
        denoiser = WanDenoiser(backbone, MemoryBranch.beside(backbone), MiniCodec(48))
        view = {name: torch.empty(1, 9, 44, 80) for name in ("visible", "depth", "source", "log_scale")}
        conditioning = Conditioning(
            view=MemoryView(torch.empty(1, 48, 9, 44, 80), offset=torch.empty(1, 2, 9, 44, 80), **view),
            preceding=torch.empty(1, 48, 2, 44, 80),
            motion=torch.empty(1, 9, 6),
            camera=toy_conditioning().camera,
            references=torch.empty(1, 48, 4, 44, 80),
            text=torch.empty(1, 512, 4096),
        )
        x = torch.empty(1, 48, 9, 44, 80)
        condition = denoiser.condition(conditioning)
        made = denoiser.velocity(x, torch.empty(1, 9), condition)
    assert made.shape == x.shape and made.is_meta
    assert condition.control.shape == (1, 96, 11, 44, 80)
    assert condition.rotary[0].shape == (1, (4 + 9 + 2) * 22 * 40, 1, 128)
