"""``mirage eval report``."""

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from shutil import copytree

import pytest
from PIL import Image

from mirage_sim import cli
from mirage_sim.evaluation.report import report
from mirage_sim.evaluation.runner import evaluate

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects elements with their attributes, and checks that every element is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def folder(evaluated, tmp_path: Path) -> Path:
    return Path(copytree(evaluated[0], tmp_path / "output"))


def test_page_is_complete_and_self_contained(folder: Path):
    result = report(folder)
    text = Path(result["page"]).read_text()
    assert result["bytes"] == len(text.encode()) < 10_000_000
    saved = json.loads((folder / "fidelity.json").read_text())
    for name, value in saved["marks"].items():
        stem = re.sub("_(lo|hi)$", "", name)
        assert f"<code>{stem}</code>" in text and f">{value}<" in text, name
    for fact in ("cpu", "commit", "model", "torch"):
        assert saved[fact] in text
    page = Page(text)
    assert not page.open
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.found}
    sources = [attributes["src"] for _, attributes in page.found if "src" in attributes]
    assert len(sources) == 4 + 6 + 2  # plots, contact sheets, videos
    for source in sources:
        kind, content = re.fullmatch("data:([a-z0-9/]+);base64,(.*)", source).groups()
        if kind.startswith("image"):
            image = Image.open(io.BytesIO(base64.b64decode(content)))
            image.verify()
            assert image.size[0] >= 300
        else:
            assert kind == "video/mp4" and base64.b64decode(content)[4:8] == b"ftyp"
    assert all(attributes["alt"] for tag, attributes in page.found if tag == "img")


def test_page_warns_of_blur(folder: Path):
    saved = json.loads((folder / "fidelity.json").read_text())
    for value, expected in ((0.1, True), (1.0, False)):
        saved["marks"]["sharpness_b"] = value
        (folder / "fidelity.json").write_text(json.dumps(saved))
        text = Path(report(folder)["page"]).read_text()
        assert ("revisit_ab does not count" in text) is expected


def test_page_of_both_commands_and_of_circuits_alone(folder: Path, model, toy_truth):
    evaluate("revisit", {"output": str(folder)}, model)
    both = Path(report(folder)["page"]).read_text()
    assert "<h2>mirage eval fidelity</h2>" in both and "<h2>mirage eval revisit</h2>" in both
    (folder / "fidelity.json").unlink()
    alone = Path(report(folder)["page"]).read_text()
    assert "<h2>mirage eval fidelity</h2>" not in alone and "<code>revisit_a</code>" in alone
    assert not Page(alone).open


def test_values_from_files_are_escaped(folder: Path):
    saved = json.loads((folder / "fidelity.json").read_text())
    saved["commit"] = "<script>alert(1)</script>"
    (folder / "fidelity.json").write_text(json.dumps(saved))
    assert "<script" not in Path(report(folder)["page"]).read_text()


def test_folder_without_results_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match="expected a folder with fidelity.json or revisit.json"):
        report(tmp_path)
    (tmp_path / "fidelity.json").write_text("{")
    with pytest.raises(ValueError, match="fidelity.json: expected the JSON that mirage eval"):
        report(tmp_path)
    assert cli.main(["eval", "report"]) == 2
    assert "folder: expected a value, got none" in capsys.readouterr().err


def test_report_command_prints_the_path(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["eval", "report", str(folder)]) == 0
    assert f"page: {folder / 'report.html'}" in capsys.readouterr().out


def test_missing_matplotlib_names_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"mirage_sim\[report\]"):
        report(folder)
    assert not (folder / "report.html").exists()


def test_page_without_the_variant_under_test(folder: Path):
    saved = json.loads((folder / "fidelity.json").read_text())
    for clips in ("per_walk", "per_circuit"):
        for row in saved[clips]:
            assert row.pop("latent_memory")
    (folder / "fidelity.json").write_text(json.dumps(saved))
    assert report(folder)["bytes"] > 10_000
