"""Scores of one walk or circuit, and the metrics computed from them; ``docs/protocol.md`` defines both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mirage_sim.data.clips import Clip
from mirage_sim.data.simulators.miniworld import HELD_OUT_ENVIRONMENTS
from mirage_sim.evaluation.ground_truth import seen_from
from mirage_sim.evaluation.manifest import UNSEEN
from mirage_sim.evaluation.metrics import (
    Array,
    Interval,
    abs_rel,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_ratio_difference,
    gradient_energy,
    psnr,
    ssim,
)
from mirage_sim.evaluation.rollout import FIRST_FRAME, LATENT, Rollout

STEPS = (1, 2, 4, 8, 16, 24)
POOLED = slice(8, 25)  # steps of each walk whose images are compared as a set
REGIONS = ("whole", "seen", "new")
REVISITS = ("revisit_a", "revisit_ab")
SHARP = (0.8, 1.25)  # target range of sharpness

Row = dict[str, float]  # scores of one clip, by names such as "psnr_whole_16"; NaN where undefined
Scores = dict[str, Array]  # the same for many clips, [clips] each


def seen_masks(clip: Clip, steps: Sequence[int]) -> np.ndarray:
    """Pixels at each step whose surface the first frame showed, by true depth: bool ``[len(steps), H, W]``."""
    index, cameras = torch.tensor(steps), clip.cameras
    return seen_from(clip.depth[index], cameras[index], clip.depth[0], cameras[0]).numpy()


def walk_row(clip: Clip, rollout: Rollout) -> Row:
    """Compute all scores of a variant on one walk.

    Per step ``psnr`` and ``ssim`` of each region, ``energy`` and ``true_energy`` (their ratio is ``sharpness``),
    ``abs_rel``, ``seen_part`` and ``remembered``; and ``nbytes`` of the memory at the end.
    """
    steps = [step for step in STEPS if step < len(rollout.frames)]
    true, generated = clip.frames[steps].numpy(), rollout.frames[steps]
    seen = seen_masks(clip, steps)
    energy, true_energy = gradient_energy(generated), gradient_energy(true)
    arrays = {
        "energy": energy,
        "true_energy": true_energy,
        "sharpness": np.where(true_energy > 0, energy / np.where(true_energy > 0, true_energy, 1.0), np.nan),
        "abs_rel": abs_rel(rollout.depth[steps], clip.depth[steps].numpy()),
        "seen_part": seen.mean((-2, -1)),
        "remembered": rollout.remembered[steps],
    }
    for region, mask in zip(REGIONS, (None, seen, ~seen), strict=True):
        arrays[f"psnr_{region}"] = psnr(generated, true, mask)
        arrays[f"ssim_{region}"] = ssim(generated, true, mask)
    row = {f"{name}_{step}": float(values[i]) for name, values in arrays.items() for i, step in enumerate(steps)}
    return row | {"nbytes": float(rollout.nbytes)}


def leg_of(clip: Clip) -> int:
    """Number of steps from A to B of a circuit A, B, A, B.

    Raises:
        ValueError: if the clip is not three equal legs.
    """
    leg = (len(clip) - 1) // 3
    if leg < 1 or len(clip) != 3 * leg + 1:
        raise ValueError(f"clips: expected three equal legs, got {len(clip)} frames")
    return leg


def circuit_row(clip: Clip, rollout: Rollout) -> Row:
    """Compute the scores of a variant on one circuit.

    ``revisit_a`` is the PSNR of the image back at A (step 2L) with respect to the true first frame, ``revisit_ab`` that
    of the second image at B (step 3L) with respect to the first one (step L), both generated. ``energy_b`` and
    ``true_energy_b`` are the gradient energies of the two images at B, generated and true; the ratio of their sums is
    ``sharpness_b``.

    Raises:
        ValueError: if the clip is not three equal legs, or was not driven to its end.
    """
    leg = leg_of(clip)
    if len(rollout.frames) != len(clip):
        raise ValueError(f"rollout: expected {len(clip)} frames as in the circuit, got {len(rollout.frames)}")
    at_b = [leg, 3 * leg]
    return {
        "revisit_a": float(psnr(rollout.frames[2 * leg], clip.frames[0].numpy())),
        "revisit_ab": float(psnr(rollout.frames[3 * leg], rollout.frames[leg])),
        "energy_b": float(gradient_energy(rollout.frames[at_b]).sum()),
        "true_energy_b": float(gradient_energy(clip.frames[at_b].numpy()).sum()),
        "nbytes": float(rollout.nbytes),
    }


def stack(rows: Sequence[Row]) -> Scores:
    """Stack the scores of each clip."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@dataclass(frozen=True)
class Run:
    """Clips of one kind and the scores of each variant on them.

    Attributes:
        clips: true walks, or true circuits.
        scores: of each variant, ``[clips]`` each.
        shown: of some clips, by index: frames uint8 ``[S + 1, H, W, 3]`` of each variant, for images and videos.
        driven: number of drives that were not found in the cache of an earlier run.
        features: of images of the model under test at ``POOLED`` steps, ``[steps, D]`` for each clip; optional.
    """

    clips: Sequence[Clip]
    scores: Mapping[str, Scores]
    shown: Mapping[int, Mapping[str, np.ndarray]]
    driven: int = 0
    features: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class MeanOf:
    """A metric that is a mean over clips of ``values`` ``[clips]``."""

    values: Array

    def interval(self) -> Interval:
        """Mean and 95 % interval."""
        return bootstrap_mean(self.values)


