"""The tables of parameters; needs no ROS."""

import math
from pathlib import Path
from typing import get_args

import pytest

from mirage_sim.envs.collisions import CollisionMode
from mirage_sim.ros.parameters import COLLISIONS, PolicyParameters, WorldParameters, markdown_table


def test_integers_stand_for_floats():
    assert WorldParameters(frame_rate=20) == WorldParameters(frame_rate=20.0)
    assert isinstance(WorldParameters(frame_rate=20).frame_rate, float)


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
        ("start_image", "/nowhere.png"),
        ("start", "/nowhere.world"),
    ],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got "):
        WorldParameters(**{name: value})


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(0, 0, (96, 128)), (480, 640, (480, 640)), (480, 0, (480, 640)), (0, 64, (48, 64)), (100, 100, (100, 100))],
)
def test_missing_side_keeps_proportion(height, width, expected):
    assert WorldParameters(image_height=height, image_width=width).output_size((96, 128)) == expected


def test_collisions_are_those_of_the_environment():
    assert set(COLLISIONS) == set(get_args(CollisionMode))


@pytest.mark.parametrize("table", [WorldParameters, PolicyParameters])
def test_documentation_has_the_table(table):
    page = Path(__file__).parents[2] / "docs" / "ros2.md"
    if not page.exists():
        pytest.skip("needs the checkout")
    assert markdown_table(table) in page.read_text(encoding="utf-8")
