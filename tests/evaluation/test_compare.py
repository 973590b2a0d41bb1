"""Paired differences of two results."""

import json
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest

from mirage_sim import cli
from mirage_sim.evaluation.summary import compare


@pytest.fixture
def pair(evaluated, tmp_path: Path) -> tuple[Path, Path]:
    """A result, and one in which the latent memory is better by a known amount on each walk."""
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    copyfile(evaluated[0] / "fidelity.json", a)
    content = json.loads(a.read_text())
    for i, row in enumerate(content["per_walk"]):
        row["latent_memory"]["psnr_whole_16"] += 1.0 + i
        row["latent_memory"]["energy_16"] *= 2.0
    b.write_text(json.dumps(content))
    return a, b


def changed(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_compare_of_a_result_with_itself_is_zero(pair):
    result = compare(pair[0], pair[0])
    assert result["marks"].pop("walks") == 4 and result["marks"].pop("circuits") == 2
    assert set(result["marks"].values()) == {0.0}
    assert {"psnr_16", "revisit_ab_no_memory", "sharpness_b", "unseen_env_drop_lo"} <= set(result["marks"])


def test_interval_agrees_with_a_bootstrap_of_differences(pair):
    result = compare(*pair)
    metrics = result["marks"]
    differences = np.array([1.0, 2.0, 3.0, 4.0])
    draws = np.random.default_rng(7).choice(differences, (50_000, 4)).mean(1)
    assert metrics["psnr_16"] == pytest.approx(2.5, abs=1e-3)
    assert metrics["psnr_16_lo"] == pytest.approx(np.percentile(draws, 2.5), abs=0.06)
    assert metrics["psnr_16_hi"] == pytest.approx(np.percentile(draws, 97.5), abs=0.06)
    for name in ("gain_16_first_frame", "gain_16_no_memory"):
        assert [metrics[name + end] for end in ("", "_lo", "_hi")] == [
            metrics["psnr_16" + end] for end in ("", "_lo", "_hi")
        ]
    assert metrics["unseen_env_drop"] == pytest.approx(2.0 - 4.0, abs=1e-3)
    assert metrics["psnr_16_no_memory"] == metrics["psnr_1"] == 0.0
    figure = result["figures"]["latent_memory/psnr_whole_16"]
    assert figure["b"] - figure["a"] == pytest.approx(figure["difference"], abs=2e-4) and figure["count"] == 4
    assert result["figures"]["latent_memory/ssim_new_8"]["difference"] == 0.0
    assert result["a"]["path"] == str(pair[0])


def test_compare_resamples_both_ratios_together(pair):
    metrics = compare(*pair)["marks"]
    before = json.loads(pair[0].read_text())["marks"]
    for end in ("", "_lo", "_hi"):  # twice the energy on every walk adds the ratio itself in each draw
        assert metrics[f"sharpness_16{end}"] == pytest.approx(before[f"sharpness_16{end}"], rel=0.02, abs=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["per_walk"].pop(),
        lambda content: content["per_walk"][1].update(seed=77),
        lambda content: content["per_circuit"].clear(),
        lambda content: content.update(manifest="0" * 64),
        lambda content: content.update(protocol=2),
    ],
)
def test_compare_rejects_results_on_different_walks(pair, change):
    changed(pair[1], change)
    with pytest.raises(ValueError, match="^only runs on the same walks .*a.json is of .*4 walks.*; .*b.json is of "):
        compare(*pair)


def test_compare_rejects_results_without_common_variant(pair):
    def rename(content: dict[str, Any]) -> None:
        for row in (*content["per_walk"], *content["per_circuit"]):
            for name in ("latent_memory", "no_memory", "rgb_memory", "true_depth", "first_frame"):
                if name in row:
                    row[f"other_{name}"] = row.pop(name)

    changed(pair[1], rename)
    with pytest.raises(ValueError, match="expected a variant that both have driven"):
        compare(*pair)


def test_compare_command_takes_two_files(pair, capsys: pytest.CaptureFixture[str]):
    a, b = map(str, pair)
    assert cli.main(["eval", "compare", a, b, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["marks"]["psnr_16"] == pytest.approx(2.5, abs=1e-3)
    assert cli.main(["eval", "compare", a, b]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("psnr_16 "))
    assert "(" in line and " to " in line
    for words, named in (
        ([a], "second: expected a value, got none"),
        ([a, "/nowhere.json"], "/nowhere.json: expected"),
    ):
        assert cli.main(["eval", "compare", *words]) == 2
        assert named in capsys.readouterr().err
