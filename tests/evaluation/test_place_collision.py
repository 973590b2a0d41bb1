"""Recordings of simulators: truth off their path, and collisions in the worlds made from them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.clips import toy_clip
from support.toy_world import untrained_model

from mirage_sim import cli
from mirage_sim.data.clips import Clip, save_clip
from mirage_sim.data.recordings import open_recording
from mirage_sim.data.simulators import CameraMount, ReferenceSimulator
from mirage_sim.evaluation import place
from mirage_sim.evaluation.ground_truth import follow, open_simulator
from mirage_sim.evaluation.place_collision import count_recording
from mirage_sim.evaluation.simulated import ASIDE, TURNED, mount_of, off_path, simulated_clip

SEED = 780_100
MOUNT = CameraMount(1.2, 70.0, 6.0)


@pytest.fixture(scope="module")
def simulator() -> Iterator[ReferenceSimulator]:
    try:
        made = open_simulator("homes", "procedural")
    except ImportError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.fixture(scope="module")
def clip(simulator: ReferenceSimulator) -> Clip:
    """A turn on the spot, then a walk, by a camera that looks down."""
    commands = [(0.0, 1.0)] * 30 + [(0.7, 0.3)] * 20
    made = follow(simulator, "procedural", SEED, commands, MOUNT)
    return replace(made, depth=made.depth.half(), source=made.source | {"simulator": "homes"})


@pytest.fixture
def saved(clip: Clip, tmp_path: Path) -> Path:
    path = tmp_path / "procedural-780100.safetensors"
    save_clip(clip, path)
    return path


def test_mount_is_that_of_the_recording(clip: Clip):
    mount = mount_of(clip)
    assert (mount.height, mount.fov_deg) == (pytest.approx(1.2, abs=1e-3), pytest.approx(70.0, abs=1e-2))
    assert mount.pitch_deg == pytest.approx(6.0, abs=1e-2)


def test_cameras_off_the_path_stand_aside_and_turn(clip: Clip, simulator: ReferenceSimulator):
    found = list(off_path(clip, simulator, [0, 45]))
    assert {number for number, _ in found} <= {0, 45} and found
    for number, frame in found:
        relative = torch.linalg.inv(clip.c2w[number].double()) @ frame.camera.c2w.double()
        assert abs(float(relative[0, 3])) == pytest.approx(ASIDE, abs=1e-4)
        # the axes of a pitched camera turn about the vertical
        ahead, before = frame.camera.c2w[[0, 2], 2], clip.c2w[number][[0, 2], 2]
        cosine = float(ahead @ before / (ahead.norm() * before.norm()))
        assert np.arccos(cosine) == pytest.approx(TURNED, abs=1e-3)
        simulator.reset(SEED)
        assert frame.image.shape == clip.frames.shape[1:] and frame.image.std() > 5


def test_bodies_are_put_where_recorded(clip: Clip, simulator: ReferenceSimulator):
    simulator.mount = MOUNT
    simulator.reset(SEED)
    pose = clip.c2w[40].double().numpy()
    simulator.put(pose[[0, 2], 3], np.arctan2(-pose[2, 2], pose[0, 2]))
    np.testing.assert_allclose(simulator.camera().c2w, clip.c2w[40], atol=1e-5)
    np.testing.assert_array_equal(simulator.render()[0], clip.frames[40])


def test_measured_places_block_where_the_simulator_does(saved: Path, clip: Clip, simulator: ReferenceSimulator):
    counts = count_recording(saved, clip, simulator, untrained_model())
    tp, fp, fn, tn, _ = counts.sum((0, 1))
    assert tp >= 3 and tn >= 3
    assert tp / (tp + fp) >= 0.9 and fn <= tp


@pytest.mark.slow
def test_views_off_the_path_are_scored(saved: Path, monkeypatch: pytest.MonkeyPatch):
    model, recording = untrained_model(), open_recording(saved)
    monkeypatch.setattr(place, "_EVERY", 8)
    split = place.split_recording(recording)
    imported = place.import_place(recording, model, split.imported)
    level = place.level_from_recording(recording)
    frames = [place.level_frame(f, level, model.size) for f in recording.frames(list(imported.keyframes))]
    score = place.off_path_psnr(recording, imported.world, split, frames)
    assert score is not None and score > 18


def test_off_path_is_null_without_a_simulator(tmp_path: Path):
    save_clip(toy_clip(0, 4), tmp_path / "walk.safetensors")
    recording = open_recording(tmp_path / "walk.safetensors")
    assert place.off_path_psnr(recording, None, place.Split((0,), ((1,),)), []) is None  # type: ignore[arg-type]


def test_recordings_without_a_simulator_are_refused(tmp_path: Path, capsys):
    save_clip(toy_clip(0, 4), tmp_path / "walk.safetensors")
    with pytest.raises(ValueError, match="recording: expected a clip that names its simulator"):
        simulated_clip(tmp_path / "walk.safetensors")
    (tmp_path / "walk.txt").write_text("")
    with pytest.raises(ValueError, match="recording: expected a clip of mirage record"):
        simulated_clip(tmp_path / "walk.txt")
    assert cli.main(["eval", "collision", f"recording={tmp_path / 'none'}"]) == 2
    assert "recording: expected a clip or a folder of clips" in capsys.readouterr().err.splitlines()[-1]
