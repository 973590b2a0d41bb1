"""The benchmark and the soak, small; what they measure is measured elsewhere."""

import math
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from mirage_sim.build import compose
from mirage_sim.ros import benchmark
from mirage_sim.ros.soak import failures, soak

MARKS = (
    "images_per_s overhead latency_ms_p50 latency_ms_p95 publish_ms_640x480 delivered_best_effort delivered_reliable "
    "lockstep_identical rss_growth"
).split()


def test_all_marks_come_from_a_running_node() -> None:
    metrics = benchmark.bench_ros(vars(compose("bench ros", ["steps=12", "frames=8", "seconds=1.5"])))["marks"]
    assert sorted(metrics) == sorted(MARKS)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["lockstep_identical"] is True
    assert metrics["images_per_s"] > 0.2
    assert metrics["overhead"] > -0.9
    assert 0 < metrics["latency_ms_p50"] <= metrics["latency_ms_p95"]
    assert metrics["publish_ms_640x480"] > 0
    for name in ("delivered_reliable", "delivered_best_effort"):
        assert 0.5 < metrics[name] <= 1  # of eight; the tests of the node ask for more, of more
    assert abs(metrics["rss_growth"]) < 0.5


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"frames": 1.5}, {"seconds": 0}, {"seconds": True}, {"seed": -1}])
def test_unusable_settings_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}: expected"):
        benchmark.bench_ros(vars(compose("bench ros")) | wrong)


def test_growth_is_that_of_the_last_tenth_over_the_first() -> None:
    assert benchmark.growth([100] * 50) == 0
    assert benchmark.growth([100] * 27 + [107, 107, 900]) == pytest.approx(0.07, abs=1e-9)
    assert benchmark.growth([100, 110]) == pytest.approx(0.1)


def test_a_soak_calls_everything_and_loses_nothing() -> None:
    metrics = soak(4.0)
    assert metrics["calls"] >= 2
    assert metrics["lost_calls"] == 0
    assert metrics["images"] > 0
    assert metrics["rss_mb"] > 100
    assert not failures(metrics | {"rss_growth": 0.05})
    (line,) = failures(metrics | {"rss_growth": 0.06})
    assert "rss_growth" in line
    (line,) = failures(metrics | {"rss_growth": 0.0, "lost_calls": 1})
    assert "lost_calls" in line
