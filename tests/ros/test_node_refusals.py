"""What cannot be: the node says so in one line and ends."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

BAD = {
    "unknown world": ({"world": "atlantis"}, "atlantis"),
    "negative rate": ({"frame_rate": -10.0}, "frame_rate"),
    "missing start image": ({"start_image": "/nowhere/kitchen.png"}, "/nowhere/kitchen.png"),
    "wrong type": ({"seed": "three"}, "seed"),
}


@pytest.fixture(scope="module")
def refusals(launch):
    """All at once, because each spends most of its time on imports."""
    return {name: launch(**parameters) for name, (parameters, _) in BAD.items()}


@pytest.mark.parametrize("name", BAD)
def test_bad_parameters_are_one_readable_line(refusals, name):
    process = refusals[name]
    assert process.end() == 1
    # the middleware warns of the variable by which older ones find our profile
    said = [line for line in process.lines if "FASTRTPS_DEFAULT_PROFILES_FILE" not in line]
    assert len(said) == 1, said
    assert "[FATAL]" in said[0] and BAD[name][1] in said[0]
