"""All stages end to end, at their own sizes, for two steps each."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mirage_sim.build import compose
from mirage_sim.models import MiniCodec, MiniDenoiser, MiniDepth, load_model
from mirage_sim.settings import TrainSettings
from mirage_sim.training import train


def config(clips: Path, output: Path, name: str) -> TrainSettings:
    quick = ["stage.steps=2", "stage.learning_rate=0.1", "stage.batch=3"]
    settings: TrainSettings = compose("train", [f"stage={name}", f"clips={clips}", f"output={output}", *quick])
    return settings


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    for name in ("codec", "depth", "denoiser"):
        if name == "denoiser":
            (output / "denoiser.safetensors").rename(output / "aligner-only.safetensors")
            (output / "denoiser.safetensors").write_bytes((output / "aligner-only.safetensors").read_bytes())
        train(config(clips, output, name))
    return output


def test_stages_leave_weights_that_load(trained: Path):
    for name, cls in (("codec", MiniCodec), ("denoiser", MiniDenoiser), ("depth", MiniDepth)):
        model = load_model(trained / f"{name}.safetensors")
        assert type(model) is cls
        assert all(parameter.isfinite().all() for parameter in model.parameters()), name
        assert (trained / name / "state.safetensors").exists()
    assert not [path for path in trained.rglob("*") if "partial" in path.name]


def test_stages_train_what_they_should(trained: Path):
    codec = load_model(trained / "codec.safetensors")
    assert codec.encoder[-1].weight.any() and codec.decoder[-1].weight.any()  # they start at zero
    assert load_model(trained / "depth.safetensors").conv_out.weight.any()
    first, second = (load_model(trained / f"{name}.safetensors") for name in ("aligner-only", "denoiser"))
    assert first.aligner.correct.weight.any() and not first.trunk.conv_out.weight.any()
    assert second.trunk.conv_out.weight.any()
    # the second stage starts from the aligner of the first
    fresh = MiniDenoiser().aligner.encode[0].weight
    found, start = second.aligner.encode[0].weight, first.aligner.encode[0].weight
    assert (found - start).abs().max() < 0.01 < (found - fresh).abs().max()


def test_the_same_seed_trains_the_same_and_a_finished_stage_is_kept(trained: Path, clips: Path, tmp_path: Path):
    (tmp_path / "codec.safetensors").write_bytes((trained / "codec.safetensors").read_bytes())
    train(config(clips, tmp_path, "depth"))
    expected = load_model(trained / "depth.safetensors").state_dict()
    for _ in range(2):
        found = load_model(tmp_path / "depth.safetensors").state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        (tmp_path / "depth.safetensors").unlink()
        train(replace(config(clips, tmp_path, "depth"), seed=1))  # finished: nothing left to train, exported again


def test_the_denoiser_needs_the_codec_stage(clips: Path, trained: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"codec\.safetensors: expected a weights file"):
        train(config(clips, tmp_path, "denoiser"))
    for name in ("codec", "denoiser"):
        (tmp_path / f"{name}.safetensors").write_bytes((trained / "depth.safetensors").read_bytes())
    with pytest.raises(ValueError, match="expected the MiniCodec that stage=codec leaves, got a MiniDepth"):
        train(config(clips, tmp_path, "denoiser"))
    assert not (tmp_path / "denoiser").exists()


def test_bad_configurations(clips: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"stage: expected one of \['branch', 'codec', .*\], got 'vision'"):
        config(clips, tmp_path, "vision")
    with pytest.raises(ValueError, match="expected recorded clips"):
        train(config(tmp_path, tmp_path, "depth"))
    assert not list(tmp_path.iterdir())