@dataclass(frozen=True)
class RatioOf:
    """A metric that is a ratio of sums over clips: ``above`` divided by ``below``, ``[clips]`` each."""

    above: Array
    below: Array

    def interval(self) -> Interval:
        """Ratio and 95 % interval."""
        return bootstrap_ratio(self.above, self.below)


@dataclass(frozen=True)
class DropOf:
    """A metric that is the mean of ``values`` ``[clips]`` where ``first`` minus their mean elsewhere."""

    values: Array
    first: np.ndarray

    def interval(self) -> Interval:
        """Difference and 95 % interval, unpaired."""
        return bootstrap_difference(self.values[self.first], self.values[~self.first])


Series = MeanOf | RatioOf | DropOf


def paired_difference(second: Series, first: Series) -> Interval:
    """Difference ``second - first`` of a metric of two runs on the same clips, with its 95 % interval.

    The bootstrap resamples each clip's difference, or for a ratio both ratios by the same draw. The two groups of a
    :class:`DropOf` stay unpaired.

    Raises:
        ValueError: if the two are of different classes.
    """
    if isinstance(second, MeanOf) and isinstance(first, MeanOf):
        return bootstrap_mean(second.values - first.values)
    if isinstance(second, RatioOf) and isinstance(first, RatioOf):
        return bootstrap_ratio_difference((second.above, second.below), (first.above, first.below))
    if isinstance(second, DropOf) and isinstance(first, DropOf):
        return DropOf(second.values - first.values, second.first).interval()
    raise ValueError(f"first: expected {type(second).__name__} like second, got {type(first).__name__}")


def suffix_of(variant: str) -> str:
    """Suffix of a variant's metrics: none for the variant under test, else as in ``psnr_16_no_memory``."""
    return "" if variant == LATENT else f"_{variant}"


def step_series(own: Scores) -> dict[str, Series]:
    """All metrics of one variant over walks, at every step that was driven."""
    series: dict[str, Series] = {}
    for step in (step for step in STEPS if f"energy_{step}" in own):
        for region in REGIONS:
            for metric in ("psnr", "ssim"):
                series[f"{metric}_{region}_{step}"] = MeanOf(own[f"{metric}_{region}_{step}"])
        series[f"sharpness_{step}"] = RatioOf(own[f"energy_{step}"], own[f"true_energy_{step}"])
        series[f"abs_rel_{step}"] = MeanOf(own[f"abs_rel_{step}"])
    return series


def walk_series(scores: Mapping[str, Scores], environments: Sequence[str]) -> dict[str, Series]:
    """Metrics over walks by name; steps that were not driven are left out.

    Args:
        scores: of each variant.
        environments: of each walk.
    """
    series: dict[str, Series] = {}
    for variant, own in scores.items():
        suffix, steps = suffix_of(variant), step_series(own)
        for step in (step for step in (1, 16) if f"psnr_whole_{step}" in steps):
            series[f"psnr_{step}{suffix}"] = steps[f"psnr_whole_{step}"]
            series[f"seen_psnr_{step}{suffix}"] = steps[f"psnr_seen_{step}"]
            if variant == LATENT:
                series[f"absrel_{step}"] = steps[f"abs_rel_{step}"]
            elif LATENT in scores:
                gain = scores[LATENT][f"psnr_whole_{step}"] - own[f"psnr_whole_{step}"]
                series[f"gain_{step}{suffix}"] = MeanOf(gain)
        for step in (step for step in (1, 4, 16) if variant != FIRST_FRAME and f"sharpness_{step}" in steps):
            series[f"sharpness_{step}{suffix}"] = steps[f"sharpness_{step}"]
    gained, trained = series.get("gain_16_first_frame"), ~np.isin(environments, HELD_OUT_ENVIRONMENTS)
    if isinstance(gained, MeanOf) and trained.any() and not trained.all():
        series["unseen_env_drop"] = DropOf(gained.values, trained)
    return series


def pair_series(
    walks: Mapping[str, Scores], clips: Sequence[tuple[str, int]], pairs: Mapping[str, Scores], seeds: Sequence[int]
) -> dict[str, Series]:
    """Metrics over pairs of walks through one home, with held-out furniture and with the nearest seen pieces.

    ``unseen_furniture_drop`` is the mean of the paired difference of ``gain_16_first_frame``, seen minus held-out.

    Args:
        walks: scores of each variant over walks.
        clips: environment and seed of each walk.
        pairs: scores of each variant over the walks with seen pieces.
        seeds: of the walks with seen pieces.
    """
    if not {LATENT, FIRST_FRAME} <= set(walks) & set(pairs):
        return {}
    gains = [scores[LATENT]["psnr_whole_16"] - scores[FIRST_FRAME]["psnr_whole_16"] for scores in (walks, pairs)]
    unseen = [clips.index((UNSEEN, seed)) for seed in seeds]
    return {"unseen_furniture_drop": MeanOf(gains[1] - gains[0][unseen])}


def circuit_series(scores: Mapping[str, Scores]) -> dict[str, Series]:
    """Metrics over circuits by name, with paired gains of the variant under test."""
    series: dict[str, Series] = {}
    for variant, own in scores.items():
        suffix = suffix_of(variant)
        for name in REVISITS:
            series[name + suffix] = MeanOf(own[name])
            if variant != LATENT and LATENT in scores:
                series[f"gain_{name}{suffix}"] = MeanOf(scores[LATENT][name] - own[name])
        series[f"sharpness_b{suffix}"] = RatioOf(own["energy_b"], own["true_energy_b"])
    return series
