import numpy as np
import torch

from mirage_sim.geometry import Camera, render_depth, se3_exp

SIZE = (24, 32)


def camera(*twist: float, size: tuple[int, int] = SIZE) -> Camera:
    c2w = se3_exp(torch.tensor(twist)) if twist else torch.eye(4)
    return Camera.from_fov(c2w, 60.0, size)


def plane_depth(one: Camera, normal: tuple[float, float, float], distance: float) -> torch.Tensor:
    """Exact z-depth of the plane ``normal · x = distance`` at the pixel centres, by rays of NumPy."""
    height, width = one.size
    v, u = np.mgrid[:height, :width] + 0.5
    K, c2w = one.K.numpy().astype(float), one.c2w.numpy().astype(float)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1) @ c2w[:3, :3].T
    return torch.tensor((distance - c2w[:3, 3] @ np.array(normal)) / (rays @ np.array(normal)), dtype=torch.float32)


def render(depth: torch.Tensor, one: Camera, target: Camera) -> torch.Tensor:
    return render_depth(depth[None], Camera(one.c2w[None], one.K[None], one.size), target)


def test_same_camera_renders_the_same_depth():
    depth = plane_depth(camera(), (0.1, 0.5, 1.0), 4.0)
    assert torch.allclose(render(depth, camera(), camera()), depth, rtol=1e-5)


def test_slanted_plane_is_exact_from_another_camera():
    normal, distance, target = (0.2, -0.3, 1.0), 4.0, camera(0.4, -0.1, 0.8, 0.05, 0.2, -0.1, size=(48, 64))
    found = render(plane_depth(camera(), normal, distance), camera(), target)
    exact = plane_depth(target, normal, distance)
    seen = found > 0
    assert seen[8:40, 8:40].all()
    inside = seen.clone()
    inside[:2], inside[-2:], inside[:, :2], inside[:, -2:] = False, False, False, False
    error = ((found - exact).abs() / exact)[inside]
    assert error.median() < 1e-5 and error.max() < 0.03


def test_nearest_surface_hides_the_farther_one():
    depth = torch.full(SIZE, 5.0)
    depth[8:16, 12:20] = 2.0
    found = render(depth, camera(), camera())
    assert torch.equal(found, depth)


def test_surfaces_are_not_joined_across_an_edge():
    depth = torch.full(SIZE, 5.0)
    depth[:, :16] = 2.0
    found = render(depth, camera(), camera(0.5, 0.0, 0.0, 0.0, 0.0, 0.0))
    known = found[found > 0]
    assert (found == 0).any()
    assert ((known - 2).abs() < 1e-4).logical_or((known - 5).abs() < 1e-4).all()


def test_unknown_depth_and_points_behind_the_camera_show_nothing():
    depth = torch.full(SIZE, 3.0)
    depth[:, :16] = 0.0
    assert (render(depth, camera(), camera())[:, :16] == 0).all()
    assert (render(depth, camera(), camera(0.0, 0.0, 4.0, 0.0, 0.0, 0.0)) == 0).all()


def test_isolated_pixel_keeps_its_width():
    depth = torch.zeros(SIZE)
    depth[12, 16] = 2.0
    found = render(depth, camera(), camera(0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
    assert 2 <= int((found > 0).sum()) <= 6 and torch.allclose(found[found > 0], torch.tensor(1.0))


def test_several_maps_give_their_minimum():
    near, far = plane_depth(camera(), (0.0, 0.0, 1.0), 2.0), plane_depth(camera(), (0.0, 0.0, 1.0), 5.0)
    near[:, 16:] = 0.0
    one = camera()
    both = Camera(one.c2w.expand(2, 4, 4), one.K.expand(2, 3, 3), one.size)
    for depths in (torch.stack([near, far]), torch.stack([far, near])):
        found = render_depth(depths, both, one)
        assert torch.allclose(found, torch.where(near > 0, near, far))
