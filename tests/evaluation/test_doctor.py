import sys
from pathlib import Path

import pytest
import torch

from mirage_sim import cli
from mirage_sim.evaluation import doctor
from mirage_sim.evaluation.doctor import Machine

GOOD = Machine("a large GPU", 40.0, 64.0)


def test_it_tells_what_is_there_and_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["doctor", f"wan5b={tmp_path / 'nowhere'}"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["torch"] == torch.__version__
    assert lines["world=mini"].startswith("can run; weights, in GiB (computed): 0.0")
    assert lines["world=wan5b"].startswith("cannot run yet; weights, in GiB (computed): backbone 9.3, side branch 4.9")
    todo = [text for name, text in lines.items() if name.startswith("world=wan5b, to do")]
    assert any("mirage download wan5b" in text and "nowhere: no such folder" in text for text in todo)
    for module, install, _ in doctor.OPTIONAL:
        assert lines[module][0].isdigit() or lines[module].endswith(f"pip install {install}")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name))
    lines = doctor.doctor({"wan5b": None})
    assert lines["transformers"] == "missing (wan5b: prompts; depth; what moves): pip install 'mirage_sim[wan]'"
    assert any(text.startswith("transformers missing: pip install") for text in lines.values())


def problems(here: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """On a machine that has everything else."""
    (tmp_path / "world").mkdir(exist_ok=True)
    (tmp_path / "world" / "wan5b.yaml").touch()
    monkeypatch.setattr(doctor, "CONFIGS", tmp_path)
    monkeypatch.setattr(doctor.download, "faults", lambda folder: [])
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: sys)
    return doctor.wan5b_problems(here, tmp_path, doctor.wan5b_gib())


def test_a_machine_with_everything_has_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert problems(GOOD, monkeypatch, tmp_path) == []


@pytest.mark.parametrize(
    ("here", "problem"),
    [
        (Machine("", 0.0, 64.0), "no GPU: it takes one with CUDA"),
        (Machine("a small GPU", 11.5, 64.0), "11.5 GiB free on the GPU are too few for backbone and codec"),
        (Machine("a large GPU", 40.0, 10.0), "10.0 GiB of memory free are too few to load the largest part, 10.6 GiB"),
    ],
)
def test_what_is_too_small_is_told(
    here: Machine, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (found,) = problems(here, monkeypatch, tmp_path)
    assert found.startswith(problem)


def test_this_machine_has_memory() -> None:
    assert 0 < doctor.machine().ram_gib < 2**14


def test_sizes_are_those_of_the_classes() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {**doctor.UMT5_XXL}
    config = transformers.UMT5Config(
        num_layers=sizes.pop("layers"),
        num_heads=sizes.pop("heads"),
        relative_attention_num_buckets=sizes.pop("buckets"),
        **sizes,
    )
    with torch.device("meta"):
        model = transformers.UMT5EncoderModel(config)
    assert doctor.umt5_parameters(**doctor.UMT5_XXL) == sum(parameter.numel() for parameter in model.parameters())
    found = doctor.wan5b_gib()
    assert found["backbone"] == pytest.approx(4.9998e9 * 2 / 2**30, rel=1e-4)
    assert found["side branch"] == pytest.approx(2.607e9 * 2 / 2**30, rel=1e-3)
