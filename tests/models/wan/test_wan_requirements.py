import re
import sys
from pathlib import Path

import pytest
import torch

from mirage_sim.models.wan import requirements
from mirage_sim.models.wan.requirements import Machine, Setting, missing_requirements, require_device

GOOD = Machine("a large GPU", 40.0, 64.0)


@pytest.fixture
def everything_else(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine on which weights and libraries are installed."""
    monkeypatch.setattr(requirements.download, "faults", lambda folder: [])
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: sys)
    return monkeypatch


def test_sufficient_machine_meets_all_requirements(everything_else: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert missing_requirements(GOOD, tmp_path, Setting()) == []


@pytest.mark.parametrize(
    ("here", "setting", "problem"),
    [
        (Machine("", 0.0, 64.0), Setting(), "no GPU: expected one with CUDA"),
        (Machine("small", 10.5, 64.0), Setting(), "10.5 GiB free on the GPU are too few for weights of 10.6 GiB"),
        (
            Machine("large", 40.0, 10.0),
            Setting(),
            "10.0 GiB of free memory are too few to load the weights, which takes 10.6 GiB",
        ),
        (Machine("middling", 15.0, 64.0), Setting(branch=True), "15.0 GiB free on the GPU are too few .* 15.5 GiB"),
        (Machine("middling", 15.0, 64.0), Setting(dtype="float32"), "15.0 GiB free on the GPU are too few .* 19.9 GiB"),
        (Machine("small", 6.0, 64.0), Setting(codec_dtype="float32", quantize=True), "6.0 GiB free .* of 7.3 GiB"),
        (Machine("small", 2.0, 15.0), Setting(offload=True), "15.0 GiB of free memory are too few .* 19.9 GiB"),
        (Machine("", 0.0, 15.0), Setting("cpu"), "15.0 GiB of free memory are too few .* 21.2 GiB"),
    ],
)
def test_insufficient_memory_is_reported(
    here: Machine, setting: Setting, problem: str, everything_else: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (found,) = missing_requirements(here, tmp_path, setting)
    assert re.match(problem, found), found


@pytest.mark.parametrize(
    "setting", [Setting(offload=True), Setting(quantize=True), Setting("cpu"), Setting("cuda:0", "float16")]
)
def test_exactly_sufficient_memory_is_accepted(
    setting: Setting, everything_else: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu, ram = setting.gib()
    assert missing_requirements(Machine("just so", gpu, ram), tmp_path, setting) == []


def test_require_device_rejects_insufficient_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="world: expected a machine that can run wan5b on cuda: .*: mirage download"):
        require_device(folder=tmp_path / "nowhere")
    monkeypatch.setattr(requirements.download, "faults", lambda folder: [])
    monkeypatch.setattr(requirements, "machine", lambda: Machine("", 0.0, 1.0))
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: sys)
    with pytest.raises(
        ValueError, match=r"on cuda: no GPU: .* \(2 requirements are not met, see mirage doctor\)"
    ) as caught:
        require_device(folder=tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(requirements, "machine", lambda: GOOD)
    assert require_device("cuda:0", tmp_path) == "cuda:0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int4"}, "dtype: expected one of .*, got 'int4'"),
        ({"codec_dtype": None}, "codec_dtype: expected one of .*, got None"),
        ({"device": "toaster"}, "device: expected one that torch knows, got 'toaster'"),
    ],
)
def test_unknown_settings_are_rejected(arguments: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        require_device(folder=tmp_path, **arguments)


def test_machine_reports_memory() -> None:
    assert 0 < requirements.machine().ram_gib < 2**14


def test_parameter_counts_equal_those_of_the_classes() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {**requirements.UMT5_XXL}
    config = transformers.UMT5Config(
        num_layers=sizes.pop("layers"),
        num_heads=sizes.pop("heads"),
        relative_attention_num_buckets=sizes.pop("buckets"),
        **sizes,
    )
    with torch.device("meta"):
        model = transformers.UMT5EncoderModel(config)
    text = sum(parameter.numel() for parameter in model.parameters())
    found = requirements.parameters()
    assert found["text encoder"] == requirements.umt5_parameters(**requirements.UMT5_XXL) == text
    assert found["backbone"] == pytest.approx(4.9998e9, rel=1e-4)
    assert found["side branch"] == pytest.approx(2.607e9, rel=1e-3)
