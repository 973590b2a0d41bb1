"""A body among remembered points whose places are known."""

import math

import numpy as np
import pytest
import torch

from mirage_sim.geometry import Camera
from mirage_sim.memory import LatentMap
from mirage_sim.memory.latent_map import Points
from mirage_sim.world import Body

CELL = 0.05  # metres between the points of all surfaces here
EYE = 1.5


def remembered(*clouds: np.ndarray, footprint: float = CELL) -> LatentMap:
    """A map of points ``[n, 3]``: x right, height above the floor, z forward."""
    xyz = torch.from_numpy(np.concatenate(clouds)).float()
    xyz = torch.stack([xyz[:, 0], EYE - xyz[:, 1], xyz[:, 2]], 1)
    n = len(xyz)
    points = Points(xyz, torch.zeros(n, 1), torch.arange(n), torch.full((n,), footprint))
    return LatentMap.empty(1).add(points, torch.zeros(0, dtype=torch.int64), n)


def surface(x: tuple[float, float], height: tuple[float, float], z: tuple[float, float]) -> np.ndarray:
    """A grid of points on a box of which one side, at least, is flat."""
    sides = [np.arange(low, high + CELL / 2, CELL) for low, high in (x, height, z)]
    return np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3)


FLOOR = surface((-3, 3), (0, 0), (-1, 6))
CEILING = surface((-3, 3), (2.7, 2.7), (-1, 6))
WALL = surface((-3, 3), (0, 2.7), (2, 2))  # 2 m ahead


def camera(x: float = 0.0, z: float = 0.0, left_deg: float = 0.0) -> Camera:
    c2w = torch.eye(4)
    cos, sin = math.cos(math.radians(left_deg)), math.sin(math.radians(left_deg))
    c2w[:3, 0], c2w[:3, 2] = torch.tensor([cos, 0.0, sin]), torch.tensor([-sin, 0.0, cos])
    c2w[0, 3], c2w[2, 3] = x, z
    return Camera.from_fov(c2w, 60.0, (96, 128))


def place(camera: Camera) -> list[float]:
    return camera.c2w[[0, 2], 3].tolist()


def test_clearance_and_contact_of_a_wall():
    around = Body().around(remembered(FLOOR, CEILING, WALL), camera())
    assert around.clearance == pytest.approx(2.0 - 0.4, abs=CELL)
    travel = around.travel(camera(z=1.5))
    assert not travel.collision and travel.contact == math.inf
    travel = around.travel(camera(z=1.9))
    assert travel.collision and travel.contact == pytest.approx(1.6, abs=1e-3)
    assert travel.clearance == around.clearance
    assert place(travel.camera) == pytest.approx([0.0, 1.9])  # only reported
    assert not around.travel(camera(x=1.0)).collision and not around.travel(camera(z=-1.0)).collision


def test_floor_ceiling_sky_and_empty_map_are_free():
    sky = surface((-30, 30), (0, 0), (100, 100)) + [0.0, 1.0, 0.0]
    around = Body().around(remembered(FLOOR, CEILING, sky), camera())
    assert around.clearance == math.inf
    assert not around.travel(camera(z=2.0)).collision
    assert np.isinf(around.scan(64)).all()
    nothing = Body().around(LatentMap.empty(1), camera())
    assert nothing.clearance == math.inf and np.isinf(nothing.scan(8)).all()
    travel = nothing.travel(camera(z=1.0), "slide")
    assert not travel.collision and place(travel.camera) == pytest.approx([0.0, 1.0])


def test_only_points_at_body_height_are_obstacles():
    def blocked(low: float, high: float) -> bool:
        bar = surface((-1, 1), (low, high), (1, 1))
        return Body(height=1.2, step=0.3).around(remembered(bar), camera()).travel(camera(z=1.0)).collision

    assert blocked(0.0, 0.5) and blocked(1.0, 2.0)
    assert not blocked(0.0, 0.25) and not blocked(1.3, 2.0)


@pytest.mark.parametrize(("width", "passes"), [(0.9, True), (0.7, False)])
def test_doorway_is_free_for_narrow_bodies(width: float, passes: bool):
    left = surface((-3, -width / 2), (0, 2.7), (2, 2))
    right = surface((width / 2, 3), (0, 2.7), (2, 2))
    lintel = surface((-3, 3), (2.0, 2.7), (2, 2))
    around = Body().around(remembered(FLOOR, left, right, lintel), camera())
    assert around.travel(camera(z=4.0)).collision is not passes


