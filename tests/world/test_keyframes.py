import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.world import Keyframe

SIZE = (24, 32)
FOCAL = 20.0
FAR = 4.0  # metres, of the wall that all images show


def camera(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Camera:
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([x, y, z])
    K = torch.tensor([[FOCAL, 0.0, SIZE[1] / 2], [0.0, FOCAL, SIZE[0] / 2], [0.0, 0.0, 1.0]])
    return Camera(c2w[None], K[None], SIZE)


def wall(frame: torch.Tensor) -> Keyframe:
    return Keyframe(frame, torch.full(SIZE, FAR), camera()[0])


def noise() -> torch.Tensor:
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


NOTHING = torch.full((3, 1, *SIZE), 9.0)  # frames of a colour that no image has


def test_static_camera_sees_the_keyframe():
    shown = wall(noise()).reproject(NOTHING, torch.full((1, *SIZE), FAR), camera(), 1.0)
    torch.testing.assert_close(shown[:, 0], noise(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("columns", "rows"), [(3, 0), (-5, 0), (0, 2), (-1, -4)])
def test_wall_shifts_and_new_pixels_are_kept(columns, rows):
    metre = FAR / FOCAL  # that a pixel spans on the wall
    moved = camera(columns * metre, rows * metre)
    shown = wall(noise()).reproject(NOTHING, torch.full((1, *SIZE), FAR), moved, 1.0)[:, 0]
    expected = torch.full((3, *SIZE), 9.0)
    for v in range(SIZE[0]):
        for u in range(SIZE[1]):
            if 0 <= v + rows < SIZE[0] and 0 <= u + columns < SIZE[1]:
                expected[:, v, u] = noise()[:, v + rows, u + columns]
    torch.testing.assert_close(shown, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("depth", [0.0, math.inf, math.nan, FAR * 0.8, FAR * 1.3])
def test_other_and_unknown_surfaces_are_kept(depth):
    """The camera moved by eight pixels of the wall; on a surface at 0.8 of its depth that is two pixels off."""
    depths = torch.full((1, *SIZE), FAR)
    depths[..., 5:9, 10:20] = depth
    shown = wall(noise()).reproject(NOTHING, depths, camera(8 * FAR / FOCAL), 1.0)
    other = torch.ones(SIZE, dtype=torch.bool)
    other[:, : SIZE[1] - 8] = False
    other[5:9, 10:20] = True
    assert (shown[:, 0, other] == 9).all() and (shown[:, 0, ~other] <= 1).all()


@pytest.mark.parametrize("off", [0.5, 1.5])
def test_depth_error_within_tolerance_is_accepted(off):
    """Seen from eight pixels aside, a depth of FAR / (1 + off / 8) leads to a place that is ``off`` pixels away."""
    depths = torch.full((1, *SIZE), FAR / (1 + off / 8))
    shown = wall(noise()).reproject(NOTHING, depths, camera(8 * FAR / FOCAL), 1.0)
    assert bool((shown[..., :20] <= 1).all()) == (off < 1)
    shown = wall(noise()).reproject(NOTHING, torch.full((1, *SIZE), 9.0), camera(), 1.0)
    torch.testing.assert_close(shown[:, 0], noise(), atol=1e-4, rtol=0)  # from where it was taken, whatever the depth


def test_keyframe_pixels_of_unknown_depth_are_not_used():
    one = Keyframe(noise(), torch.zeros(SIZE), camera()[0])
    assert torch.equal(one.reproject(NOTHING, torch.full((1, *SIZE), FAR), camera(), 1.0), NOTHING)


def test_magnified_ramp_stays_linear():
    ramp = torch.linspace(-0.5, 0.5, SIZE[1]).expand(3, *SIZE).contiguous()
    shown = wall(ramp).reproject(NOTHING, torch.full((1, *SIZE), FAR / 2), camera(z=FAR / 2), 1.0)[:, 0]
    step = 1 / (SIZE[1] - 1)  # of the ramp; half of it where twice as many pixels show it
    half = torch.linspace(-0.25, 0.25, SIZE[1]).expand(3, *SIZE)
    torch.testing.assert_close(shown, half, atol=step / 4, rtol=0)


def test_magnified_texture_keeps_its_contrast():
    """Of stripes two pixels wide, seen half as large again, interpolation alone keeps less than what is shown."""
    stripes = 0.5 * (1 - 2 * (torch.arange(SIZE[1]) // 2 % 2).float()).expand(3, *SIZE).contiguous()
    nearer = 1.5
    depth, at = torch.full((1, *SIZE), FAR / nearer), camera(z=FAR - FAR / nearer)
    shown = wall(stripes).reproject(NOTHING, depth, at, 1.0)[:, 0, :, 4:-4]
    place = torch.nn.functional.affine_grid(torch.eye(2, 3)[None] / nearer, [1, 3, *SIZE], align_corners=False)
    plain = torch.nn.functional.grid_sample(stripes[None], place, mode="bicubic", align_corners=False)[0, :, :, 4:-4]
    assert shown.std() > 1.15 * plain.std()
    assert (shown.sign() == plain.sign()).float().mean() > 0.99
    closer = camera()
    closer.K[:, :2, :2] *= nearer  # a longer lens magnifies like a shorter way
    lens = wall(stripes).reproject(NOTHING, torch.full((1, *SIZE), FAR), closer, 1.0)[:, 0, :, 4:-4]
    torch.testing.assert_close(lens, shown, atol=1e-3, rtol=0)
    same_size = wall(stripes).reproject(NOTHING, torch.full((1, *SIZE), FAR), camera(), 1.0)[:, 0]
    torch.testing.assert_close(same_size, stripes, atol=1e-4, rtol=0)


@given(
    twist=st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    seed=st.integers(0, 2**31),
    tolerance=st.floats(1e-3, 10),
)
@settings(max_examples=60, deadline=None)
def test_pixels_are_unchanged_or_within_range(twist, seed, tolerance):
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(2, *SIZE, generator=generator) * 8 - 1
    frames = torch.full((3, 2, *SIZE), 9.0)
    moved = se3_exp(torch.tensor(twist))
    cameras = Camera(torch.stack([moved, torch.eye(4)]), camera().K.expand(2, 3, 3), SIZE)
    one = Keyframe(noise(), torch.rand(SIZE, generator=generator) * 5, camera()[0])
    shown = one.reproject(frames, depth, cameras, tolerance)
    own = (shown == 9).all(0)
    assert (shown[:, ~own].abs() <= 1).all()
    assert own[depth <= 0].all()
