"""What all messages share: stamps, fields, health; no middleware runs."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.ros import conversions

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'mirage_sim[ros]', or source a ROS 2")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from support.ros_wire import sent  # noqa: E402

FEW = settings(max_examples=40, deadline=None)


@FEW
@given(st.integers(0, 10_000_000))
def test_stamps_of_steps_are_exact(step: int):
    """Simulation time is a multiple of 0.1 s, and 3 * 0.1 is a little more than 0.3."""
    now = sent(Clock, conversions.clock(step * 0.1)).clock
    assert now.sec * 10 + now.nanosec // 100_000_000 == step and now.nanosec % 100_000_000 == 0
    assert conversions.seconds_of(now) == pytest.approx(step * 0.1)


def test_stamps_carry_into_seconds():
    assert conversions.stamp(1.9999999999) == {"sec": 2, "nanosec": 0}


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf, 2.0**31])
def test_impossible_times_are_refused(seconds: float):
    with pytest.raises(ValueError, match="seconds: expected a time"):
        conversions.stamp(seconds)


def test_unknown_fields_are_named():
    with pytest.raises(ValueError, match="colour: expected a field of Image .*encoding"):
        conversions.message(Image, {"colour": "red"})


def test_diagnostics_tell_name_level_and_values():
    fields = conversions.diagnostics(
        "world", {"steps/s": 12.5, "points": 3}, 4.0, level=1, text="slow", hardware_id="cpu"
    )
    (status,) = sent(DiagnosticArray, fields).status
    assert (status.name, status.level, status.message, status.hardware_id) == ("world", b"\x01", "slow", "cpu")
    assert {value.key: value.value for value in status.values} == {"steps/s": "12.5", "points": "3"}
    with pytest.raises(ValueError, match="level: expected 0 to 3, got 7"):
        conversions.diagnostics("world", {}, 0.0, level=7)
