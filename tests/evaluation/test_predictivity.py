import numpy as np
import pytest

from mirage_sim.evaluation.predictivity import mmrv, predictivity


def test_mmrv_of_a_worked_example() -> None:
    """Policies 1 and 2 change places: each has a violation of 0.2; the others have none."""
    true, learned = [0.1, 0.4, 0.6, 0.9], [0.0, 0.7, 0.5, 0.8]
    assert mmrv(learned, true) == pytest.approx((0.0 + 0.2 + 0.2 + 0.0) / 4)
    assert mmrv(true, learned) == pytest.approx((0.0 + 0.2 + 0.2 + 0.0) / 4)
    assert mmrv([0.0, 0.9, 0.5, 0.8], true) == pytest.approx((0.5 + 0.2 + 0.5) / 4)
    assert mmrv(true, [0.0, 0.9, 0.5, 0.8]) == pytest.approx((0.4 + 0.4 + 0.1) / 4)  # not symmetric


def test_ties_in_one_world_violate_the_ranking() -> None:
    assert mmrv([0.5, 0.5], [0.2, 0.8]) == pytest.approx(0.3)  # only where r_i < r_j


def test_perfect_prediction_has_no_gap() -> None:
    rates = np.linspace(0.0, 1.0, 12)
    metrics = predictivity(rates, rates)
    assert metrics["pearson_r"] == pytest.approx(1.0) and metrics["spearman_rho"] == pytest.approx(1.0)
    assert metrics["mmrv"] == metrics["mean_gap"] == 0.0 and metrics["policies"] == 12


def test_kind_world_keeps_ranks_but_has_a_gap() -> None:
    true = np.array([0.1, 0.3, 0.5, 0.9])
    metrics = predictivity(true**0.5, true)
    assert metrics["spearman_rho"] == pytest.approx(1.0) and metrics["mmrv"] == 0.0
    assert metrics["mean_gap"] == pytest.approx(float((true**0.5 - true).mean()))
    assert 0.9 < metrics["pearson_r"] < 1.0


def test_correlation_is_null_where_all_policies_are_equal() -> None:
    metrics = predictivity([0.5, 0.5, 0.5], [0.1, 0.2, 0.3])
    assert metrics["pearson_r"] is None and metrics["spearman_rho"] is None and metrics["mean_gap"] is not None


@pytest.mark.parametrize(
    ("learned", "true", "message"),
    [
        ([0.5, 0.6], [0.5, 0.6], r"expected \[N\] with N >= 3"),
        ([0.5, 0.6, 0.7], [0.5], r"got \[3\], \[1\]"),
        ([0.5, 0.6, 1.7], [0.5, 0.6, 0.7], r"learned: expected success rates in \[0, 1\]"),
        ([0.5, 0.6, 0.7], [0.5, float("nan"), 0.7], r"true: expected success rates in \[0, 1\]"),
    ],
)
def test_bad_success_rates_are_rejected(learned: list[float], true: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictivity(learned, true)
