"""``benchmarks/gpu/run.sh`` without a GPU: at toy size, and with parts that hang or crash."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
PARTS = ("install", "machine", "exactness", "speed", "backbone", "train")


def run(out: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    """Run run.sh, and return results.json."""
    command = ["bash", str(FOLDER / "run.sh"), str(out), *arguments]
    done = subprocess.run(
        command, env=os.environ | {"PYTHON": sys.executable} | variables, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "results.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of parts that report one value and succeed."""
    folder = tmp_path / "parts"
    folder.mkdir()
    shutil.copy(FOLDER / "report.py", folder)
    for name in PARTS:
        (folder / f"{name}.py").write_text(
            f"from report import Part\npart = Part({name!r}, None)\npart.measure('value', lambda: 1)\n"
        )
    return folder


@pytest.mark.slow
def test_hanging_and_crashing_parts_do_not_stop_others(parts: Path, tmp_path: Path):
    more = {
        "exactness": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(99)\n",
        "speed": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        "backbone": "part.measure('impossible', lambda: 1 / 0)\npart.end()\n",
    }
    for name, lines in more.items():
        with (parts / f"{name}.py").open("a") as file:
            file.write(lines)
    results = run(tmp_path / "out", "45s", PARTS=str(parts))
    assert {name: results[name]["status"] for name in PARTS} == {
        "install": "ok",
        "machine": "ok",
        "exactness": "timeout",
        "speed": "failed",
        "backbone": "failed",
        "train": "ok",
    }
    assert all(results[name]["results"]["value"] == 1 for name in PARTS)  # results from before they ended
    assert "139" in results["speed"]["reason"]
    assert "impossible" in results["backbone"]["reason"]
    assert results["backbone"]["missing"]["impossible"] == "ZeroDivisionError: division by zero"
    assert results["run"]["status"] == "finished"


def test_parts_are_skipped_when_the_budget_is_spent(parts: Path, tmp_path: Path):
    results = run(tmp_path / "out", "11s", PARTS=str(parts))
    assert {results[name]["status"] for name in PARTS} == {"skipped"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with one wheel, next to a copy of its installer."""
    for name in ("report.py", "install.py"):
        shutil.copy(FOLDER / name, tmp_path)
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    wheel = folder / "wheels" / "mirage_probe-1.0-py3-none-any.whl"
    about = "mirage_probe-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("mirage_probe.py", "FOUND = True\n")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: mirage-probe\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    files = {f"wheels/{wheel.name}": {"bytes": wheel.stat().st_size, "sha256": digest}}
    (folder / "manifest.json").write_text(json.dumps({"commit": "none", "files": files}))
    return folder


def install(bundle: Path) -> "subprocess.CompletedProcess[str]":
    place = bundle.parent
    options = ["--out", place, "--work", place, "--seconds", "60", "--device", "cpu"]
    return subprocess.run([sys.executable, place / "install.py", *options], capture_output=True, text=True)


def test_missing_packages_are_installed_from_the_bundle(bundle: Path):
    done = install(bundle)
    assert done.returncode == 0, done.stderr
    assert (bundle.parent / "site" / "mirage_probe.py").read_text() == "FOUND = True\n"


def test_damaged_bundle_is_rejected(bundle: Path):
    (wheel,) = (bundle / "wheels").iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-1])
    done = install(bundle)
    assert done.returncode == 1 and done.stderr.startswith(f"wheels/{wheel.name}: differs from its hash")
    assert not (bundle.parent / "site").exists()


@pytest.mark.parametrize("arguments", [["out", "soon"], ["out", "1m", "more"], ["--fast"], ["out", "0"]])
def test_wrong_arguments_are_rejected(arguments: list[str], tmp_path: Path):
    done = subprocess.run(["bash", FOLDER / "run.sh", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: run.sh")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_part_succeeds_at_toy_size_on_the_cpu(tmp_path: Path):
    pytest.importorskip("accelerate")
    results = run(tmp_path / "out", "10m", "--device", "cpu", "--toy")
    assert {name: (results[name]["status"], results[name]["reason"]) for name in PARTS} == dict.fromkeys(
        PARTS, ("ok", None)
    )
    assert results["exactness"]["results"]["one_step"]["winners_identical"] == 1.0  # of the CPU with itself
    assert results["exactness"]["results"]["batch"]["repeats_bit_for_bit"] is True
    assert results["speed"]["results"]["environment_1_cpu"]["steps_per_s"] > 0
    assert results["backbone"]["results"]["latent_memory"]["points"] > 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *(f"{name}.safetensors" for name in ("codec", "depth", "denoiser")),
        "results.json",
        "log.txt",
    }
