"""Counterfactual fidelity and calibration; what renders is skipped if MiniWorld or EGL is missing."""

import numpy as np
import pytest
from support.toy_world import untrained_model

from mirage_sim.data.simulators import EVALUATION_SEEDS, make_simulator
from mirage_sim.data.simulators.miniworld import RESERVED_ENVIRONMENTS
from mirage_sim.evaluation import calibration, counterfactual
from mirage_sim.evaluation.calibration import auroc_of, bootstrap_auroc, counts_of, risk_at
from mirage_sim.evaluation.counterfactual import ForkRun, metrics_of, nearest_frames, score_forks
from mirage_sim.evaluation.forks_manifest import STEPS, load_forks, pose_distances
from mirage_sim.settings import CalibrationSettings, CounterfactualSettings

SHAPE = (2, 17, 96, 128)


def run_of(generated: np.ndarray, true: np.ndarray, remembered: np.ndarray | None = None) -> ForkRun:
    everything = np.ones(SHAPE, bool) if remembered is None else remembered
    K = np.array([[83.0, 0, 64], [0, 83.0, 48], [0, 0, 1]])
    return ForkRun(generated, true, np.ones(SHAPE, np.float32), everything, np.tile(np.eye(4), (2, 17, 1, 1)), K)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), np.uint8)


@pytest.mark.parametrize("simulator", ["miniworld", "homes"])
def test_manifest_keeps_its_distances_and_seeds(simulator: str) -> None:
    forks = load_forks(simulator)
    assert forks.sequences.shape == (8, 16, 2) and np.abs(forks.sequences).max() <= 1
    assert forks.distances == pose_distances(forks.sequences)
    assert all(0.05 < least < greatest for least, greatest in forks.distances.values())
    assert len(set(forks.scenes)) == len(forks.scenes) >= 6
    assert all(seed in EVALUATION_SEEDS and kind not in RESERVED_ENVIRONMENTS for kind, seed in forks.scenes)


def test_nearest_frame_is_the_one_of_the_same_actions() -> None:
    true = noise(0)[0, :4]
    generated = np.clip(true.astype(int) + 20, 0, 255).astype(np.uint8)
    assert nearest_frames(generated[[0, 1, 3, 2]], true).tolist() == [0, 1, 3, 2]


def test_world_that_ignores_actions_is_at_chance() -> None:
    true = noise(0)
    ignoring = true[:1].repeat(2, axis=0)
    exact, chance = (metrics_of([score_forks(run_of(frames, true))]) for frames in (true, ignoring))
    assert [exact[f"top1_{step}"] for step in STEPS] == [1.0] * 4
    assert [chance[f"top1_{step}"] for step in STEPS] == [0.5] * 4


def test_motion_is_null_where_nothing_can_be_recovered() -> None:
    grey = np.full((*SHAPE, 3), 90, np.uint8)
    metrics = metrics_of([score_forks(run_of(grey, grey))])
    assert metrics["rotation_error_deg"] is None and metrics["motion_scored"] == 0.0
    assert metrics.get("translation_error") is None


def test_auroc_of_a_mask_is_that_of_its_ranking() -> None:
    assert auroc_of(*map(np.array, (30.0, 40.0, 10.0, 60.0))) == pytest.approx((1 + 30 / 40 - 10 / 60) / 2)
    wrong, generated = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    pairs = [(generated[i] > generated[j]) + (generated[i] == generated[j]) / 2 for i in range(3) for j in (3, 4)]
    counts = [(generated & wrong).sum(), wrong.sum(), (generated & ~wrong & 1).sum(), (1 - wrong).sum()]
    assert auroc_of(*(np.array(float(each)) for each in counts)) == pytest.approx(np.mean(pairs))


def test_mask_that_marks_all_errors_has_auroc_one() -> None:
    true = np.full((*SHAPE, 3), 100, np.uint8)
    generated, remembered = true.copy(), np.ones(SHAPE, bool)
    generated[..., :32, :] += 60  # an error of 0.235
    remembered[..., :32] = False
    column = {name: np.array([value] * 3) for name, value in counts_of(run_of(generated, true, remembered)).items()}
    assert bootstrap_auroc(column).mean == 1.0
    metrics = calibration.metrics_of([counts_of(run_of(generated, true, remembered))])
    assert metrics["remembered"] == 0.75 and metrics["risk_remembered"] == 0.0
    assert metrics["risk"] == pytest.approx(0.25 * 60 / 255, abs=1e-4)


def test_risk_grows_with_coverage_beyond_the_remembered() -> None:
    assert risk_at(0.5, 0.5, 0.1, 0.3) == pytest.approx(0.1)
    assert risk_at(1.0, 0.5, 0.1, 0.3) == pytest.approx(0.2)


def test_auroc_is_null_without_wrong_pixels() -> None:
    true = noise(1)
    assert calibration.metrics_of([counts_of(run_of(true, true))])["auroc"] is None


@pytest.mark.slow
def test_commands_measure_an_untrained_world(tmp_path) -> None:
    try:
        make_simulator("miniworld", "OneRoom").close()
    except ImportError as error:
        pytest.skip(str(error))
    settings = {"world": {}, "latent": {}, "memory": {}, "scenes": 1, "output": str(tmp_path)}
    model = untrained_model()
    result = counterfactual.evaluate(CounterfactualSettings(**settings), model)
    assert result["chance"] == 0.125 and result["marks"]["top1_16"] < 0.9
    error = result["marks"]["rotation_error_deg_true_frames"]
    assert error is None or error < 2.0
    assert (tmp_path / "counterfactual.json").exists() and len(list(tmp_path.glob("*.png"))) == 1
    marks = calibration.evaluate(CalibrationSettings(**settings), model)["marks"]
    assert marks["risk_generated"] > 0.05 and 0.0 < marks["remembered"] < 1.0
