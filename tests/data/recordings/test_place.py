"""A recording in each layout becomes a world that shows the true place, off the recorded path too."""

from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from support.clips import cast, toy_clip
from support.recordings import toy_frames, write_bag, write_re10k, write_transforms, write_tum
from support.toy_world import SIZE, toy_model

from mirage_sim.data.clips import save_clip
from mirage_sim.data.recordings import RecordedFrame, open_recording
from mirage_sim.data.recordings.place import import_place
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.world import WorldModel

COUNT = 12
ASIDE = se3_exp(torch.tensor([0.3, 0.0, 0.0, 0.0, 0.17, 0.0]))  # from the first camera


def write_clip(folder: Path, frames: list[RecordedFrame]) -> Path:
    path = folder / "walk.safetensors"
    save_clip(toy_clip(0, len(frames), SIZE), path)
    return path


WRITERS: dict[str, Callable[[Path, list[RecordedFrame]], Path]] = {
    "mcap": lambda folder, frames: write_bag(folder / "bag", frames),
    "sqlite3": lambda folder, frames: write_bag(folder / "bag", frames, "sqlite3"),
    "tum": write_tum,
    "nerfstudio": write_transforms,
    "clip": write_clip,
    "realestate10k": write_re10k,
}
WITHOUT_DEPTH = ("realestate10k",)


@pytest.fixture(scope="module")
def toy() -> WorldModel:
    return toy_model()


@pytest.fixture(scope="module")
def walk() -> list[RecordedFrame]:
    return toy_frames(COUNT, SIZE)


@pytest.fixture(scope="module")
def aside(walk: list[RecordedFrame]) -> tuple[np.ndarray, np.ndarray]:
    """True image and depth beside the recorded path."""
    phase = 6.0 * torch.rand(3, generator=torch.Generator().manual_seed(0))
    first = walk[0].camera
    image, depth = cast(Camera(first.c2w @ ASIDE, first.K, first.size), phase)
    return image.numpy(), depth.numpy()


@pytest.mark.parametrize("layout", WRITERS)
def test_imported_world_shows_the_place_off_path(layout, tmp_path, toy, walk, aside):
    place = import_place(open_recording(WRITERS[layout](tmp_path, walk)), toy)
    assert place.images == COUNT and place.keyframes[0] == 0 and 1 < len(place.keyframes) < COUNT
    entries = place.world.state.keyframes.entries
    for entry, number in zip(entries, place.keyframes, strict=True):
        np.testing.assert_array_equal(entry.image.permute(1, 2, 0), walk[number].image)
        assert entry.measured is (layout not in WITHOUT_DEPTH)
    first = place.world.camera
    torch.testing.assert_close(first.c2w, torch.eye(4), atol=1e-4, rtol=0)  # level, at the first camera

    path = tmp_path / "place.world"
    place.world.save(path)
    env = gymnasium.make("MirageWorld-v0", world=toy, starts=path, disable_env_checker=True)
    observation, _ = env.reset(seed=1, options={"start": 0})
    np.testing.assert_array_equal(observation, walk[0].image)
    world = env.unwrapped.world.fork(1)[0]
    shown = world.step(Camera(ASIDE, first.K, first.size))
    true, depth = aside
    repeated = psnr(walk[0].image, true)
    if layout in WITHOUT_DEPTH:
        assert psnr(shown.frame, true) > repeated + 3
    else:
        assert psnr(shown.frame, true) > 24 > repeated + 5
        assert np.median(np.abs(shown.depth - depth) / depth) < 0.02


def test_chosen_images_alone_are_imported(tmp_path, toy, walk):
    place = import_place(open_recording(write_tum(tmp_path, walk)), toy, [2, 11])
    assert place.images == 2 and place.keyframes == (2, 11)
    relative = torch.linalg.inv(walk[2].camera.c2w) @ walk[11].camera.c2w
    second = place.world.state.keyframes.entries[1].camera.c2w
    # the world's origin is the recording's first camera, whichever images are imported
    first = place.world.state.keyframes.entries[0].camera.c2w
    torch.testing.assert_close(torch.linalg.inv(first) @ second, relative, atol=1e-4, rtol=0)


def test_an_image_that_adds_nothing_is_no_keyframe(tmp_path, toy, walk):
    still = [RecordedFrame(walk[0].image, walk[0].depth, walk[0].camera, walk[0].stamp + i / 10) for i in range(5)]
    place = import_place(open_recording(write_tum(tmp_path, still)), toy)
    assert (place.images, place.keyframes) == (5, (0,))
