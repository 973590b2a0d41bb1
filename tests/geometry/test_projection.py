import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.geometry import Camera, project, se3_exp, splat, unproject


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(), (2,), (2, 3)]))
def test_unproject_and_project_are_inverse(seed: int, batch: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    c2w = se3_exp(torch.randn(*batch, 6, generator=generator))
    camera = Camera.from_fov(c2w, 70.0, (6, 9))
    depth = torch.rand(*batch, 6, 9, generator=generator) * 10 + 0.1
    u, v, z = project(unproject(depth, camera).flatten(-3, -2), camera)
    column, row = torch.meshgrid(torch.arange(9) + 0.5, torch.arange(6) + 0.5, indexing="xy")
    assert torch.allclose(u, column.flatten().expand_as(u), atol=1e-3)
    assert torch.allclose(v, row.flatten().expand_as(v), atol=1e-3)
    assert torch.allclose(z, depth.flatten(-2), rtol=1e-4, atol=1e-5)


def test_slanted_plane_from_a_moved_camera() -> None:
    """Points of a plane seen by one camera fall, in another, where the plane's own homography says."""
    normal, distance = torch.tensor([0.4, -0.2, 1.0], dtype=torch.float64), 3.0  # normal . p = distance
    first = Camera.from_fov(torch.eye(4), 60.0, (24, 32)).resize((6, 8))
    column, row = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(6) + 0.5, indexing="xy")
    pixels = torch.stack([column, row, torch.ones_like(row)], dim=-1).double()
    rays = pixels @ torch.linalg.inv(first.K.double()).T
    depth = distance / (rays @ normal)
    motion = se3_exp(torch.tensor([0.3, 0.1, 0.2, 0.05, -0.1, 0.02]))
    second = Camera(motion, first.K, first.size)
    b_from_a = torch.linalg.inv(motion.double())
    bridge = b_from_a[:3, :3] + torch.outer(b_from_a[:3, 3], normal) / distance
    homography = first.K.double() @ bridge @ torch.linalg.inv(first.K.double())
    mapped = pixels.flatten(0, 1) @ homography.T
    u, v, _ = project(unproject(depth.float(), first).flatten(0, 1), second)
    assert torch.allclose(torch.stack([u, v]), (mapped[:, :2] / mapped[:, 2:]).T.float(), atol=1e-4)


def test_latent_and_pixel_grid_agree_on_a_moved_camera() -> None:
    """The same world point sits at the same place of both grids: no half-cell shift between strides."""
    camera = Camera.from_fov(se3_exp(torch.tensor([0.2, 0, -0.3, 0, 0.3, 0])), 60.0, (96, 128))
    points = torch.rand(200, 3) * torch.tensor([2.0, 2.0, 2.0]) + torch.tensor([-1.0, -1.0, 2.0])
    u, v, _ = project(points, camera)
    small_u, small_v, _ = project(points, camera.resize((24, 32)))
    inside = u >= 0
    assert inside.any()
    assert torch.allclose(small_u[inside] * 4, u[inside], atol=1e-3)
    assert torch.allclose(small_v[inside] * 4, v[inside], atol=1e-3)


@pytest.mark.parametrize(
    "point",
    [(0, 0, 0), (0, 0, -1), (0.1, 0, 1e-9), (math.inf, 0, 1), (0, 0, math.inf), (-math.inf,) * 3, (math.nan, 0, 1)],
)
def test_points_behind_or_at_infinity_are_outside_the_image(point: tuple[float, float, float]) -> None:
    camera = Camera.from_fov(torch.eye(4), 60.0, (6, 8))
    u, v, z = project(torch.tensor([point]), camera)
    assert (float(u), float(v), float(z)) == (-1.0, -1.0, 0.0)
    seen = splat(torch.tensor([point]), torch.tensor([0]), torch.ones(1), camera)
    assert bool((seen.index == -1).all())
    assert all(torch.equal(t, torch.zeros_like(t)) for t in (seen.depth, seen.offset, seen.log_scale))


def test_point_just_outside_the_image_is_outside() -> None:
    camera = Camera.from_fov(torch.eye(4), 90.0, (4, 4))
    points = torch.tensor([[-1.001, 0.1, 1], [1.0, 0.1, 1], [0.1, -1.001, 1], [0.1, 1.0, 1], [-0.999, -0.999, 1]])
    seen = splat(points, torch.arange(5), torch.ones(5), camera)
    assert seen.index[0, 0] == 4 and int((seen.index >= 0).sum()) == 1


def test_unproject_rejects_depth_of_another_size() -> None:
    with pytest.raises(ValueError, match="depth: expected"):
        unproject(torch.ones(3, 4), Camera.from_fov(torch.eye(4), 60.0, (4, 3)))