@pytest.mark.parametrize("stray", [1, 2])
def test_isolated_points_are_free_and_a_pole_blocks(stray: int):
    points = np.array([[0.0, 0.9, 1.0], [0.02, 1.0, 1.0]])[:stray]
    around = Body().around(remembered(FLOOR, points), camera())
    assert around.clearance == math.inf and not around.travel(camera(z=1.0)).collision
    scattered = np.array([[0.0, 1.0, 0.6], [0.3, 1.0, 1.0], [-0.3, 1.0, 1.4]])  # three, but each alone
    assert Body().around(remembered(FLOOR, scattered), camera()).clearance == math.inf
    pole = surface((0, 0), (0, 1.5), (1, 1))
    around = Body().around(remembered(FLOOR, pole), camera())
    assert around.clearance == pytest.approx(0.6, abs=1e-4) and around.travel(camera(z=1.0)).collision


def test_sparse_points_with_large_footprints_form_a_wall():
    wide = np.stack(np.meshgrid(np.arange(-4, 4, 0.5), [0.3, 0.8, 1.3], [8.0], indexing="ij"), -1).reshape(-1, 3)
    assert Body().around(remembered(wide, footprint=0.5), camera()).clearance == pytest.approx(7.6, abs=1e-3)
    assert Body().around(remembered(wide, footprint=0.02), camera()).clearance < math.inf  # three above each other
    assert Body(support=4).around(remembered(wide, footprint=0.02), camera()).clearance == math.inf


def test_block_only_rotates():
    around = Body().around(remembered(FLOOR, WALL), camera(z=1.5))
    travel = around.travel(camera(x=0.1, z=1.7, left_deg=10), "block")
    assert travel.collision and place(travel.camera) == [0.0, 1.5]
    assert torch.equal(travel.camera.c2w[:3, :3], camera(left_deg=10).c2w[:3, :3])
    free = around.travel(camera(x=0.1, z=1.4), "block")
    assert not free.collision and place(free.camera) == pytest.approx([0.1, 1.4])


def test_slide_continues_along_the_wall():
    around = Body().around(remembered(FLOOR, WALL), camera(z=1.5))
    travel = around.travel(camera(x=0.6, z=2.1), "slide")
    x, z = place(travel.camera)
    assert travel.collision
    assert x == pytest.approx(0.6, abs=CELL) and 1.55 < z <= 1.6
    after = Body().around(remembered(FLOOR, WALL), travel.camera)
    assert after.clearance < 0.02
    assert place(after.travel(camera(x=x, z=z + 0.5), "slide").camera) == pytest.approx([x, z], abs=CELL)  # head on
    away = after.travel(camera(x=x, z=z - 0.5), "slide")
    assert not away.collision


def test_slide_ends_in_a_corner():
    corner = surface((1, 1), (0, 2.7), (-3, 3))
    around = Body().around(remembered(FLOOR, WALL, corner), camera())
    x, z = place(around.travel(camera(x=1.5, z=2.5), "slide").camera)
    assert x == pytest.approx(0.6, abs=CELL) and z == pytest.approx(1.6, abs=CELL) and x <= 0.6 and z <= 1.6


def test_overlapping_obstacle_lets_the_body_leave():
    around = Body().around(remembered(FLOOR, WALL), camera(z=1.8))
    assert around.clearance == 0.0
    assert around.travel(camera(z=1.9)).contact == 0.0
    assert not around.travel(camera(z=1.5)).collision


def test_unseen_option_decides_about_unobserved_space():
    map = remembered(FLOOR[FLOOR[:, 2] > 1], WALL)
    free, closed = Body(), Body(unseen="blocked")
    for x, z, seen in ((0.0, 1.0, True), (0.0, -1.0, False), (5.0, 0.0, False)):
        travels = [body.around(map, camera()).travel(camera(x=x, z=z), "block") for body in (free, closed)]
        assert free.around(map, camera()).is_seen(np.array([x, z], np.float32)) is seen
        assert [travel.collision for travel in travels] == [False, not seen]
        assert place(travels[1].camera) == pytest.approx([x, z] if seen else [0.0, 0.0])
    assert not closed.around(map, camera()).travel(camera(left_deg=90), "block").collision  # a turn leads nowhere


