"""The benchmarks at toy size: that they can tell right from wrong. What they measure is measured elsewhere."""

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from mirage_sim.build import compose
from mirage_sim.evaluation.benchmarks import bytes as weights
from mirage_sim.evaluation.benchmarks import fork, growth, readout, retrieval, rollout, simulators, vector
from mirage_sim.evaluation.benchmarks.measure import held_bytes, side_by_side, work_of
from mirage_sim.evaluation.benchmarks.scenes import hall
from mirage_sim.memory import EmptyMemory, LatentMap, PointMemory
from mirage_sim.memory.blocks import Points
from mirage_sim.memory.latent_map import InView
from mirage_sim.world import WorldModel


def settings(name: str, **changes: Any) -> dict[str, Any]:
    return vars(compose(f"bench {name}")) | changes


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


def test_what_is_held_is_counted_and_what_is_shared_is_not() -> None:
    shared = torch.ones(100_000)
    arrays = held_bytes(lambda: [np.zeros(25_000, np.float32), torch.zeros(50_000), shared[5:], torch.zeros(9)[:3]])
    assert 300_000 <= arrays < 302_000
    assert held_bytes(lambda: shared.view(10, -1)) < 2000


def test_an_inexact_read_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert readout.is_exact([1, 2], 2000)
    right = readout.render
    # surfaces that are thicker than said
    monkeypatch.setattr(readout, "render", lambda map, camera, rules: right(map, camera, rules._replace(tolerance=0.3)))
    assert not readout.is_exact([1, 2], 2000)


def test_culling_follows_what_is_in_view(monkeypatch: pytest.MonkeyPatch) -> None:
    same, metrics = readout.culling(20_000, 1)
    assert same
    assert metrics["cull_share_in_view"] == pytest.approx(0.05, abs=0.005)
    assert metrics["cull_work_ratio_5pct"] > 0 and metrics["cull_ratio_5pct"] > 0
    right = LatentMap.cull
    monkeypatch.setattr(LatentMap, "cull", lambda map, camera: InView(*(each[::2] for each in right(map, camera))))
    same, _ = readout.culling(20_000, 1)
    assert not same


def test_the_choice_is_that_of_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "SIZE", (12, 16))
    metrics = retrieval.bench_retrieval(settings("retrieval", frames=9, repeats=1))["marks"]
    assert metrics["same"] is True
    assert all(metrics[name] > 0 for name in ("speedup_vs_sets", "speedup_vs_sets_of_points"))
    monkeypatch.setattr(retrieval, "MOST", 0)
    monkeypatch.setattr(retrieval, "choose_references", lambda *arguments: [0])
    assert retrieval.bench_retrieval(settings("retrieval", frames=3, repeats=1))["marks"]["same"] is False


def test_a_circuit_that_is_known_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "GRID", (11, 20))
    few = settings("growth", cameras=5, rounds=3)
    metrics = growth.bench_growth(few)["marks"]
    assert metrics["growth_after_first_round"] < 0.05 and metrics["step_work_ratio"] < 1.01
    assert metrics["points"] > 300 and metrics["step_time_ratio"] > 0
    monkeypatch.setattr(growth, "PointMemory", Hoarder)
    metrics = growth.bench_growth(few)["marks"]
    assert metrics["growth_after_first_round"] == 2 and metrics["step_work_ratio"] > 1.01


class Hoarder(PointMemory):
    """Writes every cell of every frame, whatever it knows."""

    def write(self, map: LatentMap, **frame: Any) -> LatentMap:
        new = super().write(self.empty(), **frame)
        points = Points(new.xyz(), new.features(), new.ids() + map.next_id, new.footprint())
        return map.add(points, np.zeros(0, np.int64), new.next_id)


