"""``mirage eval fidelity``: how well a learned world agrees with the true one."""

from collections.abc import Mapping
from typing import Any

from mirage_sim.ambient import own_torch
from mirage_sim.evaluation.runner import run_protocol
from mirage_sim.world import WorldModel


@own_torch()
def evaluate(cfg: Mapping[str, Any], model: WorldModel | None = None) -> dict[str, Any]:
    """Run a protocol: all walks, and all revisit circuits.

    Args:
        cfg: ``world`` (a name, or a composed node with ``_target_``; default ``"mini"``), ``protocol`` (name of the
            reference simulator, ``"miniworld"`` or ``"homes"``), ``walks`` (``"quick"`` or ``"full"``), ``variants``
            (some of ``VARIANTS``; None: all), ``output`` (folder for ``fidelity.json``, for pictures and videos, and
            for what is measured so far, so that a stopped run goes on; None writes nothing), ``cache`` (folder for true
            clips; None: the user's cache), ``batch`` (clips that go through the networks together).
        model: evaluate this one instead of ``world``.

    Returns:
        ``metrics`` (flat, the means with ``_lo`` and ``_hi``), ``held_out``, ``environments``, ``tables`` and more, all
        fit for JSON; see ``docs/protocol.md``. The scores of each walk are only in ``fidelity.json``.

    Raises:
        ValueError: for unknown keys and values, or when rendered truth differs from the manifest.
        ImportError: where truth must be rendered, and the simulator's packages or EGL are missing.
    """
    return run_protocol("fidelity", cfg, model, with_walks=True)
