from pathlib import Path

import pytest
import torch

from mirage_sim import cli
from mirage_sim.evaluation import doctor
from mirage_sim.settings import DoctorSettings


def test_doctor_lists_packages_worlds_and_steps_to_take(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["doctor", f"wan5b={tmp_path / 'nowhere'}"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["torch"] == torch.__version__
    assert lines["world=mini"].startswith("can run; weights, in GiB (computed): 0.0")
    assert lines["world=wan5b"].startswith("cannot run yet; weights, in GiB (computed): backbone 9.3, side branch 4.9")
    todo = [text for name, text in lines.items() if name.startswith("world=wan5b, to do")]
    assert any("mirage download wan5b" in text and "nowhere: no such folder" in text for text in todo)
    for module, install, _ in doctor.OPTIONAL:
        assert lines[module][0].isdigit() or lines[module].endswith(f"pip install {install}")


def test_doctor_names_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name))
    lines = doctor.doctor(DoctorSettings())
    assert lines["transformers"] == "missing (wan5b: prompts, depth, dynamic objects): pip install 'mirage_sim[wan]'"
    assert any(text.startswith("transformers missing: pip install") for text in lines.values())
