import math

import pytest
import torch

from mirage_sim.training.validation import _compare


def test_scores_match_hand_computed_values():
    rows = torch.linspace(-1, 1, 8)[:, None].expand(8, 8)
    true = rows.expand(2, 1, 3, 8, 8)
    scores = _compare(true + 0.02, true)  # 40 dB of a range of 2
    assert scores == pytest.approx({"psnr_4": 40, "psnr_16": 40, "sharpness_4": 1, "sharpness_16": 1, "score": 40})
    assert _compare(true, true)["psnr_4"] == 50  # PSNR_CAP


def test_blur_raises_psnr_but_lowers_the_score():
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(2, 4, 3, 16, 16, generator=generator) - 0.5
    wrong = torch.rand(2, 4, 3, 16, 16, generator=generator) - 0.5  # same texture
    sharp, blurred = _compare(wrong, true), _compare(1e-3 * wrong, true)
    assert blurred["psnr_4"] > sharp["psnr_4"] + 2 and blurred["score"] < sharp["score"]
    halved = _compare(0.5 * true, true)
    assert halved["sharpness_4"] == pytest.approx(0.25, abs=1e-3)
    expected = (halved["psnr_4"] + halved["psnr_16"]) / 2 - 6 * math.log2(0.8 / 0.25)
    assert halved["score"] == pytest.approx(expected, abs=0.01)
