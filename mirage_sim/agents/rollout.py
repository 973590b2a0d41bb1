"""``mirage rollout``: walk agents through ``MirageWorld-v0`` and save what they saw."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mirage_sim.agents.backends import Backend
from mirage_sim.agents.recorder import NOTES, Recorder
from mirage_sim.ambient import own_torch
from mirage_sim.build import instantiate
from mirage_sim.io import check_folder, lock_folder, save_json
from mirage_sim.settings import RolloutSettings


@own_torch()
def rollout(settings: RolloutSettings) -> dict[str, Any]:
    """Generate episodes and save them in the format and folder that the settings name, with ``metrics.json``.

    Episodes that exist in the folder and were made with the same settings are kept, so a killed rollout continues.

    Args:
        settings: of ``mirage rollout``; :func:`mirage_sim.build.compose` makes them.

    Returns:
        The metrics of ``metrics.json`` without those per step; ``output``, the folder; ``bytes`` of all files in it;
        ``seconds`` that this call took.

    Raises:
        ValueError: for unusable settings, or a folder that cannot be written to or that another rollout writes to.
        FileNotFoundError: for images, walks, policies or weights that do not exist.
        ImportError: if a library for the format, the policy or the backend is not installed.
        OSError: if the backend fails.
    """
    began = time.perf_counter()
    check_folder("output", settings.output)
    backend: Backend = instantiate(settings.backend)
    recorder = Recorder(settings)
    with lock_folder(Path(settings.output), f"{NOTES}/lock"):
        metrics = _record_missing(settings, backend, recorder)
    size = sum(path.stat().st_size for path in Path(settings.output).rglob("*") if path.is_file())
    return metrics | {"output": settings.output, "bytes": size, "seconds": round(time.perf_counter() - began, 2)}


def _record_missing(settings: RolloutSettings, backend: Backend, recorder: Recorder) -> dict[str, Any]:
    episodes = range(settings.episodes)
    missing = {number for number in episodes if not recorder.has(number)}
    if len(missing) < len(episodes):
        recorder.check_settings()
    # episodes always share a batch with the same others, because the batch affects rounding
    batches = [list(episodes[first : first + settings.worlds]) for first in range(0, len(episodes), settings.worlds)]
    with tqdm(total=len(episodes), initial=len(episodes) - len(missing), desc="rollout", unit="episode") as bar:
        for added in backend.run(settings, [batch for batch in batches if missing & set(batch)]):
            bar.update(added)
    metrics = _summary(recorder.finish(len(episodes))) | {"policy": settings.policy}
    save_json(Path(settings.output) / "metrics.json", metrics)
    return {key: value for key, value in metrics.items() if key != "per_step"}


def _summary(episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Combine the metrics of several episodes: the sum of the steps, the first seed, the mean of everything else."""
    if len(episodes) == 1:
        return episodes[0]
    names = [name for name in episodes[0] if name not in ("per_step", "seed")]
    means = {name: float(np.mean([metrics[name] for metrics in episodes])) for name in names}
    return means | {
        "steps": sum(metrics["steps"] for metrics in episodes),
        "seed": episodes[0]["seed"],
        "episodes": len(episodes),
    }
