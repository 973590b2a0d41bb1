"""Stamps, fields and diagnostics to rclpy messages, through serialisation."""

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
    """Simulation time is a multiple of 0.1 s, and 3 * 0.1 is slightly more than 0.3."""
    now = sent(Clock, conversions.clock(step * 0.1)).clock
    assert now.sec * 10 + now.nanosec // 100_000_000 == step and now.nanosec % 100_000_000 == 0
    assert conversions.seconds_of(now) == pytest.approx(step * 0.1)


def test_stamp_carries_into_seconds():
    assert conversions.stamp(1.9999999999) == {"sec": 2, "nanosec": 0}


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf, 2.0**31])
def test_stamp_refuses_impossible_times(seconds: float):
    with pytest.raises(ValueError, match="seconds: expected a time"):
        conversions.stamp(seconds)


def test_message_refuses_unknown_fields():
    with pytest.raises(ValueError, match="colour: expected a field of Image .*encoding"):
        conversions.message(Image, {"colour": "red"})


def test_diagnostics_hold_name_level_and_values():
    fields = conversions.diagnostics("world", {"steps/s": 12.5, "points": 3}, 4.0, warning="slow", hardware_id="cpu")
    (status,) = sent(DiagnosticArray, fields).status
    assert (status.name, status.level, status.message, status.hardware_id) == ("world", b"\x01", "slow", "cpu")
    assert {value.key: value.value for value in status.values} == {"steps/s": "12.5", "points": "3"}
    (status,) = sent(DiagnosticArray, conversions.diagnostics("world", {}, 4.0)).status
    assert (status.level, status.message) == (b"\0", "ok")
