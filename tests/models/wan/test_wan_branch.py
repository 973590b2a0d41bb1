import pytest
import torch
from diffusers import WanTransformer3DModel
from support.toy_backbone import CHANNELS, randn, toy_backbone

from mirage_sim.models.wan import published
from mirage_sim.models.wan.branch import MemoryBranch, in_precision


@pytest.fixture(scope="module")
def backbone() -> WanTransformer3DModel:
    return toy_backbone()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_fresh_blocks_copy_the_backbones(backbone: WanTransformer3DModel, every: int) -> None:
    branch = MemoryBranch.beside(backbone, every)
    assert branch.config == MemoryBranch.config_for(backbone, every)
    assert len(branch.vace_blocks) == len(range(0, 4, every))
    for copy, original in zip(branch.vace_blocks, backbone.blocks[::every], strict=True):
        state = copy.state_dict()
        for name, tensor in original.state_dict().items():
            assert torch.equal(state[name], tensor)
            assert state[name].data_ptr() != tensor.data_ptr(), "training the branch would change the backbone"
        assert set(state) - set(original.state_dict()) == {
            *(f"proj_out.{part}" for part in ("weight", "bias")),
            *(f"proj_in.{part}" for part in ("weight", "bias") if copy is branch.vace_blocks[0]),
        }
    assert all(torch.isfinite(tensor).all() for tensor in branch.state_dict().values())


def test_fresh_hints_are_zero_and_trainable(backbone: WanTransformer3DModel) -> None:
    branch = MemoryBranch.beside(backbone)
    text, rotary = randn(1, 5, 32), toy_rotary(backbone)
    modulation, tokens = randn(1, 12, 6, 32, seed=1), randn(1, 12, 32, seed=2)
    latents = randn(1, 2 * CHANNELS, 2, 4, 6, seed=3)
    control = branch.enter(latents, tokens)
    for layer in (0, 2):
        hint, control = branch.hint(layer, control, text, modulation, rotary)
        assert hint.shape == tokens.shape and not hint.any() and control.abs().min() > 0
        hint.sum().backward(retain_graph=True)
        assert branch.vace_blocks[layer // 2].proj_out.weight.grad.abs().max() > 0
    other = branch.enter(latents + 1, tokens)
    assert (other - branch.enter(latents, tokens)).abs().max() > 1e-3, "the read-out is not looked at"


def toy_rotary(backbone: WanTransformer3DModel) -> tuple[torch.Tensor, torch.Tensor]:
    cosine, sine = backbone.rope(torch.empty(1, CHANNELS, 2, 4, 6))
    return cosine, sine


def test_precision_equals_the_backbones() -> None:
    backbone = in_precision(toy_backbone(), torch.bfloat16)
    branch = MemoryBranch.beside(backbone)
    theirs = {name: tensor.dtype for name, tensor in backbone.named_parameters()}
    for name, tensor in branch.named_parameters():
        part = name.partition(".")[2].partition(".")[2]
        expected = theirs.get(f"blocks.0.{part}", torch.bfloat16)
        assert tensor.dtype == expected, name
    assert branch.vace_blocks[0].scale_shift_table.dtype == torch.float32
    assert branch.vace_blocks[0].attn1.to_q.weight.dtype == torch.bfloat16


def test_unmerged_adapters_are_rejected() -> None:
    backbone = toy_backbone()
    backbone.blocks[2].attn1.to_q.register_parameter("lora_A", torch.nn.Parameter(torch.zeros(2, 32)))
    with pytest.raises(ValueError, match="backbone: expected blocks without adapters, got 'attn1.to_q.lora_A'"):
        MemoryBranch.beside(backbone)


def test_full_size_has_published_shapes() -> None:
    with torch.device("meta"):
        backbone = WanTransformer3DModel(**published.config())
    branch = MemoryBranch.beside(backbone)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 4_999_787_712
    assert sum(parameter.numel() for parameter in branch.parameters()) == 2_607_077_376
    assert len(branch.vace_blocks) == 15 and branch.config["in_channels"] == 96
    with torch.device("meta"):
        assert MemoryBranch().config == branch.config
