import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.world import Keyframe, Keyframes

SIZE = (24, 32)
FOCAL = 20.0
FAR = 4.0  # metres, of the wall that all pictures show


def camera(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Camera:
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([x, y, z])
    K = torch.tensor([[FOCAL, 0.0, SIZE[1] / 2], [0.0, FOCAL, SIZE[0] / 2], [0.0, 0.0, 1.0]])
    return Camera(c2w[None], K[None], SIZE)


def to_bytes(frame: torch.Tensor) -> torch.Tensor:
    return ((frame + 1) * 127.5).round().byte()


def wall(frame: torch.Tensor, depth: float = FAR, z: float = 0.0, measured: bool = False) -> Keyframe:
    return Keyframe(to_bytes(frame), torch.full(SIZE, depth), camera(z=z)[0], measured)


def noise(seed: int = 0) -> torch.Tensor:
    values = torch.randint(256, (3, *SIZE), generator=torch.Generator().manual_seed(seed))
    return values / 127.5 - 1


def reproject(keyframe: Keyframe, frames: torch.Tensor, depth: torch.Tensor, at: Camera, tolerance: float = 1.0):
    shown, _ = Keyframes().add(keyframe, 0).reproject([0], frames, depth, at, tolerance, 1)
    return shown


NOTHING = torch.full((3, 1, *SIZE), 9.0)  # frames of a colour that no picture has


def test_camera_that_did_not_move_sees_the_image():
    shown = reproject(wall(noise()), NOTHING, torch.full((1, *SIZE), FAR), camera())
    torch.testing.assert_close(shown[:, 0], noise(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("columns", "rows"), [(3, 0), (-5, 0), (0, 2), (-1, -4)])
def test_wall_moves_against_the_camera_and_new_pixels_stay(columns, rows):
    metre = FAR / FOCAL  # that a pixel spans on the wall
    moved = camera(columns * metre, rows * metre)
    shown = reproject(wall(noise()), NOTHING, torch.full((1, *SIZE), FAR), moved)[:, 0]
    expected = torch.full((3, *SIZE), 9.0)
    for v in range(SIZE[0]):
        for u in range(SIZE[1]):
            if 0 <= v + rows < SIZE[0] and 0 <= u + columns < SIZE[1]:
                expected[:, v, u] = noise()[:, v + rows, u + columns]
    torch.testing.assert_close(shown, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("depth", [0.0, math.inf, math.nan, FAR * 0.8, FAR * 1.3])
def test_other_surfaces_and_unknown_ones_are_left_alone(depth):
    """The camera moved by eight pixels of the wall; on a surface at 0.8 of its depth that is two pixels off."""
    depths = torch.full((1, *SIZE), FAR)
    depths[..., 5:9, 10:20] = depth
    shown = reproject(wall(noise()), NOTHING, depths, camera(8 * FAR / FOCAL))
    other = torch.ones(SIZE, dtype=torch.bool)
    other[:, : SIZE[1] - 8] = False
    other[5:9, 10:20] = True
    assert (shown[:, 0, other] == 9).all() and (shown[:, 0, ~other] <= 1).all()


@pytest.mark.parametrize("off", [0.5, 1.5])
def test_depth_may_err_by_as_much_as_can_be_seen(off):
    """Seen from eight pixels aside, a depth of FAR / (1 + off / 8) leads to a place that is ``off`` pixels away."""
    depths = torch.full((1, *SIZE), FAR / (1 + off / 8))
    shown = reproject(wall(noise()), NOTHING, depths, camera(8 * FAR / FOCAL))
    assert bool((shown[..., :20] <= 1).all()) == (off < 1)
    shown = reproject(wall(noise()), NOTHING, torch.full((1, *SIZE), 9.0), camera())
    torch.testing.assert_close(shown[:, 0], noise(), atol=1e-4, rtol=0)  # from where it was taken, whatever the depth


def test_pixels_without_depth_are_not_shown():
    one = Keyframe(to_bytes(noise()), torch.zeros(SIZE), camera()[0])
    assert torch.equal(reproject(one, NOTHING, torch.full((1, *SIZE), FAR), camera()), NOTHING)


def test_a_ramp_stays_a_ramp_however_near_it_is_seen():
    ramp = torch.linspace(-0.5, 0.5, SIZE[1]).expand(3, *SIZE).contiguous()
    shown = reproject(wall(ramp), NOTHING, torch.full((1, *SIZE), FAR / 2), camera(z=FAR / 2))[:, 0]
    step = 1 / (SIZE[1] - 1)  # of the ramp; half of it where twice as many pixels show it
    half = torch.linspace(-0.25, 0.25, SIZE[1]).expand(3, *SIZE)
    torch.testing.assert_close(shown, half, atol=step / 4 + 4e-3, rtol=0)


def test_what_is_seen_nearer_keeps_its_contrast():
    """Of stripes two pixels wide, seen half as large again, interpolation alone keeps less than what is shown."""
    stripes = 0.5 * (1 - 2 * (torch.arange(SIZE[1]) // 2 % 2).float()).expand(3, *SIZE).contiguous()
    nearer = 1.5
    depth, at = torch.full((1, *SIZE), FAR / nearer), camera(z=FAR - FAR / nearer)
    shown = reproject(wall(stripes), NOTHING, depth, at)[:, 0, :, 4:-4]
    place = torch.nn.functional.affine_grid(torch.eye(2, 3)[None] / nearer, [1, 3, *SIZE], align_corners=False)
    plain = torch.nn.functional.grid_sample(stripes[None], place, mode="bicubic", align_corners=False)[0, :, :, 4:-4]
    assert shown.std() > 1.15 * plain.std()
    assert (shown.sign() == plain.sign()).float().mean() > 0.99
    closer = camera()
    closer.K[:, :2, :2] *= nearer  # a longer lens magnifies like a shorter way
    lens = reproject(wall(stripes), NOTHING, torch.full((1, *SIZE), FAR), closer)[:, 0, :, 4:-4]
    torch.testing.assert_close(lens, shown, atol=1e-3, rtol=0)
    same_size = reproject(wall(stripes), NOTHING, torch.full((1, *SIZE), FAR), camera())[:, 0]
    torch.testing.assert_close(same_size, stripes, atol=5e-3, rtol=0)


@given(
    twist=st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    seed=st.integers(0, 2**31),
    tolerance=st.floats(1e-3, 10),
)
@settings(max_examples=60, deadline=None)
def test_every_pixel_is_the_frames_own_or_within_range(twist, seed, tolerance):
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(2, *SIZE, generator=generator) * 8 - 1
    frames = torch.full((3, 2, *SIZE), 9.0)
    moved = se3_exp(torch.tensor(twist))
    cameras = Camera(torch.stack([moved, torch.eye(4)]), camera().K.expand(2, 3, 3), SIZE)
    one = Keyframe(to_bytes(noise()), torch.rand(SIZE, generator=generator) * 5, camera()[0])
    shown = reproject(one, frames, depth, cameras, tolerance)
    own = (shown == 9).all(0)
    assert (shown[:, ~own].abs() <= 1).all()
    assert own[depth <= 0].all()


def test_finest_keyframe_is_shown():
    far, near = wall(noise(1)), wall(noise(2), depth=FAR / 2, z=FAR / 2)
    keyframes = Keyframes().add(far, 0).add(near, 0)
    depth, at = torch.full((1, *SIZE), FAR / 4), camera(z=FAR * 3 / 4)
    for chosen in ([0, 1], [1, 0]):
        shown, _ = keyframes.reproject(chosen, NOTHING, depth, at, 1.0, 1)
        assert torch.equal(shown, reproject(near, NOTHING, depth, at))


def test_first_chosen_of_equally_fine_keyframes_is_shown():
    keyframes = Keyframes().add(wall(noise(1)), 0).add(wall(noise(2)), 0)
    depth = torch.full((1, *SIZE), FAR)
    shown, _ = keyframes.reproject([1, 0], NOTHING, depth, camera(), 1.0, 1)
    torch.testing.assert_close(shown[:, 0], noise(2), atol=1e-4, rtol=0)


def test_choose_prefers_overlap_and_skips_the_unseen():
    turned = torch.eye(4)
    turned[0, 0] = turned[2, 2] = -1.0
    behind = Keyframe(to_bytes(noise()), torch.full(SIZE, FAR), Camera(turned, camera().K[0], SIZE))
    aside = Keyframe(to_bytes(noise()), torch.full(SIZE, FAR), camera(x=3.0)[0])
    keyframes = Keyframes().add(behind, 0).add(aside, 0).add(wall(noise()), 0)
    nothing = torch.zeros(SIZE)
    assert keyframes.choose(nothing, camera()[0]) == [2, 1]
    assert keyframes.choose(torch.full(SIZE, FAR / 2), camera()[0]) == []  # something nearer hides all of them


def test_oldest_shown_keyframes_are_forgotten_beyond_the_bytes():
    one = wall(noise())
    keyframes = Keyframes()
    for step in range(3):
        keyframes = keyframes.add(wall(noise(step)), step, max_bytes=3 * one.nbytes)
    depth = torch.full((1, *SIZE), FAR)
    _, keyframes = keyframes.reproject([0], NOTHING, depth, camera(), 1.0, now=7)
    assert keyframes.seen == (7, 1, 2)
    more = keyframes.add(wall(noise(9)), 8, max_bytes=3 * one.nbytes)
    assert more.seen == (7, 2, 8) and more.nbytes == 3 * one.nbytes
    assert len(keyframes.add(one, 8, max_bytes=1)) == 1


def test_only_measured_depth_is_rendered():
    keyframes = Keyframes().add(wall(noise()), 0).add(wall(noise(), depth=2.0, measured=True), 0)
    assert keyframes.measured_depth([0], camera()[0]) is None
    assert torch.equal(keyframes.measured_depth([0, 1], camera()[0]), torch.full(SIZE, 2.0))
