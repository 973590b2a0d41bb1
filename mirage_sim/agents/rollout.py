"""``mirage rollout``: agents walk through ``MirageWorld-v0``, and what they saw is kept, for people or for learning."""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mirage_sim.agents.backends import Backend
from mirage_sim.agents.recorder import NOTES, Recorder
from mirage_sim.ambient import own_torch
from mirage_sim.build import instantiate
from mirage_sim.io import check_folder, lock_folder, save_json

POLICIES = ("scripted", "random", "replay")
FORMATS = ("mp4", "npz", "minari", "mcap")


@own_torch()
def rollout(cfg: dict[str, Any]) -> dict[str, Any]:
    """Walk, and leave what ``format`` says in a folder: pictures for people, or a data set; and ``metrics.json``.

    Episodes that the folder has already, made with the same settings, are not made again: so a roll-out that was
    killed goes on where it stopped.

    Args:
        cfg: as ``configs/rollout.yaml`` composes it.

    Returns:
        The figures of ``metrics.json`` without those per step, and ``output``, the folder.

    Raises:
        ValueError: for unusable settings, a folder that cannot be written to, or that another roll-out is writing to.
        FileNotFoundError: for pictures, walks, policies or weights that do not exist.
        ImportError: if what a data set, a learned policy or the backend needs is not installed.
        OSError: if the backend fails.
    """
    _check(cfg)
    backend: Backend = instantiate(cfg["backend"])
    recorder = Recorder(cfg)
    with lock_folder(Path(cfg["output"]), f"{NOTES}/lock"):
        return _fill(cfg, backend, recorder)


def _fill(cfg: dict[str, Any], backend: Backend, recorder: Recorder) -> dict[str, Any]:
    """Make what the folder lacks."""
    episodes = range(cfg["episodes"])
    missing = {number for number in episodes if not recorder.has(number)}
    if len(missing) < len(episodes):
        recorder.check_settings()
    # always the same ones together, because the others of a batch decide how an episode is rounded
    batches = [list(episodes[first : first + cfg["worlds"]]) for first in range(0, len(episodes), cfg["worlds"])]
    with tqdm(total=len(episodes), initial=len(episodes) - len(missing), desc="rollout", unit="episode") as bar:
        for added in backend.run(cfg, [batch for batch in batches if missing & set(batch)]):
            bar.update(added)
    measured = recorder.finish(len(episodes))
    metrics = _summary(measured) | {"policy": cfg["policy"]}
    output = Path(cfg["output"])
    save_json(output / "metrics.json", metrics)
    return {key: value for key, value in metrics.items() if key != "per_step"} | {"output": str(output)}


def _check(cfg: dict[str, Any]) -> None:
    """Refuse settings that cannot work, before anything is loaded or written."""
    policy, form, output = cfg["policy"], cfg["format"], cfg["output"]
    if not isinstance(policy, str) or not (policy in POLICIES or policy.endswith(".zip")):
        raise ValueError(f"policy: expected one of {POLICIES} or a stable-baselines3 .zip, got {policy!r}")
    for name in ("steps", "episodes", "worlds"):
        if isinstance(cfg[name], bool) or not isinstance(cfg[name], int) or cfg[name] < 1:
            raise ValueError(f"{name}: expected a positive integer, got {cfg[name]!r}")
    if isinstance(cfg["seed"], bool) or not isinstance(cfg["seed"], int) or cfg["seed"] < 0:
        raise ValueError(f"seed: expected an integer from 0, got {cfg['seed']!r}")
    if not isinstance(cfg["trust_policy"], bool):
        raise ValueError(f"trust_policy: expected true or false, got {cfg['trust_policy']!r}")
    if form not in FORMATS:
        raise ValueError(f"format: expected one of {FORMATS}, got {form!r}")
    if not isinstance(output, str) or output in FORMATS:
        raise ValueError(f"output: expected a folder, got {output!r}; what is written there is chosen by format=")
    if form == "mp4" and cfg["episodes"] > 1:
        raise ValueError(f"episodes: expected 1 with format=mp4, got {cfg['episodes']}")
    if policy == "scripted" and cfg["env"]["action_mode"] != "twist":
        got = cfg["env"]["action_mode"]
        raise ValueError(f"env.action_mode: expected 'twist' with policy=scripted, got {got!r}")
    check_folder("output", output)


def _summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several episodes: the sum of their steps, the first seed, means of all else."""
    if len(measured) == 1:
        return measured[0]
    names = [name for name in measured[0] if name not in ("per_step", "seed")]
    means = {name: float(np.mean([figures[name] for figures in measured])) for name in names}
    return means | {
        "steps": sum(figures["steps"] for figures in measured),
        "seed": measured[0]["seed"],
        "episodes": len(measured),
    }