def test_space_can_be_seen_without_its_ground():
    far = surface((-3, 3), (0, 0), (1.8, 6))
    around = Body().around(remembered(far, surface((-3, 3), (0, 2.7), (6, 6))), camera())
    ahead = np.array([0.0, 1.0], np.float32)
    assert around.is_seen(ahead) and not around.is_ground_seen(ahead)
    assert around.is_ground_seen(ahead, start=np.array([0.0, 2.0], np.float32))
    assert not around.is_ground_seen(3 * ahead, start=np.array([3.0, 2.0], np.float32))  # its side is beyond the floor
    wall = Body().around(remembered(WALL), camera(z=1.6))
    assert wall.is_ground_seen(0.3 * ahead)  # stopped before it gets anywhere
    assert not wall.is_ground_seen(-0.3 * ahead)


def test_scan_measures_the_room():
    east, west = (surface((x, x), (0, 2.7), (-1.5, 2)) for x in (3, -1))
    south = surface((-1, 3), (0, 2.7), (-1.5, -1.5))
    ranges = Body().around(remembered(FLOOR, CEILING, WALL, east, west, south), camera()).scan(8)
    assert ranges.dtype == np.float32 and ranges.shape == (8,)
    back, right, ahead, left = ranges[::2]  # from -pi on, positive to the left
    assert [back, right, ahead, left] == pytest.approx([1.5, 3.0, 2.0, 1.0], abs=0.01)
    assert ranges[5] == pytest.approx(math.hypot(1, 1), abs=2 * CELL)  # ahead and left
    turned = Body().around(remembered(WALL), camera(left_deg=90)).scan(4)
    assert turned[1] == pytest.approx(2.0, abs=0.01)  # the wall is to the right now
    assert np.isinf(turned[[0, 3]]).all()


def test_sector_scan_has_both_ends_and_no_gaps():
    around = Body().around(remembered(WALL), camera())
    ranges = around.scan(91, -math.pi / 4, math.pi / 4)
    expected = 2.0 / np.cos(np.linspace(-math.pi / 4, math.pi / 4, 91))
    np.testing.assert_allclose(ranges, expected, atol=2 * CELL)
    whole = around.scan(360, -math.pi, math.pi)
    assert np.isinf(whole[[0, -1]]).all() and whole[179] == pytest.approx(2.0, abs=0.01)
    behind = Body().around(remembered(WALL), camera(left_deg=180)).scan(3, -math.pi, math.pi)
    assert behind[[0, 2]] == pytest.approx([2.0, 2.0], abs=0.01) and np.isinf(behind[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": 0.0}, "radius: expected metres"),
        ({"height": math.nan}, "height: expected metres"),
        ({"camera_height": "1"}, "camera_height: expected metres"),
        ({"step": 1.7}, "step: expected less than the height"),
        ({"support": 0}, "support: expected a positive integer"),
        ({"unseen": "maybe"}, "unseen: expected 'free' or 'blocked'"),
    ],
)
def test_invalid_bodies_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Body(**arguments)


def test_invalid_scans_and_responses_are_rejected():
    around = Body().around(LatentMap.empty(1), camera())
    with pytest.raises(ValueError, match="^response: expected"):
        around.travel(camera(), "bounce")
    with pytest.raises(ValueError, match="^rays: expected"):
        around.scan(0)
    with pytest.raises(ValueError, match="^last: expected"):
        around.scan(8, 0.0, 7.0)


def test_sight_ends_at_a_wall_and_at_the_last_floor():
    around = Body().around(remembered(FLOOR, CEILING, WALL), camera())
    sight = around.sight(120)
    assert sight[0] == pytest.approx(6.0, abs=2 * CELL)  # floor that was seen from elsewhere, behind the wall
    assert sight[60] == pytest.approx(1.0, abs=2 * CELL)
    sight = Body().around(remembered(CEILING, WALL), camera()).sight(120)
    assert sight[0] == pytest.approx(2.0, abs=2 * CELL) and sight[60] == 0
    assert sight[10] == pytest.approx(2.0 / math.cos(math.radians(30)), rel=0.05)


def test_obstacles_are_the_points_of_the_wall():
    obstacles = Body().around(remembered(FLOOR, CEILING, WALL), camera()).obstacles(2.5)
    assert len(obstacles) and np.allclose(obstacles[:, 1], 2.0, atol=1e-6)
    assert np.abs(obstacles[:, 0]).max() == pytest.approx(1.5, abs=2 * CELL)
