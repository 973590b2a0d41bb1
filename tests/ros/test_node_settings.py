import math

import pytest

from mirage_sim.ros.settings import Settings


def test_defaults_are_valid_and_whole_numbers_serve_as_floats():
    assert Settings(frame_rate=20) == Settings(frame_rate=20.0)
    assert isinstance(Settings(frame_rate=20).frame_rate, float)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frame_rate", -1.0),
        ("frame_rate", 0.0),
        ("frame_rate", math.nan),
        ("frame_rate", "10"),
        ("frame_rate", True),
        ("real_time_factor", -0.1),
        ("real_time_factor", math.inf),
        ("image_width", 9000),
        ("image_width", 1.5),
        ("image_width", False),
        ("seed", -1),
        ("seed", 2**40),
        ("mode", "sometimes"),
        ("collisions", ""),
        ("scan_rays", -1),
        ("cmd_vel_timeout", -1.0),
        ("publish_clock", 1),
        ("jpeg_quality", 0),
        ("jpeg_quality", 101),
        ("world", 3),
    ],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got "):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(0, 0, (96, 128)), (480, 640, (480, 640)), (480, 0, (480, 640)), (0, 64, (48, 64)), (100, 100, (100, 100))],
)
def test_a_side_that_is_not_given_is_in_proportion(height, width, expected):
    assert Settings(image_height=height, image_width=width).output_size((96, 128)) == expected
