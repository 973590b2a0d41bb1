"""``mirage eval revisit``: going away and coming back, A, B, A, B on the manifest's circuits."""

from collections.abc import Mapping
from typing import Any

from mirage_sim.ambient import own_torch
from mirage_sim.evaluation.runner import run_protocol
from mirage_sim.world import WorldModel


@own_torch()
def evaluate(cfg: Mapping[str, Any], model: WorldModel | None = None) -> dict[str, Any]:
    """Run the revisit circuits of a protocol, without its walks.

    Args:
        cfg: as of :func:`mirage_sim.evaluation.fidelity.evaluate`; the file in ``output`` is ``revisit.json``. With the
            ``output`` of an evaluation of fidelity by the same model, its circuits are not driven again.
        model: evaluate this one instead of ``world``.

    Returns:
        As :func:`mirage_sim.evaluation.fidelity.evaluate`, without figures over walks.

    Raises:
        ValueError: for unknown keys and values, or when rendered truth differs from the manifest.
        ImportError: where truth must be rendered, and the simulator's packages or EGL are missing.
    """
    return run_protocol("revisit", cfg, model, with_walks=False)
