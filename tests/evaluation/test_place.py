"""Evaluation of imported places: which pixels count, which image is nearest, which images are held out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.clips import toy_clip
from support.recordings import toy_frames, write_re10k, write_transforms, write_tum
from support.toy_world import toy_model

from mirage_sim.data.clips import save_clip
from mirage_sim.data.recordings import RecordedFrame, open_recording
from mirage_sim.evaluation import place
from mirage_sim.evaluation.place import (
    means,
    nearest,
    observed_mask,
    score_frame,
    score_recording,
    sources_of,
    split_recording,
)
from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.world import WorldModel

SIZE = (48, 64)


@pytest.fixture(scope="module")
def toy() -> WorldModel:
    return toy_model()


def wall(x: float = 0.0, turn: float = 0.0, depth: float | None = 4.0) -> RecordedFrame:
    """An image of the plane z = 4 m from a camera that stands aside, or has turned to the right."""
    camera = Camera.from_fov(se3_exp(torch.tensor([x, 0.0, 0.0, 0.0, turn, 0.0])), 60.0, SIZE)
    measured = None if depth is None else np.full(SIZE, depth, np.float32)
    return RecordedFrame(np.zeros((*SIZE, 3), np.uint8), measured, camera, 0.0)


def test_two_seconds_are_held_out_after_each_four(tmp_path: Path):
    save_clip(toy_clip(0, 130, (24, 32)), tmp_path / "walk.safetensors")  # 13 s at 10 Hz
    split = split_recording(open_recording(tmp_path / "walk.safetensors"))
    assert split.stretches == (tuple(range(40, 60)), tuple(range(100, 120)))
    assert split.imported == (*range(40), *range(60, 100), *range(120, 130))


def test_recordings_without_times_count_as_ten_per_second(tmp_path: Path):
    folder = write_transforms(tmp_path, toy_frames(43))
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        del frame["timestamp"]
    (folder / "transforms.json").write_text(json.dumps(content))
    recording = open_recording(folder)
    assert recording.info.rate_hz is None
    assert split_recording(recording).stretches == ((40, 41, 42),)


def test_a_short_recording_is_refused(tmp_path: Path):
    save_clip(toy_clip(0, 20), tmp_path / "walk.safetensors")
    with pytest.raises(ValueError, match=r"source: expected a recording of more than 4 s, got 1\.9 s"):
        split_recording(open_recording(tmp_path / "walk.safetensors"))


def test_observed_pixels_are_those_another_image_shows():
    here, aside = wall(), wall(x=1.0)
    metre = float(here.camera.K[0, 0]) / 4.0  # pixels on the wall
    observed = observed_mask(here, [aside])
    assert observed is not None
    first = SIZE[1] - observed[24].sum()
    assert first == pytest.approx(metre, abs=1.0) and not observed[:, : int(metre) - 1].any()
    assert observed_mask(here, [aside, wall(x=-1.0)]).all()
    assert not observed_mask(here, [wall(x=1.0, depth=2.0)]).any()  # another surface
    assert not observed_mask(here, [wall(depth=None)]).any()
    assert observed_mask(wall(depth=None), [here]) is None


def test_nearest_image_weighs_place_and_direction():
    frame, beside, turned = wall(), wall(x=0.5), wall(turn=0.5)
    assert nearest([turned, beside], frame) is beside  # half a metre counts less than 29 degrees
    assert nearest([wall(x=3.0), turned], frame) is turned


def test_scores_are_taken_over_their_pixels():
    frame = wall()
    left = np.zeros(SIZE, bool)
    left[:, :32] = True
    shown = np.zeros((*SIZE, 3), np.uint8)
    shown[:, 32:] = 255
    depth = np.full(SIZE, 4.4, np.float32)
    depth[:, 32:] = 40.0
    row = score_frame(frame, {"observed": shown, "nearest_image": 255 - shown}, depth, left)
    assert row["observed_psnr"] == 50.0 and row["unobserved_psnr"] == 0.0 == row["nearest_image_psnr"]
    assert row["psnr"] == pytest.approx(10 * np.log10(2), abs=1e-3)
    assert row["absrel"] == pytest.approx(0.1, abs=1e-5) and row["observed_part"] == 0.5
    nothing = score_frame(frame, {"observed": shown}, depth, np.zeros(SIZE, bool))
    assert np.isnan(nothing["observed_psnr"]) and np.isnan(nothing["absrel"])
    assert np.isnan(score_frame(frame, {"observed": shown}, depth, None)["unobserved_psnr"])


def test_means_ignore_what_was_not_measured():
    marks = means([{"a": 1.0, "b": None}, {"a": 3.0, "b": None}, {"a": None, "b": None}])
    assert marks["a"] == 2.0 and marks["a_lo"] <= 2.0 <= marks["a_hi"] and marks["b"] is None


def test_folders_of_recordings_are_opened_one_by_one(tmp_path: Path):
    for name in ("b", "a"):
        save_clip(toy_clip(0, 3), tmp_path / f"{name}.safetensors")
    assert [path.name for path in sources_of(tmp_path)] == ["a.safetensors", "b.safetensors"]
    folder = write_tum(tmp_path / "tum", toy_frames(2))
    assert sources_of(folder) == [folder]
    assert sources_of(tmp_path / "a.safetensors") == [tmp_path / "a.safetensors"]


def test_an_imported_toy_room_is_shown_where_it_was_seen(tmp_path: Path, toy: WorldModel, monkeypatch):
    monkeypatch.setattr(place, "_STEPS_TIMED", 2)
    save_clip(toy_clip(0, 44, SIZE), tmp_path / "walk.safetensors")
    scores, sheet = score_recording(open_recording(tmp_path / "walk.safetensors"), toy)
    assert scores["observed_psnr"] > 25 > scores["start_image_psnr"] + 5
    assert scores["observed_psnr"] > scores["latents_only_psnr"] + 5
    assert scores["absrel"] < 0.25 and 0.3 < scores["observed_part"] <= 1
    assert scores["keyframes"] > 1 and scores["import_images_per_s"] > 0 and scores["step_rate_ratio"] > 0
    assert sheet.width > 4 * SIZE[1]


def test_without_depth_there_is_no_absrel(tmp_path: Path, toy: WorldModel, monkeypatch):
    monkeypatch.setattr(place, "_STEPS_TIMED", 1)
    monkeypatch.setattr(place, "HELD_OUT", 0.3)
    monkeypatch.setattr(place, "IMPORTED", 0.5)
    scores, _ = score_recording(open_recording(write_re10k(tmp_path / "walk", toy_frames(8, SIZE))), toy)
    assert scores["absrel"] is None and scores["unobserved_psnr"] is None and scores["observed_psnr"] > 0
