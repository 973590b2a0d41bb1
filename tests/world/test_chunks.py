import pytest
import torch

from mirage_sim.geometry import Camera, se3_exp, se3_log
from mirage_sim.world.chunks import Horizon, frames_of, latents_of

CHUNK = {"latents": 9, "overlap": 1, "preceding": 2, "fps": 16.0}


@pytest.mark.parametrize(("latents", "stride", "frames"), [(1, 1, 1), (5, 1, 5), (1, 4, 1), (9, 4, 33), (2, 8, 9)])
def test_frames_and_latents_are_inverse(latents, stride, frames):
    assert frames_of(latents, stride) == frames
    assert latents_of(frames, stride) == latents


@pytest.mark.parametrize(("frames", "stride"), [(0, 1), (32, 4), (2, 4), (5, 0), (-3, 4)])
def test_frame_numbers_that_do_not_fit_are_rejected(frames, stride):
    with pytest.raises(ValueError, match="frames"):
        latents_of(frames, stride)


def test_zero_latents_are_rejected():
    with pytest.raises(ValueError, match="latents"):
        frames_of(0, 4)


def looking(twist: list[float]) -> Camera:
    return Camera.from_fov(se3_exp(torch.tensor(twist)), 60.0, (8, 12))


HERE, THERE = looking([0.0, 0.2, 0.0, 0.1, 0.0, 0.0]), looking([0.3, 0.0, 0.4, 0.0, 0.5, 0.1])


def test_default_horizon_is_one_frame_per_step():
    horizon = Horizon()
    path = horizon.path(HERE, THERE, 1)
    assert torch.equal(path.c2w[0], THERE.c2w) and len(path) == 1
    assert torch.equal(horizon.ahead(HERE, path, 1).c2w, path.c2w)
    assert (horizon.frames(1), horizon.window, horizon.dt(1)) == (1, 1, 0.1)


@pytest.mark.parametrize("keep", [1, 3, 8])
def test_chunk_continues_the_twist_of_the_step(keep):
    horizon = Horizon(keep=keep, **CHUNK)
    assert (horizon.frames(4), horizon.window, horizon.dt(4)) == (4 * keep, 3, 0.25 * keep)
    path = horizon.path(HERE, THERE, 4)
    assert len(path) == 4 * keep and torch.equal(path.c2w[-1], THERE.c2w)
    kept = horizon.kept(path, 4)
    assert torch.equal(kept.c2w, path.c2w[3::4])
    ahead = horizon.ahead(HERE, path, 4)
    assert torch.equal(ahead.c2w[: keep + 1], torch.cat([HERE.c2w[None], kept.c2w]))
    twist = se3_log(torch.linalg.inv(HERE.c2w) @ THERE.c2w) / keep
    for i in range(9):
        expected = HERE.c2w @ se3_exp(i * twist)
        torch.testing.assert_close(ahead.c2w[i], expected, atol=1e-5, rtol=0)


def test_chunk_continues_motion_of_last_latent_frame():
    horizon = Horizon(keep=2, **CHUNK)
    first = horizon.path(HERE, THERE, 4)[:4]
    turn = THERE.c2w @ se3_exp(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.0]))
    path = Camera(torch.cat([first.c2w, turn.expand(4, 4, 4)]), THERE.K.expand(8, 3, 3), THERE.size)
    ahead = horizon.ahead(HERE, path, 4)
    torch.testing.assert_close(ahead.c2w[3], turn @ torch.linalg.inv(first.c2w[-1]) @ turn, atol=1e-5, rtol=0)


def test_focal_length_is_interpolated():
    wide = Camera.from_fov(THERE.c2w, 80.0, (8, 12))
    path = Horizon(**CHUNK).path(HERE, wide, 4)
    assert torch.equal(path.K[-1], wide.K)
    torch.testing.assert_close(path.K[1], (HERE.K + wide.K) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": 9}, r"keep: expected an integer in \[1, 8\], got 9"),
        ({"keep": 0}, "keep"),
        ({"keep": 1.5}, "keep"),
        ({"overlap": 2}, r"overlap: expected an integer in \[0, 1\], got 2"),
        ({"latents": True}, "latents"),
        ({"overlap": 0, "preceding": 0}, "preceding: expected an integer in .1, 1000., got 0"),
        ({"fps": 0}, "fps: expected a positive number, got 0"),
    ],
)
def test_invalid_horizons_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        Horizon(**{**CHUNK, **change})


def test_temporal_stride_requires_overlap():
    with pytest.raises(ValueError, match="overlap: expected 1 for a codec with a temporal stride of 4, got 0"):
        Horizon().frames(4)
