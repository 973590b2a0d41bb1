import math

import pytest
import torch

from mirage_sim.evaluation.ground_truth import seen_from
from mirage_sim.geometry import Camera

SIZE = (48, 64)
FOCAL = 24 / math.tan(math.radians(30))


def camera(x: float = 0.0, z: float = 0.0, turn_deg: float = 0.0) -> Camera:
    """Looks along +z, moved, and turned to the right."""
    a = math.radians(turn_deg)
    c2w = torch.eye(4)
    c2w[0, 0], c2w[0, 2], c2w[2, 0], c2w[2, 2] = math.cos(a), math.sin(a), -math.sin(a), math.cos(a)
    c2w[0, 3], c2w[2, 3] = x, z
    return Camera.from_fov(c2w, 60.0, SIZE)


def wall(distance: float) -> torch.Tensor:
    return torch.full(SIZE, distance)


def floor(height: float = 1.5) -> torch.Tensor:
    """z-depth of a level floor below the horizon, of sky above."""
    v = torch.arange(SIZE[0]) + 0.5 - SIZE[0] / 2
    depth = torch.where(v > 0, height * FOCAL / v.clamp(min=0.01), 100.0)
    return depth.clamp(max=100.0)[:, None].expand(SIZE).contiguous()


def test_equal_view_is_all_seen():
    for depth in (wall(3.0), floor()):
        assert seen_from(depth, camera(), depth, camera()).all()


def test_side_step_before_a_wall_shows_a_new_strip():
    # a wall 4 m ahead; 0.5 m to the right shifts it by 0.5 / 4 * f = 5.2 pixels
    shift = 0.5 / 4 * FOCAL
    seen = seen_from(wall(4.0), camera(x=0.5), wall(4.0), camera())
    columns = torch.arange(SIZE[1]) + 0.5 + shift < SIZE[1]
    assert torch.equal(seen, columns.expand(SIZE))


def test_floor_stays_seen_while_moving_ahead():
    seen = seen_from(floor(), camera(z=0.8), floor(), camera())
    # points ahead were in the first image; steep rows change by more than the tolerance between neighbours
    assert seen[: SIZE[0] // 2 + 14].all()


def test_turning_right_makes_the_right_side_new():
    seen = seen_from(floor(), camera(turn_deg=30), floor(), camera())
    half_angle = math.degrees(math.atan(SIZE[1] / 2 / FOCAL))
    # the horizon row: a direction at angle a is in the first image when a + 30 is within half of its field of view
    angle = torch.rad2deg(torch.atan((torch.arange(SIZE[1]) + 0.5 - SIZE[1] / 2) / FOCAL))
    row = seen[SIZE[0] // 2 - 1]
    assert torch.equal(row, angle + 30 < half_angle)


def test_surface_behind_an_obstacle_is_new():
    # a post 1 m ahead covers columns 24..40 of a wall 4 m ahead; from 1 m to the right the wall behind it shows
    first = wall(4.0)
    first[:, 24:40] = 1.0
    seen = seen_from(wall(4.0), camera(x=1.0), first, camera())
    u = torch.arange(SIZE[1]) + 0.5 + 1.0 / 4 * FOCAL  # where the column's wall point lies in the first image
    hidden = (u > 24.5) & (u < 39.5)  # half a pixel at the post's edges belongs to both
    clear = (u < 23.5) | ((u > 40.5) & (u < SIZE[1]))
    assert not seen[:, hidden].any()
    assert seen[:, clear].all()
    assert hidden.any() and clear.any()


@pytest.mark.parametrize(("factor", "expected"), [(1.02, True), (1.05, False), (0.98, True), (0.95, False)])
def test_depth_within_three_percent_is_one_surface(factor: float, expected: bool):
    seen = seen_from(wall(4.0 * factor), camera(), wall(4.0), camera())
    assert bool(seen.all()) is expected and bool(seen.any()) is expected


def test_unknown_depth_and_points_behind_are_new():
    assert not seen_from(wall(3.0), camera(turn_deg=180), wall(3.0), camera()).any()
    assert not seen_from(wall(0.0), camera(), wall(3.0), camera()).any()


def test_batch_equals_single_views():
    views = [camera(x=0.3), camera(turn_deg=20), camera(z=0.5)]
    depth = torch.stack([wall(4.0), floor(), floor()])
    together = seen_from(depth, Camera.stack(views), floor(), camera())
    for i, view in enumerate(views):
        assert torch.equal(together[i], seen_from(depth[i], view, floor(), camera()))


def test_first_depth_of_another_size_is_rejected():
    with pytest.raises(ValueError, match="^first_depth: expected"):
        seen_from(wall(4.0), camera(), torch.ones(4, 4), camera())
