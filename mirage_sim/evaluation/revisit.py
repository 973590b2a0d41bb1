"""Going away and coming back: A, B, A, B on the manifest's circuits."""

from collections.abc import Mapping, Sequence

import numpy as np

from mirage_sim.data.clips import Clip
from mirage_sim.evaluation.metrics import Array, Interval, bootstrap_mean, bootstrap_ratio, gradient_energy, psnr
from mirage_sim.evaluation.rollout import LATENT, Rollout

REVISIT_METRICS = ("revisit_a", "revisit_ab")


def revisit_figures(clips: Sequence[Clip], rollouts: Sequence[Rollout]) -> dict[str, Array]:
    """Figures of one variant, each ``[circuits]``.

    ``revisit_a``: the picture back at A (step 2L) against the true first frame. ``revisit_ab``: the second picture at B
    (step 3L) against the first one (step L), both generated. ``energy_b`` and ``true_energy_b``: gradient energy of the
    two pictures at B, generated and true; the ratio of their sums is ``sharpness_b``.

    Args:
        clips: the true circuits, three legs each.
        rollouts: what the variant showed on them.
    """
    figures: dict[str, list[float]] = {name: [] for name in (*REVISIT_METRICS, "energy_b", "true_energy_b")}
    for clip, rollout in zip(clips, rollouts, strict=True):
        leg = (len(clip) - 1) // 3
        if leg < 1 or len(clip) != 3 * leg + 1 or len(rollout.frames) != len(clip):
            raise ValueError(f"clips: expected three equal legs, all driven, got {len(clip)}, {len(rollout.frames)}")
        at_b = [leg, 3 * leg]
        figures["revisit_a"].append(float(psnr(rollout.frames[2 * leg], clip.frames[0].numpy())))
        figures["revisit_ab"].append(float(psnr(rollout.frames[3 * leg], rollout.frames[leg])))
        figures["energy_b"].append(float(gradient_energy(rollout.frames[at_b]).sum()))
        figures["true_energy_b"].append(float(gradient_energy(clip.frames[at_b].numpy()).sum()))
    return {name: np.array(values) for name, values in figures.items()}


def revisit_intervals(figures: Mapping[str, Mapping[str, Array]]) -> dict[str, Interval]:
    """Named intervals over circuits, from :func:`revisit_figures` of each variant.

    The variant under test has plain names (``revisit_a``), the others carry theirs (``revisit_a_no_memory``); the
    paired gains of the variant under test are named ``gain_revisit_a_no_memory``.
    """
    intervals: dict[str, Interval] = {}
    for variant, own in figures.items():
        suffix = "" if variant == LATENT else f"_{variant}"
        for metric in REVISIT_METRICS:
            intervals[metric + suffix] = bootstrap_mean(own[metric])
            if variant != LATENT and LATENT in figures:
                intervals[f"gain_{metric}{suffix}"] = bootstrap_mean(figures[LATENT][metric] - own[metric])
        intervals[f"sharpness_b{suffix}"] = bootstrap_ratio(own["energy_b"], own["true_energy_b"])
    return intervals
