"""The evaluation itself, on synthetic walks and freshly made networks: no GL, no weights."""

import json
import math
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from toy import SIZE

from mirage_sim.data.clips import Clip
from mirage_sim.evaluation.fidelity import evaluate, run_variants, seen_masks, summarise, walk_figures
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.evaluation.report import write_report
from mirage_sim.evaluation.revisit import revisit_figures, revisit_intervals
from mirage_sim.evaluation.rollout import Rollout, drive, repeat_first_frame, variants_of
from mirage_sim.geometry import Camera, Drive, lift


def synthetic_clip(environment: str, seed: int, commands: list[tuple[float, float]]) -> Clip:
    """The plane z = 4 m, seen truly in depth; in the picture its texture shifts with the turn."""
    rng = np.random.default_rng(seed)
    texture = np.kron(rng.integers(0, 256, (12, 64, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    c2w = [torch.eye(4)]
    for command in commands:
        c2w.append(c2w[-1] @ Drive().motion(torch.tensor(command)))
    poses = torch.stack(c2w)
    shift = (torch.atan2(poses[:, 0, 2], poses[:, 2, 2]) * 50).round().int()
    frames = np.stack([np.roll(texture, -int(s), axis=1)[:, : SIZE[1]] for s in shift])
    cameras = Camera.from_fov(poses, 60.0, SIZE)
    rays = lift(torch.ones(len(poses), *SIZE), cameras)[..., 2] - poses[:, 2, 3, None, None]
    return Clip(
        frames=torch.from_numpy(frames),
        depth=(4.0 - poses[:, 2, 3, None, None]) / rays,
        c2w=poses,
        K=cameras.K[0],
        commands=torch.tensor(commands),
        blocked=torch.zeros(len(commands), dtype=torch.bool),
        source={"environment": environment, "seed": str(seed)},
    )


@pytest.fixture(scope="module")
def walks() -> list[Clip]:
    return [
        synthetic_clip("OneRoom", 1, [(0.5, 0.5)] * 4),
        synthetic_clip("YMaze", 2, [(0.2, -1.0)] * 4),
    ]


@pytest.fixture(scope="module")
def circuits() -> list[Clip]:
    there, back = [(0.0, 1.0)] * 2, [(0.0, -1.0)] * 2
    return [synthetic_clip(name, 3, there + back + there) for name in ("OneRoom", "YMaze")]


def test_end_to_end_gives_finite_marks_and_files(model, walks, circuits, tmp_path: Path):
    runs = run_variants(variants_of(model), walks, circuits, steps=4, batch=2)
    result = summarise(runs)
    marks = result["marks"]
    assert marks["walks"] == 2 and marks["circuits"] == 2
    wanted = ["psnr_1", "psnr_1_first_frame", "psnr_1_no_memory", "psnr_1_rgb_memory", "seen_psnr_1", "sharpness_4"]
    wanted += ["revisit_a", "revisit_a_no_memory", "revisit_ab", "revisit_ab_no_memory", "sharpness_b"]
    wanted += ["gain_1_first_frame", "gain_revisit_a_no_memory"]
    for name in wanted:
        assert marks[f"{name}_lo"] <= marks[name] <= marks[f"{name}_hi"], name
    assert all(value is not None and math.isfinite(value) for value in marks.values())
    assert marks["gain_1_first_frame"] == pytest.approx(marks["psnr_1"] - marks["psnr_1_first_frame"], abs=2e-4)
    assert set(result["tables"]) == {"latent_memory", "no_memory", "rgb_memory", "first_frame"}
    assert list(result["tables"]["latent_memory"]) == ["1", "2", "4"]
    assert result["tables"]["latent_memory"]["4"]["whole"]["walks"] == 2
    assert len(result["per_walk"]) == 2 and result["per_circuit"][1]["environment"] == "YMaze"
    assert set(result["environments"]) == {"OneRoom", "YMaze"}
    assert result["held_out"]["environments"] == ["YMaze"]
    assert result["held_out"]["marks"]["walks"] == result["held_out"]["marks"]["circuits"] == 1

    write_report(tmp_path, result, runs.walks, runs.circuits, runs.on_walks, runs.on_circuits)
    assert {path.name for path in tmp_path.iterdir()} == {"fidelity.json", "sheet.png", "revisit.png", "walks.mp4"}
    assert json.loads((tmp_path / "fidelity.json").read_text())["marks"] == marks
    video = imageio_ffmpeg.read_frames(str(tmp_path / "walks.mp4"))
    assert next(video)["size"] == (4 * 2 * SIZE[1], 2 * SIZE[0] + 20)  # truth and three variants, doubled, titled
    assert len(list(video)) == 2 * 5  # one walk of four steps per environment


def test_batches_do_not_change_what_is_shown(model, walks):
    alone, together = drive(model, walks, [2, 4], batch=1), drive(model, walks, [2, 4], batch=2)
    for a, b, clip, length in zip(alone, together, walks, [2, 4], strict=True):
        assert a.frames.shape == (length + 1, *SIZE, 3) and a.depth.shape == (length + 1, *SIZE)
        assert np.array_equal(a.frames[0], clip.frames[0].numpy())
        assert np.abs(a.frames.astype(int) - b.frames.astype(int)).max() <= 1
        assert a.remembered[0] == 1.0 and a.nbytes > 0


def test_variants_share_the_networks_and_differ_in_memory(model, walks):
    models = variants_of(model)
    assert list(models) == ["latent_memory", "no_memory", "rgb_memory"]
    assert all(each.denoiser is model.denoiser and each.codec is model.codec for each in models.values())
    remembered = {name: drive(each, walks[:1], [1])[0].remembered[1] for name, each in models.items()}
    assert remembered["no_memory"] == 0.0
    assert remembered["latent_memory"] > 0.5 and remembered["rgb_memory"] > 0.5
    with pytest.raises(ValueError, match="^variants: expected some of"):
        variants_of(model, ["latent"])


def test_a_perfect_world_gets_perfect_figures(walks, circuits):
    perfect = [Rollout(clip.frames.numpy(), clip.depth.numpy(), np.ones(len(clip)), 0) for clip in walks]
    figures = walk_figures(walks, perfect)
    assert (figures["psnr_whole_4"] == 50.0).all() and (figures["psnr_seen_4"] == 50.0).all()
    np.testing.assert_allclose(figures["ssim_whole_4"], 1.0)
    assert (figures["abs_rel_4"] == 0.0).all()
    assert np.array_equal(figures["energy_4"], figures["true_energy_4"])

    there = [Rollout(clip.frames.numpy(), clip.depth.numpy(), np.ones(len(clip)), 0) for clip in circuits]
    intervals = revisit_intervals({"latent_memory": revisit_figures(circuits, there)})
    assert intervals["revisit_a"].mean == intervals["revisit_ab"].mean == 50.0
    assert intervals["sharpness_b"].mean == pytest.approx(1.0)


def test_revisit_looks_at_the_right_pictures(circuits):
    clip = circuits[0]
    frames = np.zeros((7, *SIZE, 3), np.uint8)
    frames[2], frames[4], frames[6] = 100, clip.frames[0].numpy(), 110  # B, A again, B again
    figures = revisit_figures(circuits[:1], [Rollout(frames, np.zeros((7, *SIZE)), np.ones(7), 0)])
    assert figures["revisit_a"][0] == 50.0
    assert figures["revisit_ab"][0] == pytest.approx(10 * math.log10(255**2 / 100))
    assert figures["energy_b"][0] == pytest.approx(0.0, abs=1e-9)
    assert figures["true_energy_b"][0] > 1.0
    with pytest.raises(ValueError, match="^clips: expected three equal legs"):
        revisit_figures([replace(clip, c2w=clip.c2w[:-1], frames=clip.frames[:-1])], [repeat_first_frame(clip, 6)])


def test_the_first_frame_repeated_is_what_it_says(walks):
    rollout = repeat_first_frame(walks[0], 4)
    figures = walk_figures(walks[:1], [rollout])
    assert figures["psnr_whole_4"][0] == psnr(walks[0].frames[0].numpy(), walks[0].frames[4].numpy())


def test_seen_and_new_make_up_the_whole(walks):
    seen = seen_masks(walks[1], [1, 4])
    assert seen.shape == (2, *SIZE)
    assert 0.5 < seen[1].mean() < seen[0].mean() < 1.0  # turning away sees less and less


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"walk": "quick"}, "cfg: expected keys among"),
        ({"walks": "some"}, "walks: expected one of"),
        ({"batch": 0}, "batch: expected a positive integer"),
        ({"variants": ["fog"]}, "variants: expected some of"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_rendered(cfg, message: str, model):
    with pytest.raises(ValueError, match=f"^{message}"):
        evaluate(cfg, model)


def test_too_long_a_drive_and_another_size_are_named(model, walks):
    with pytest.raises(ValueError, match="^steps: expected 1 to 4"):
        drive(model, walks, [5, 4])
    with pytest.raises(ValueError, match="^clips: expected frames of the model's size"):
        drive(replace(model, size=(96, 128)), walks, [1, 1])
