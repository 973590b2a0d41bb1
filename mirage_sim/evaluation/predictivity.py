"""Does success in the learned world predict success in the true one? Metrics over several policies."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


def mmrv(learned: ArrayLike, true: ArrayLike) -> float:
    """Return the mean maximum rank violation (SIMPLER, Li et al. 2024), in [0, 1]; 0 is best.

    For each policy i, the largest true difference ``|r_i - r_j|`` to a policy j that the learned world ranks the other
    way: ``1/N sum_i max_j |r_i - r_j| [(s_i < s_j) != (r_i < r_j)]``. Swapping the two worlds changes the value.

    Args:
        learned: success s of each policy in the learned world, ``[N]``.
        true: success r of each policy in the true world, ``[N]``.

    Raises:
        ValueError: if the lengths differ, or there are no policies.
    """
    s, r = _checked(learned, true, 1)
    violated = (s[:, None] < s) != (r[:, None] < r)
    return float((np.abs(r[:, None] - r) * violated).max(1).mean())


def predictivity(learned: ArrayLike, true: ArrayLike) -> dict[str, float | None]:
    """Return ``pearson_r``, ``spearman_rho``, ``mmrv``, ``mean_gap`` and ``policies``.

    Args:
        learned: success of each policy in the learned world, ``[N]``, in [0, 1].
        true: success of each policy in the true world, ``[N]``, in [0, 1].

    Returns:
        The correlations are None where all policies do equally well in one of the worlds.

    Raises:
        ValueError: if the lengths differ, there are fewer than three policies, or a value is not in [0, 1].
    """
    s, r = _checked(learned, true, 3)
    varied = bool(np.ptp(s) > 0 and np.ptp(r) > 0)
    return {
        "pearson_r": float(stats.pearsonr(s, r).statistic) if varied else None,
        "spearman_rho": float(stats.spearmanr(s, r).statistic) if varied else None,
        "mmrv": mmrv(s, r),
        "mean_gap": float(np.abs(s - r).mean()),
        "policies": float(len(s)),
    }


def _checked(learned: ArrayLike, true: ArrayLike, least: int) -> tuple[Array, Array]:
    s, r = np.asarray(learned, np.float64), np.asarray(true, np.float64)
    if s.ndim != 1 or s.shape != r.shape or len(s) < least:
        raise ValueError(f"learned, true: expected [N] with N >= {least} each, got {list(s.shape)}, {list(r.shape)}")
    for name, values in (("learned", s), ("true", r)):
        if not ((values >= 0) & (values <= 1)).all():  # also rejects NaN
            raise ValueError(f"{name}: expected success rates in [0, 1], got {values.tolist()}")
    return s, r
