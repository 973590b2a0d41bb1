"""Unusable parameters: the node logs one line and ends."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

BAD = {
    "unknown world": ({"world": "atlantis"}, "atlantis"),
    "negative rate": ({"frame_rate": -10.0}, "frame_rate"),
    "missing start image": ({"start_image": "/nowhere/kitchen.png"}, "/nowhere/kitchen.png"),
    "unknown name": ({"sede": 3}, "sede"),
    "wrong type": ({"seed": "three"}, "seed"),
}


@pytest.fixture(scope="module")
def refusals(launch):
    """Start all nodes at once, because each spends most of its time on imports."""
    return {name: launch(**parameters) for name, (parameters, _) in BAD.items()}


@pytest.mark.parametrize("name", BAD)
def test_bad_parameters_give_one_readable_line(refusals, name):
    process = refusals[name]
    assert process.end() == 1
    # Fast DDS 3 warns of the old name of the variable for our profile
    lines = [line for line in process.lines if "FASTRTPS_DEFAULT_PROFILES_FILE" not in line]
    assert len(lines) == 1, lines
    assert "[FATAL]" in lines[0] and BAD[name][1] in lines[0]
