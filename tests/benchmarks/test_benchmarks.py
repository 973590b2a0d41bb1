"""The benchmarks at toy size: they report errors where there are any. Their timings are not checked."""

import dataclasses
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from benchmarks import fork, growth, memory_bytes, readout, retrieval, rollout, runner, simulators, vector
from benchmarks.scenes import hall
from mirage_sim.build import compose
from mirage_sim.memory import EmptyMemory, LatentMap, PointMemory
from mirage_sim.memory.blocks import Points
from mirage_sim.memory.latent_map import InView
from mirage_sim.world import WorldModel


def settings(name: str, **changes: Any) -> Any:
    return dataclasses.replace(compose(f"bench {name}"), **changes)


def test_inexact_read_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert readout.is_exact([1, 2], 2000)
    exact = readout.render
    # a larger tolerance than asked for
    monkeypatch.setattr(readout, "render", lambda map, camera, rules: exact(map, camera, rules._replace(tolerance=0.3)))
    assert not readout.is_exact([1, 2], 2000)


def test_culling_keeps_the_bits_of_what_is_in_view(monkeypatch: pytest.MonkeyPatch) -> None:
    same, metrics = readout.culling(20_000, 1)
    assert same
    assert metrics["cull_share_in_view"] == pytest.approx(0.05, abs=0.005)
    assert metrics["cull_work_ratio_5pct"] > 0 and metrics["cull_ratio_5pct"] > 0
    cull = LatentMap.cull
    monkeypatch.setattr(LatentMap, "cull", lambda map, camera: InView(*(each[::2] for each in cull(map, camera))))
    same, _ = readout.culling(20_000, 1)
    assert not same


def test_references_are_those_chosen_with_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "SIZE", (12, 16))
    metrics = retrieval.bench_retrieval(settings("retrieval", frames=9, repeats=1))["marks"]
    assert metrics["same"] is True
    assert all(metrics[name] > 0 for name in ("speedup_vs_sets", "speedup_vs_sets_of_points"))
    monkeypatch.setattr(retrieval, "MOST", 0)
    monkeypatch.setattr(retrieval, "choose_references", lambda *arguments: [0])
    assert retrieval.bench_retrieval(settings("retrieval", frames=3, repeats=1))["marks"]["same"] is False


def test_known_circuit_adds_no_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "GRID", (11, 20))
    few = settings("growth", cameras=5, rounds=3)
    metrics = growth.bench_growth(few)["marks"]
    assert metrics["growth_after_first_round"] < 0.05 and metrics["step_work_ratio"] < 1.01
    assert metrics["points"] > 300 and metrics["step_time_ratio"] > 0
    monkeypatch.setattr(growth, "PointMemory", UnconditionalMemory)
    metrics = growth.bench_growth(few)["marks"]
    assert metrics["growth_after_first_round"] == 2 and metrics["step_work_ratio"] > 1.01


class UnconditionalMemory(PointMemory):
    """Writes every cell of every frame, whether it is known or not."""

    def write(self, map: LatentMap, **frame: Any) -> LatentMap:
        new = super().write(self.empty(), **frame)
        points = Points(new.xyz(), new.features(), new.ids() + map.next_id, new.footprint())
        return map.add(points, np.zeros(0, np.int64), new.next_id)


def test_forks_hold_the_bytes_they_write() -> None:
    metrics = fork.bench_fork(settings("fork", points=20_000, forks=3))["marks"]
    assert metrics["points_per_fork"] > 100
    assert metrics["written_mib"] * 2**20 == pytest.approx(3 * metrics["points_per_fork"] * (12 + 4 * 48 + 8 + 4))
    assert 1 < metrics["extra_bytes_ratio"] < 2
    assert metrics["s_per_1000_forks_3m"] > 0


def test_compact_points_take_a_third_of_the_bytes() -> None:
    compact, full = (memory_bytes.bytes_per_cell(1, compact) for compact in (True, False))
    assert compact <= 69 and full > 3 * compact
    with pytest.raises(ValueError, match="^memory: expected latent points"):
        memory_bytes.with_compact_memory(SimpleNamespace(memory=EmptyMemory(4, (1, 4, 4))))


def test_memory_shared_by_forks_counts_once() -> None:
    base, other = hall(2000, 4), hall(3000, 4)
    assert fork.extra_bytes(base, [base, base]) == 0
    assert fork.extra_bytes(base, [other, other]) == other.nbytes > 3000 * (12 + 4 * 4 + 8 + 4)


def test_batch_agrees_with_single_environments(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector, "instantiate", lambda world: model)
    few = settings("vector", worlds=2, steps=1, seed=3)
    metrics = vector.bench_vector(few)["marks"]
    assert metrics["identical"] is True and metrics["grey_levels_apart"] <= 1
    assert 0.01 < metrics["mib_per_extra_world"] < 2
    assert metrics["throughput_ratio_2"] == pytest.approx(metrics["steps_per_s_2"] / metrics["steps_per_s_1"])
    actions = np.full((1, 2, 2), 0.5, np.float32)
    make_vec = gymnasium.make_vec

    def other_seeds(*arguments: Any, **settings: Any) -> Any:
        envs = make_vec(*arguments, **settings)
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


def test_episode_rate_leaves_out_the_first_batch(tmp_path: Path) -> None:
    driver = rollout.Driver([], tmp_path)
    for number, time in enumerate((100, 101, 103, 105, 107)):
        path = tmp_path / f"episode_{number:04d}.npz"
        path.touch()
        os.utime(path, (time, time))
    assert driver.rate(behind=1) == pytest.approx(4 / 7)
    assert driver.rate(behind=2) == pytest.approx(3 / 6)


def test_failed_rollout_reports_its_error(tmp_path: Path) -> None:
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
def test_unusable_settings_are_rejected(name: str, wrong: dict[str, Any]) -> None:
    (setting,) = wrong
    with pytest.raises(ValueError, match=f"^{setting}: expected"):
        runner.run(name, settings(name, **wrong))
