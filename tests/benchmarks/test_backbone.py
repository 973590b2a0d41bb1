"""``mirage bench backbone`` reports errors, and its expected values for the code as it is."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from benchmarks import backbone
from mirage_sim.build import compose
from mirage_sim.models.wan import branch, published, toy_checkpoint
from mirage_sim.models.wan.codec import WanCodec


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_expected_metrics_without_codec() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    pytest.importorskip("peft")
    metrics = backbone.bench_backbone(compose("bench backbone", ["vae=null"]))["marks"]
    assert metrics.pop("toy_stage1_loss_drop") > 0.2
    assert metrics.pop("resume_identical") is True
    sizes = {"params_b": 4.9998, "side_branch_b": 2.6071}
    assert metrics == sizes | {"keys_unmatched": 0, "zero_branch_max_diff": 0.0, "toy_chunks": 5}


def test_vae_setting_chooses_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"toy_chunks": 5, "stage1_loss_drop": 0.3, "resume_identical": True}.items():
        monkeypatch.setattr(backbone, name, lambda value=value: value)
    monkeypatch.setattr(backbone, "codec_cost", lambda decode: {"vae": decode})  # the real one takes minutes
    for what in ("encode", "decode"):
        metrics = backbone.bench_backbone(compose("bench backbone", [f"vae={what}"]))["marks"]
        assert metrics["vae"] is (what == "decode")
    with pytest.raises(ValueError, match="vae: expected one of \\['encode', 'decode'\\] or null, got True"):
        backbone.bench_backbone(compose("bench backbone", ["vae=true"]))


def test_codec_cost_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VAE_SIZE": (64, 96), "TILE": (4, 4), "published_config": lambda: toy_checkpoint.VAE}.items():
        monkeypatch.setattr(backbone, name, value)
    metrics = backbone.codec_cost(decode=True)
    assert set(metrics) == {f"vae_5f_64x96_{metric}" for metric in ("encode_s", "decode_s", "peak_gib")} | {
        "vae_stream_gib"
    }
    assert metrics["vae_5f_64x96_encode_s"] > 0 and metrics["vae_5f_64x96_decode_s"] > 0
    assert 0.05 < metrics["vae_5f_64x96_peak_gib"] < 4
    assert "vae_5f_64x96_decode_s" not in backbone.codec_cost()


def test_stream_bytes_are_those_of_a_real_stream() -> None:
    codec = WanCodec(AutoencoderKLWan(**toy_checkpoint.VAE).eval())
    stream = None
    for latent in torch.zeros(3, 1, toy_checkpoint.CHANNELS, 1, 4, 6):
        _, stream = codec.decode_next(latent, stream)
    assert backbone.stream_bytes(toy_checkpoint.VAE, (64, 96)) == stream.nbytes


@pytest.mark.parametrize(
    ("part", "change", "faults"),
    [
        ("backbone", lambda names: names | {"stranger": (1,)}, 1),
        ("branch", lambda names: {name: shape for name, shape in names.items() if "before_proj" not in name}, 2),
        ("branch", lambda names: names | {"vace_patch_embedding.bias": (1,)}, 2),
        ("branch", lambda names: names | {"vace_blocks.0.attn1.to_q.weight": (3072, 3072)}, 1),
        ("lora", lambda names: names | {"blocks.30.self_attn.q": (3072, 3072)}, 1),
    ],
)
def test_unmatched_names_are_counted(monkeypatch: pytest.MonkeyPatch, part: str, change, faults: int) -> None:
    with torch.device("meta"):
        network = WanTransformer3DModel(**published.config())
    beside = branch.MemoryBranch.beside(network)
    shapes = published.shapes
    monkeypatch.setattr(published, "shapes", lambda name: change(shapes(name)) if name == part else shapes(name))
    assert backbone.keys_unmatched(network, beside) == faults


def test_nonzero_fresh_branch_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = branch.HintBlock.reset_projections

    def reset_to_nonzero(block: branch.HintBlock) -> None:
        reset(block)
        block.proj_out.reset_parameters()

    monkeypatch.setattr(branch.HintBlock, "reset_projections", reset_to_nonzero)
    assert backbone.fresh_branch_difference() > 1e-3