def test_forks_add_what_they_write() -> None:
    metrics = fork.bench_fork(settings("fork", points=20_000, forks=3))["marks"]
    assert metrics["points_per_fork"] > 100
    assert metrics["written_mib"] * 2**20 == pytest.approx(3 * metrics["points_per_fork"] * (12 + 4 * 48 + 8 + 4))
    assert 1 < metrics["extra_bytes_ratio"] < 2
    assert metrics["s_per_1000_forks_3m"] > 0


def test_compact_points_weigh_a_third() -> None:
    compact, full = (weights.bytes_per_cell(1, compact) for compact in (True, False))
    assert compact <= 69 and full > 3 * compact
    with pytest.raises(ValueError, match="^memory: expected latent points"):
        weights.with_compact_memory(SimpleNamespace(memory=EmptyMemory(4, (1, 4, 4))))


def test_what_forks_share_counts_once() -> None:
    base, other = hall(2000, 4), hall(3000, 4)
    assert fork.extra_bytes(base, [base, base]) == 0
    assert fork.extra_bytes(base, [other, other]) == other.nbytes > 3000 * (12 + 4 * 4 + 8 + 4)


def test_a_batch_has_the_worlds_of_single_environments(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector, "instantiate", lambda world: world)
    few = {"world": model, "worlds": 2, "steps": 1, "seed": 3}
    metrics = vector.bench_vector(few)["marks"]
    assert metrics["identical"] is True and metrics["grey_levels_apart"] <= 1
    assert 0.01 < metrics["mib_per_extra_world"] < 2
    assert metrics["throughput_ratio_2"] == pytest.approx(metrics["steps_per_s_2"] / metrics["steps_per_s_1"])
    actions = np.full((1, 2, 2), 0.5, np.float32)
    right = gymnasium.make_vec

    def other_seeds(*arguments: Any, **settings: Any) -> Any:
        envs = right(*arguments, **settings)
        monkeypatch.setattr(envs, "reset", lambda seed: type(envs).reset(envs, seed=seed + 1))
        return envs

    monkeypatch.setattr(gymnasium, "make_vec", other_seeds)
    apart, same = vector.compare(model, actions, 3)
    assert apart > 1 and not same


def test_simulators_are_timed() -> None:
    try:
        metrics = simulators.bench_simulators(settings("simulators", homes="procedural", scenes=1, frames=2))["marks"]
    except ImportError as error:
        pytest.skip(str(error))
    assert set(metrics) == {"homes_fps", "homes_build_s", "miniworld_fps", "miniworld_build_s"}
    assert all(0 < value < 1e4 for value in metrics.values())


def test_the_rate_of_episodes_leaves_out_the_first(tmp_path: Path) -> None:
    driver = rollout.Driver([], tmp_path)
    for number, time in enumerate((100, 101, 103, 105, 107)):
        path = tmp_path / f"episode_{number:04d}.npz"
        path.touch()
        os.utime(path, (time, time))
    assert driver.rate(behind=1) == pytest.approx(4 / 7)
    assert driver.rate(behind=2) == pytest.approx(3 / 6)


def test_a_roll_out_that_fails_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mirage_sim.cli", "rollout", "stepz=1"]
    with pytest.raises(ChildProcessError, match="^rollout: stepz: expected one of"):
        rollout.Driver(command, tmp_path / "none").run()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("retrieval", {"frames": 0}),
        ("growth", {"cameras": 1.5}),
        ("growth", {"rounds": 1}),
        ("fork", {"forks": True}),
        ("vector", {"worlds": -1}),
        ("rollout", {"num_workers": 0}),
        ("rollout", {"episodes": 6}),
        ("conditioning", {"size": [704, 1279]}),
        ("bytes", {"frames": 0}),
    ],
)
def test_unusable_settings_are_refused(name: str, wrong: dict[str, Any]) -> None:
    (setting,) = wrong
    bench = getattr(importlib.import_module(f"mirage_sim.evaluation.benchmarks.{name}"), f"bench_{name}")
    with pytest.raises(ValueError, match=f"^{setting}: expected"):
        bench(settings(name, **wrong))
