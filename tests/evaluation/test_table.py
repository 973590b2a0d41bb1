import math

import pytest

from mirage_sim.build import compose
from mirage_sim.cli import BENCHMARKS
from mirage_sim.evaluation.benchmarks import table


def test_one_table_of_what_ran_and_what_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"retrieval": {"same": "true", "speedup_vs_sets": "at least 1e9", "ms": ""}, "absent": {"x": "true"}}
    monkeypatch.setattr(table, "WANTED", wanted)
    run = table.run
    monkeypatch.setattr(
        table, "run", lambda name: run(name, *(["frames=2", "repeats=1"] if name == "retrieval" else []))
    )
    result = table.bench_all(vars(compose("bench all")))
    assert result["marks"]["retrieval.same"] is True and math.isfinite(result["marks"]["retrieval.ms"])
    assert list(result["missing"]) == ["absent"] and "got absent" in result["missing"]["absent"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result["table"].splitlines()]
    assert rows[0] == ["benchmark", "mark", "wanted", "measured", "met"] and set(rows[1]) == {"---"}
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
def test_met_or_not(value: object, wanted: str, met: bool | None) -> None:
    assert table.meets(value, wanted) is met


def test_only_benchmarks_that_exist_are_wanted() -> None:
    assert set(table.WANTED) <= set(BENCHMARKS)
    with pytest.raises(ValueError, match=r"^benchmarks: expected some of \['readout'.*got \['speed'\]"):
        table.bench_all({"benchmarks": ["readout", "speed"]})
