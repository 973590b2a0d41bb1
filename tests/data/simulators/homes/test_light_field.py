import numpy as np
import pytest
from support.scenes import box, floor, home, panel, room, textures

from mirage_sim.data.simulators.homes.rendering.light_field import LightField
from mirage_sim.data.simulators.homes.scene import Lamp, Mesh, Scene

UP, DOWN = [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]
NO_DAYLIGHT = (0.0, 0.0, 0.0)


def field_of(
    *parts: Mesh, lamps: tuple[Lamp, ...] = (), daylight: tuple[float, float, float] = NO_DAYLIGHT
) -> LightField:
    return LightField(Scene(parts, (0,) * len(parts), textures(), lamps, daylight=daylight))


def light(field: LightField, *points: tuple[list[float], list[float]]) -> np.ndarray:
    places, normals = (np.array(each, np.float32) for each in zip(*points, strict=True))
    return field.irradiance(places, normals)


def black_ceiling(size: float = 8.0) -> Mesh:
    return panel((-size / 2, 3, -size / 2), (size, 0, 0), (0, 0, size), colour=(0, 0, 0))


def test_light_falls_off_with_the_square_of_distance() -> None:
    field = field_of(floor(), black_ceiling(), lamps=(Lamp((0, 1.5, 0), (2, 1, 0.5)),))
    below, aside = light(field, ([0, 0, 0], UP), ([2, 0, 0], UP))
    np.testing.assert_allclose(below / below[0], [1, 0.5, 0.25], rtol=1e-5)
    assert below[0] == pytest.approx(2 / 1.5**2, rel=0.1)
    assert aside[0] / below[0] == pytest.approx((1.5 / 2.5) ** 3, rel=0.01)  # the angle counts as well


def test_table_casts_a_shadow() -> None:
    table = box((-0.5, 0.7, -0.5), (0.5, 0.75, 0.5))
    field = field_of(floor(), black_ceiling(), table, lamps=(Lamp((0, 2.3, 0), (4, 4, 4)),))
    on, under, beside = light(field, ([0, 0.75, 0], UP), ([0, 0, 0], UP), ([1.6, 0, 0], UP))[:, 0]
    assert on == pytest.approx(4 / 1.55**2, rel=0.1)
    assert under < 0.02 * on
    assert beside == pytest.approx(4 * 2.3 / (2.3**2 + 1.6**2) ** 1.5, rel=0.1)


def test_lamp_shines_through_its_shade() -> None:
    shade = box((-0.15, 1.9, -0.15), (0.15, 2.1, 0.15))
    field = field_of(floor(), black_ceiling(), shade, lamps=(Lamp((0, 2.0, 0), (4, 4, 4)),))
    assert light(field, ([0.5, 0, 0], UP))[0, 0] > 0.8
    assert light(field, ([0.15, 2, 0], [1, 0, 0]))[0, 0] > 2, "the shade itself shines"


def test_walls_reflect_light_in_their_colour() -> None:
    lamp = Lamp((0, 1.6, 0), (3, 3, 3))
    parts = list(room())
    white = light(field_of(*parts, lamps=(lamp,)), ([0, 1.2, 0], DOWN))[0]
    parts[0] = panel((-2, 0, 2), (4, 0, 0), (0, 0, -4), colour=(255, 40, 40))
    red = light(field_of(*parts, lamps=(lamp,)), ([0, 1.2, 0], DOWN))[0]
    assert 0.2 < white[0] < 2 and np.ptp(white) < 1e-5, "surfaces that face away from the lamp are lit by the floor"
    assert red[0] > 1.5 * red[1]


def test_daylight_enters_only_through_windows() -> None:
    daylight = (2.0, 2.0, 2.0)
    inside = ([0.0, 1.0, 0.0], [0.0, 0.0, -1.0])
    closed = light(field_of(*room(), daylight=daylight), inside)[0, 0]
    opened = light(field_of(*room((1.0, 0.9, 3.0, 2.1)), daylight=daylight), inside)[0, 0]
    assert closed < 1e-3
    assert 0.1 < opened < 2


def test_corners_are_darker_than_open_floor() -> None:
    field = field_of(*room(), lamps=(Lamp((0, 2.2, 0), (3, 3, 3)),))
    corner, near = light(field, ([1.95, 0, 1.95], UP), ([1.4, 0, 1.4], UP))[:, 0]
    assert corner < 0.6 * near


def test_outside_there_is_daylight() -> None:
    field = field_of(*room(), daylight=(1.0, 2.0, 3.0))
    np.testing.assert_allclose(light(field, ([30, -1, 0], UP))[0], [1, 2, 3])


def test_distant_parts_do_not_enlarge_the_grid() -> None:
    ground = panel((-40, -3, 40), (80, 0, 0), (0, 0, -80))
    parts = room()
    lamp = Lamp((0, 2, 0), (3, 3, 3))
    alone = field_of(*parts, lamps=(lamp,))
    both = LightField(Scene((*parts, ground), (0,) * 6 + (-1,), textures(), (lamp,), daylight=NO_DAYLIGHT))
    points = ([0.0, 0.0, 0.0], UP), ([1.0, 2.5, 0.5], DOWN)
    np.testing.assert_array_equal(light(alone, *points), light(both, *points))


def test_same_scene_gives_same_light() -> None:
    scene, _ = home()
    points = np.concatenate([part.positions for part in scene.parts])
    normals = np.concatenate([part.normals for part in scene.parts])
    first = LightField(scene).irradiance(points, normals)
    assert np.isfinite(first).all() and (first >= 0).all() and first.max() > 0.5
    np.testing.assert_array_equal(LightField(scene).irradiance(points, normals), first)
