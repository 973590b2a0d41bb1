import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim.build import build_world_model
from mirage_sim.data.samples import PHOTOGRAPHS, StereoPair, motorcycle
from mirage_sim.evaluation import photos
from mirage_sim.evaluation.photos import OWN, REPEATED, TRUE, codec_psnr, drive_pair, evaluate
from mirage_sim.geometry import project, unproject
from mirage_sim.world import World, WorldModel


def noise_pair() -> StereoPair:
    """A wall whose disparity grows to the right."""
    rng = np.random.default_rng(0)
    disparity = np.tile(np.linspace(5, 25, 600, dtype=np.float32), (300, 1))
    left, right = rng.integers(0, 256, (2, 300, 600, 3), dtype=np.uint8)
    return StereoPair(left, right, disparity, 400.0, (280.0, 160.0), 12.0, 0.1)


def test_views_keep_corresponding_points():
    left, right = photos.views_of(noise_pair(), (96, 128))
    assert left.image.shape == (96, 128, 3) and left.camera.size == (96, 128)
    # 300 x 600 is cut to 300 x 400, then shrunk by 3.125
    u, _, _ = project(unproject(left.depth, left.camera).reshape(-1, 3), right.camera)
    moved = torch.arange(128) + 0.5 - u.reshape(96, 128)
    columns = ((torch.arange(128) + 0.5) * 3.125 + 100).floor()
    expected = (5 + 20 * columns / 599) / 3.125
    torch.testing.assert_close(moved, expected.expand(96, 128), atol=1e-3, rtol=0)
    assert left.image[0, 0] == pytest.approx(noise_pair().left[:3, 100:103].mean((0, 1)), abs=12)


def test_true_depth_is_measured_depth_of_the_world(model: WorldModel):
    left, right = photos.views_of(noise_pair(), model.size)
    world = World(model)
    world.reset(image=left.image, camera=left.camera, depth=left.depth.numpy())
    shown = drive_pair(model, left, right)
    np.testing.assert_array_equal(shown[TRUE], world.step(right.camera).frame)
    assert not np.array_equal(shown[TRUE], shown[OWN])


def test_seen_pixels_are_scored_separately():
    pair = noise_pair()
    pair.disparity[100:200, 250:350] = 0.0  # unknown
    left, right = photos.views_of(pair, (96, 128))
    unseen = np.zeros((96, 128), bool)
    unseen[34:62, 46:74] = True
    unseen[:, 125:] = True  # cut off on the left image's right side
    frame = right.image.copy()
    frame[unseen] = 255 - frame[unseen]
    scores = photos.score_pair({"x": frame}, left, right)
    assert scores["psnr_x_seen"] == 50.0 > scores["psnr_x"]
    assert 0.8 < scores["seen_part"] < 1 - unseen.mean()


def test_codec_is_measured_at_the_worlds_size(model: WorldModel):
    image = np.random.default_rng(0).integers(0, 256, (4 * model.size[0], 5 * model.size[1], 3), dtype=np.uint8)
    assert 0 < codec_psnr(model, image) < 50


def test_true_depth_improves_the_motorcycle(tmp_path: Path):
    pytest.importorskip("skimage", reason="pip install 'mirage_sim[perceptual]'")
    mini = build_world_model("mini")
    left, right = photos.views_of(motorcycle(tmp_path), mini.size)
    shown = drive_pair(mini, left, right)
    assert list(shown) == [REPEATED, OWN, "own_depth_latents", TRUE, "true_depth_latents"]
    np.testing.assert_array_equal(shown[REPEATED], left.image)
    scores = photos.score_pair(shown, left, right)
    assert scores["psnr_repeated"] == pytest.approx(13.59, abs=0.02)
    assert scores["psnr_true_depth"] > scores["psnr_repeated"] + 5
    assert scores["psnr_true_depth"] > scores["psnr_own_depth"]
    assert scores["psnr_true_depth_seen"] > scores["psnr_true_depth"]
    assert 0.8 < scores["seen_part"] < 0.9


def test_missing_samples_are_null_with_a_reason(model: WorldModel, tmp_path: Path):
    result = evaluate({"source": str(tmp_path), "output": str(tmp_path / "out")}, model)
    assert result["marks"]["codec_psnr"] is None  # the mean is over all nine or over none
    assert result["marks"]["aloe_psnr_true_depth"] is None
    assert list(result["images"]) == list(PHOTOGRAPHS)
    assert result["images"]["building.jpg"] is None
    for name in ("aloe", "aloeL.jpg", "building.jpg", "home.jpg", "leuvenA.jpg"):
        assert "expected a file of Debian's opencv-doc" in result["missing"][name]
    assert json.loads((tmp_path / "out" / "photos.json").read_text())["marks"] == result["marks"]


def test_available_samples_are_scored(model: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pair = noise_pair()
    monkeypatch.setattr(photos, "read_photograph", lambda name, folder: pair.left)
    monkeypatch.setattr(photos, "PAIRS", {"aloe": lambda folder: pair})
    result = evaluate({"output": str(tmp_path)}, model)
    images = list(result["images"].values())
    assert result["missing"] == {} and result["marks"]["codec_psnr"] == pytest.approx(sum(images) / 9, abs=1e-3)
    assert {"aloe_psnr_own_depth", "aloe_psnr_repeated_seen", "aloe_seen_part"} <= set(result["marks"])
    assert (tmp_path / "aloe.png").exists()
    again = evaluate({}, model)
    assert again["marks"] == result["marks"]


def test_unknown_settings_are_rejected(model: WorldModel):
    with pytest.raises(ValueError, match=r"cfg: expected keys among .*'source'.*, got \['sources'\]"):
        evaluate({"sources": "x"}, model)
