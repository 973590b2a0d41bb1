"""The benchmark of the real backbone: that it can tell right from wrong."""

import pytest
import torch
from diffusers import WanTransformer3DModel

from mirage_sim.build import compose
from mirage_sim.evaluation.benchmarks import backbone
from mirage_sim.models.wan import branch, published


def test_marks() -> None:
    marks = backbone.bench_backbone(compose("bench", ["bench=backbone"]))["marks"]
    assert marks.pop("toy_stage1_loss_drop") > 0.2
    assert marks.pop("resume_identical") is True
    assert marks == {"params_b": 4.9998, "side_branch_b": 2.6071, "keys_unmatched": 0, "zero_branch_max_diff": 0.0}


def test_the_codec_is_measured_if_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "vae_marks", lambda: {"vae": 1.0})  # the real one takes half an hour
    monkeypatch.setattr(backbone, "stage1_loss_drop", lambda: 0.0)  # and the test before has trained already
    monkeypatch.setattr(backbone, "resume_identical", lambda: True)
    marks = backbone.bench_backbone(compose("bench", ["bench=backbone", "vae=true"]))["marks"]
    assert marks["vae"] == 1.0 and marks["keys_unmatched"] == 0


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
