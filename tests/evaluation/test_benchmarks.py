"""The benchmarks at toy size: that they can tell right from wrong. What they measure is measured elsewhere."""

from typing import Any

import pytest
import torch

from mirage_sim.build import compose
from mirage_sim.evaluation.benchmarks import readout, retrieval
from mirage_sim.evaluation.benchmarks.measure import side_by_side, work_of
from mirage_sim.memory import LatentMap


def settings(name: str, **changes: Any) -> dict[str, Any]:
    return compose("bench", [f"bench={name}"]) | changes


def test_work_is_what_is_walked_over() -> None:
    table = torch.rand(1000, 3)
    some = torch.arange(10)
    assert work_of(lambda: table[:, 0].view(10, 100)) == 0, "a view"
    assert work_of(lambda: table.sum()) == 3000
    assert work_of(lambda: table[some]) == 30, "of a table only the entries"
    assert work_of(lambda: table[:, 0].scatter_reduce_(0, some, torch.ones(10), "amin")) == 10 + 10
    assert work_of(lambda: table.clone().add_(1)) == 6000


def test_calls_are_timed_in_turns() -> None:
    order: list[str] = []
    seconds = side_by_side(2, lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["a", "b"] * 3
    assert all(0 < each < 1 for each in seconds)


def test_an_inexact_read_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert readout.is_exact([1, 2], 2000)
    right = readout.splat

    def last_written(points: Any, ids: Any, *others: Any, **settings: Any) -> Any:
        return right(points, torch.arange(len(ids)), *others, **settings)  # ties go by position

    monkeypatch.setattr(readout, "splat", last_written)
    assert not readout.is_exact([1, 2], 2000)


def test_culling_follows_what_is_in_view(monkeypatch: pytest.MonkeyPatch) -> None:
    same, marks = readout.culling(20_000, 1)
    assert same
    assert marks["cull_share_in_view"] == pytest.approx(0.05, abs=0.005)
    assert marks["cull_work_ratio_5pct"] > 0 and marks["cull_ratio_5pct"] > 0
    right = LatentMap.cull
    monkeypatch.setattr(LatentMap, "cull", lambda map, camera: right(map, camera)[::2])
    same, _ = readout.culling(20_000, 1)
    assert not same


def test_the_choice_is_that_of_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "SIZE", (12, 16))
    marks = retrieval.bench_retrieval(settings("retrieval", frames=9, repeats=1))["marks"]
    assert marks["same"] is True
    assert all(marks[name] > 0 for name in ("speedup_vs_sets", "speedup_vs_sets_of_points"))
    monkeypatch.setattr(retrieval, "MOST", 0)
    monkeypatch.setattr(retrieval, "choose_references", lambda *arguments: [0])
    assert retrieval.bench_retrieval(settings("retrieval", frames=3, repeats=1))["marks"]["same"] is False


@pytest.mark.parametrize(("bench", "wrong"), [(retrieval.bench_retrieval, {"frames": 0})])
def test_unusable_settings_are_refused(bench: Any, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        bench(settings(bench.__name__.removeprefix("bench_"), **wrong))
