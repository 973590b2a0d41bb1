"""The benchmark of the real backbone: that it can tell right from wrong."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from mirage_sim.build import compose
from mirage_sim.evaluation.benchmarks import backbone, vae
from mirage_sim.models.wan import branch, published, toy_checkpoint
from mirage_sim.models.wan.codec import WanCodec


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_marks() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    pytest.importorskip("peft")
    metrics = backbone.bench_backbone(vars(compose("bench backbone", ["vae=null"])))["marks"]
    assert metrics.pop("toy_stage1_loss_drop") > 0.2
    assert metrics.pop("resume_identical") is True
    sizes = {"params_b": 4.9998, "side_branch_b": 2.6071}
    assert metrics == sizes | {"keys_unmatched": 0, "zero_branch_max_diff": 0.0, "toy_chunks": 5}


def test_what_of_the_codec_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mark in {"toy_chunks": 5, "stage1_loss_drop": 0.3, "resume_identical": True}.items():
        monkeypatch.setattr(backbone, name, lambda mark=mark: mark)
    monkeypatch.setattr(backbone, "vae_marks", lambda decode: {"vae": decode})  # the real ones take very long
    for what in ("encode", "decode"):
        metrics = backbone.bench_backbone(vars(compose("bench backbone", [f"vae={what}"])))["marks"]
        assert metrics["vae"] is (what == "decode")
    with pytest.raises(ValueError, match="vae: expected one of \\['encode', 'decode'\\] or null, got True"):
        backbone.bench_backbone(vars(compose("bench backbone", ["vae=true"])))


def test_the_codec_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": (64, 96), "TILE": (4, 4), "published_config": lambda: toy_checkpoint.VAE}.items():
        monkeypatch.setattr(vae, name, value)
    metrics = vae.vae_marks(decode=True)
    assert set(metrics) == {f"vae_5f_64x96_{mark}" for mark in ("encode_s", "decode_s", "peak_gib")} | {
        "vae_stream_gib"
    }
    assert metrics["vae_5f_64x96_encode_s"] > 0 and metrics["vae_5f_64x96_decode_s"] > 0
    assert 0.05 < metrics["vae_5f_64x96_peak_gib"] < 4
    assert "vae_5f_64x96_decode_s" not in vae.vae_marks()


def test_what_a_stream_weighs_is_what_it_weighs() -> None:
    codec = WanCodec(AutoencoderKLWan(**toy_checkpoint.VAE).eval())
    stream = None
    for latent in torch.zeros(3, 1, toy_checkpoint.CHANNELS, 1, 4, 6):
        _, stream = codec.decode_next(latent, stream)
    assert vae.stream_bytes(toy_checkpoint.VAE, (64, 96)) == stream.nbytes


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
def test_names_without_a_partner_are_counted(monkeypatch: pytest.MonkeyPatch, part: str, change, faults: int) -> None:
    with torch.device("meta"):
        network = WanTransformer3DModel(**published.config())
    beside = branch.MemoryBranch.beside(network)
    right = published.shapes
    monkeypatch.setattr(published, "shapes", lambda asked: change(right(asked)) if asked == part else right(asked))
    assert backbone.keys_unmatched(network, beside) == faults


def test_a_branch_that_speaks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = branch.HintBlock.reset_projections

    def speaking(block: branch.HintBlock) -> None:
        silent(block)
        block.proj_out.reset_parameters()

    monkeypatch.setattr(branch.HintBlock, "reset_projections", speaking)
    assert backbone.fresh_branch_difference() > 1e-3
