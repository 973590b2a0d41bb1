import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import runner
from mirage_sim import cli
from mirage_sim.build import compose
from mirage_sim.settings import BENCHMARKS


def test_table_has_metrics_and_reasons_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"retrieval": {"same": "true", "speedup_vs_sets": "at least 1e9", "ms": ""}, "absent": {"x": "true"}}
    monkeypatch.setattr(runner, "WANTED", wanted)
    run = runner.run_in_process
    monkeypatch.setattr(
        runner, "run_in_process", lambda name: run(name, *(["frames=2", "repeats=1"] if name == "retrieval" else []))
    )
    result = runner.bench_all(compose("bench all"))
    assert result["marks"]["retrieval.same"] is True and math.isfinite(result["marks"]["retrieval.ms"])
    assert list(result["missing"]) == ["absent"] and "got absent" in result["missing"]["absent"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result["table"].splitlines()]
    assert rows[0] == ["benchmark", "metric", "wanted", "measured", "met"] and set(rows[1]) == {"---"}
    assert rows[2] == ["retrieval", "same", "true", "true", "yes"]
    assert rows[3][:3] == ["retrieval", "speedup_vs_sets", "at least 1e9"] and rows[3][4] == "no"
    assert rows[4][0:3:2] == ["retrieval", ""] and rows[4][4] == ""
    assert rows[5][0] == "absent" and rows[5][3].startswith("skipped: ") and len(rows) == 6


@pytest.mark.parametrize(
    ("value", "wanted", "met"),
    [
        (True, "true", True),
        (1, "true", False),
        (20.0, "at least 20", True),
        (19.9, "at least 20", False),
        (0.2, "at most 0.2", True),
        (0.21, "at most 0.2", False),
        (math.nan, "at most 0.2", False),
        (7, "", None),
    ],
)
def test_value_meets_target(value: object, wanted: str, met: bool | None) -> None:
    assert runner.meets(value, wanted) is met


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_variant_of_the_command_has_a_function(name: str) -> None:
    module = importlib.import_module(runner.MODULES.get(name, f"benchmarks.{name}"))
    assert callable(getattr(module, f"bench_{name}"))


def test_unknown_benchmarks_are_rejected() -> None:
    assert set(runner.WANTED) <= set(BENCHMARKS)
    with pytest.raises(ValueError, match=r"^benchmarks: expected some of \['readout'.*got \['speed'\]"):
        runner.bench_all(compose("bench all", ["benchmarks=[readout,speed]"]))


def test_bench_needs_a_source_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mirage_sim.__file__", str(tmp_path / "mirage_sim" / "__init__.py"))
    assert cli.main(["bench", "retrieval"]) == 2
    assert "mirage bench: expected a source checkout" in capsys.readouterr().err


def test_work_counts_visited_elements() -> None:
    table = torch.rand(1000, 3)
    some = torch.arange(10)
    assert runner.work_of(lambda: table[:, 0].view(10, 100)) == 0, "a view"
    assert runner.work_of(lambda: table.sum()) == 3000
    assert runner.work_of(lambda: table[some]) == 30, "indexing counts entries"
    assert runner.work_of(lambda: table[:, 0].scatter_reduce_(0, some, torch.ones(10), "amin")) == 10 + 10
    assert runner.work_of(lambda: table.clone().add_(1)) == 6000


def test_calls_are_timed_in_turns() -> None:
    order: list[str] = []
    seconds = runner.side_by_side(2, lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["a", "b"] * 3
    assert all(0 < each < 1 for each in seconds)


def test_held_bytes_leave_out_shared_tensors() -> None:
    shared = torch.ones(100_000)
    arrays = runner.held_bytes(
        lambda: [np.zeros(25_000, np.float32), torch.zeros(50_000), shared[5:], torch.zeros(9)[:3]]
    )
    assert 300_000 <= arrays < 302_000
    assert runner.held_bytes(lambda: shared.view(10, -1)) < 2000
