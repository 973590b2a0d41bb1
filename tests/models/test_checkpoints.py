import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mirage_sim.models import MiniCodec, MiniDenoiser, MiniDepth, load_model, save_model

MODELS: dict[str, Callable[[], nn.Module]] = {
    "codec": lambda: MiniCodec(8, encoder_width=16, encoder_depth=1, decoder_width=16, decoder_depth=1),
    "denoiser": lambda: MiniDenoiser(8, widths=(16, 32), aligner_width=16, embedding=32),
    "depth": lambda: MiniDepth((16, 32)),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "codec.safetensors"
    save_model(MODELS["codec"](), path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_saved_model_loads_as_float16_weights(name: str, tmp_path: Path, awake):
    model = MODELS[name]().train()
    path = tmp_path / "new" / "folder" / "model.safetensors"
    save_model(awake(model).train(), path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    loaded = load_model(path)
    assert type(loaded) is type(model) and loaded.config == model.config
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    for key, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[key].half().float()), key
    with safe_open(path, framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}
        assert json.loads(file.metadata()["config"]) == model.config


def test_float32_weights_load_exactly(tmp_path: Path):
    model = MODELS["depth"]()
    save_model(model, tmp_path / "depth.safetensors", dtype=torch.float32)
    state = load_model(tmp_path / "depth.safetensors").state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_failed_save_leaves_the_old_file(saved: Path):
    other = MODELS["depth"]()
    save_model(other, saved)
    assert isinstance(load_model(saved), MiniDepth)
    before = saved.read_bytes()
    with pytest.raises(Exception, match=r".+"):
        save_model(MODELS["codec"]().to("meta"), saved)  # there are no values to store
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("path", [Path("nowhere/codec.safetensors"), Path("/nowhere/codec.safetensors")])
def test_missing_file_is_rejected(path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/codec\.safetensors: expected a weights file") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file_is_rejected(saved: Path, share: float):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    refused(saved, "expected a whole safetensors file")


def test_files_of_other_kinds_are_rejected(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    path.write_text("not weights at all, but long enough to hold a header length")
    refused(path, "expected a whole safetensors file")
    refused(tmp_path, "expected a whole safetensors file")  # a folder
    save_file({"a": torch.zeros(3)}, path)
    refused(path, r"expected weights of one of \['MiniCodec', 'MiniDenoiser', 'MiniDepth'\], got class ''")


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **metadata: str | None) -> None:
    with safe_open(path, framework="pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}
        merged = file.metadata() | metadata | {"sha256": None}
    save_file(found | (tensors or {}), path, {key: value for key, value in merged.items() if value is not None})


def test_flipped_bits_are_rejected(saved: Path):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    refused(saved, "expected the bytes that were written, got others: the file is damaged")


def test_weights_without_digest_load(saved: Path):
    expected = load_model(saved).state_dict()
    rewrite(saved)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in load_model(saved).state_dict().items())


def test_wrong_class_is_rejected(saved: Path):
    rewrite(saved, **{"class": "Conv2d"})
    refused(saved, "got class 'Conv2d'")
    rewrite(saved, **{"class": "MiniDepth"})
    refused(saved, "do not fit the MiniDepth")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    "config",
    [
        None,
        "{not json",
        "[8]",
        "7",
        '{"chanels": 8}',
        '{"channels": "many"}',
        '{"channels": 0}',
        '{"channels": -3}',
        '{"channels": 16}',
        '{"encoder_depth": 3}',
    ],
)
def test_misfit_config_is_rejected(saved: Path, config: str | None):
    rewrite(saved, config=config)
    refused(saved, "do not fit the MiniCodec")


@pytest.mark.parametrize("config", ['{"widths": [7, 32]}', '{"widths": [16, 8]}', '{"widths": []}', '{"widths": 3}'])
def test_misfit_widths_are_rejected(tmp_path: Path, config: str):
    path = tmp_path / "depth.safetensors"
    save_model(MODELS["depth"](), path)
    rewrite(path, config=config)
    refused(path, "do not fit the MiniDepth")


def test_shape_mismatch_and_extra_tensors_are_rejected(saved: Path):
    content = saved.read_bytes()
    rewrite(saved, {"analysis.bias": torch.zeros(9)})
    refused(saved, "do not fit the MiniCodec .* size mismatch for analysis.bias")
    saved.write_bytes(content)
    rewrite(saved, {"stranger": torch.zeros(9)})
    refused(saved, "do not fit the MiniCodec .* Unexpected key.* .stranger.")


def test_earlier_argument_name_detail_loads(tmp_path: Path):
    path, model = tmp_path / "denoiser.safetensors", MODELS["denoiser"]()
    save_model(model, path, dtype=torch.float32)
    config = {key: value for key, value in model.config.items() if key != "samples_per_cell"} | {"detail": 2}
    rewrite(path, config=json.dumps(config))
    loaded = load_model(path)
    assert loaded.config == model.config
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in loaded.state_dict().items())
