"""The stages of the mini world end to end at their real sizes, two steps each."""

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


def test_exported_weights_of_all_stages_load(trained: Path):
    for name, cls in (("codec", MiniCodec), ("denoiser", MiniDenoiser), ("depth", MiniDepth)):
        model = load_model(trained / f"{name}.safetensors")
        assert type(model) is cls
        assert all(parameter.isfinite().all() for parameter in model.parameters()), name
        assert (trained / name / "state.safetensors").exists()
    assert not [path for path in trained.rglob("*") if "partial" in path.name]


def test_stages_train_their_networks_and_no_others(trained: Path):
    codec = load_model(trained / "codec.safetensors")
    assert codec.encoder[-1].weight.any() and codec.decoder[-1].weight.any()  # they start at zero
    assert load_model(trained / "depth.safetensors").conv_out.weight.any()
    first, second = (load_model(trained / f"{name}.safetensors") for name in ("aligner-only", "denoiser"))
    assert first.aligner.correct.weight.any() and not first.trunk.conv_out.weight.any()
    assert second.trunk.conv_out.weight.any()
    # the denoiser stage starts from the aligner of the codec stage
    fresh = MiniDenoiser().aligner.encode[0].weight
    found, start = second.aligner.encode[0].weight, first.aligner.encode[0].weight
    assert (found - start).abs().max() < 0.01 < (found - fresh).abs().max()


def test_same_seed_gives_same_weights_also_when_finished(trained: Path, clips: Path, tmp_path: Path):
    (tmp_path / "codec.safetensors").write_bytes((trained / "codec.safetensors").read_bytes())
    train(config(clips, tmp_path, "depth"))
    expected = load_model(trained / "depth.safetensors").state_dict()
    for _ in range(2):
        found = load_model(tmp_path / "depth.safetensors").state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        (tmp_path / "depth.safetensors").unlink()
        train(replace(config(clips, tmp_path, "depth"), seed=1))  # finished: only exports the weights again


def test_denoiser_stage_needs_results_of_codec_stage(clips: Path, trained: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"codec\.safetensors: expected a weights file"):
        train(config(clips, tmp_path, "denoiser"))
    for name in ("codec", "denoiser"):
        (tmp_path / f"{name}.safetensors").write_bytes((trained / "depth.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"codec\.safetensors: expected a MiniCodec, got a MiniDepth"):
        train(config(clips, tmp_path, "denoiser"))
    assert not (tmp_path / "denoiser").exists()


def test_bad_configurations_are_rejected(clips: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"stage: expected one of \['branch', 'codec', .*\], got 'vision'"):
        config(clips, tmp_path, "vision")
    with pytest.raises(ValueError, match="expected recorded clips"):
        train(config(tmp_path, tmp_path, "depth"))
    assert not list(tmp_path.iterdir())
