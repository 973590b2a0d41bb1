"""Revisit scores, on circuits and images made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.toy_world import SIZE

from mirage_sim.evaluation.metrics import bootstrap_mean
from mirage_sim.evaluation.rollout import Rollout, repeat_first_frame
from mirage_sim.evaluation.scores import circuit_row, circuit_series, stack


def rollout_of(frames: np.ndarray) -> Rollout:
    return Rollout(frames, np.zeros(frames.shape[:3]), np.ones(len(frames)), 0)


def test_perfect_circuit_gets_perfect_scores(circuits):
    rows = [circuit_row(clip, rollout_of(clip.frames.numpy())) for clip in circuits]
    series = circuit_series({"latent_memory": stack(rows)})
    assert series["revisit_a"].interval().mean == series["revisit_ab"].interval().mean == 50.0
    assert series["sharpness_b"].interval().mean == pytest.approx(1.0)


def test_revisit_compares_the_right_images(circuits):
    clip = circuits[0]
    frames = np.zeros((7, *SIZE, 3), np.uint8)
    frames[2], frames[4], frames[6] = 100, clip.frames[0].numpy(), 110  # B, A again, B again
    row = circuit_row(clip, rollout_of(frames))
    assert row["revisit_a"] == 50.0
    assert row["revisit_ab"] == pytest.approx(10 * math.log10(255**2 / 100))
    assert row["energy_b"] == pytest.approx(0.0, abs=1e-9)
    assert row["true_energy_b"] > 1.0


def test_gains_are_paired(circuits):
    scores = {}
    for variant, error in (("latent_memory", 10), ("no_memory", 40), ("rgb_memory", 20)):
        rows = []
        for i, clip in enumerate(circuits):
            frames = np.zeros((7, *SIZE, 3), np.uint8)
            frames[4] = np.clip(clip.frames[0].numpy().astype(int) + error + i, 0, 255)
            frames[2], frames[6] = 100, 100 + error
            rows.append(circuit_row(clip, rollout_of(frames)))
        scores[variant] = stack(rows)
    series = circuit_series(scores)
    for other in ("no_memory", "rgb_memory"):
        for name in ("revisit_a", "revisit_ab"):
            expected = scores["latent_memory"][name] - scores[other][name]
            assert (expected > 0).all()
            assert series[f"gain_{name}_{other}"].interval() == bootstrap_mean(expected)
    assert series["gain_revisit_ab_no_memory"].interval().mean == pytest.approx(20 * math.log10(4))
    assert "sharpness_b_no_memory" in series and "gain_revisit_a" not in series


def test_unequal_legs_and_partial_drives_are_rejected(circuits):
    clip = circuits[0]
    with pytest.raises(ValueError, match="^clips: expected three equal legs"):
        circuit_row(replace(clip, c2w=clip.c2w[:-1], frames=clip.frames[:-1]), repeat_first_frame(clip, 6))
    with pytest.raises(ValueError, match="^rollout: expected 7 frames"):
        circuit_row(clip, repeat_first_frame(clip, 5))
