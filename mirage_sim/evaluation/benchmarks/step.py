"""How fast the environment starts and steps, and where the time of a step goes."""

import math
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

import gymnasium
import numpy as np

from mirage_sim.build import instantiate
from mirage_sim.evaluation.benchmarks.measure import side_by_side
from mirage_sim.evaluation.rollout import LATENT, RGB_MEMORY, variants_of
from mirage_sim.world import WorldModel

WARM_UP = 20  # steps until caches are filled and oneDNN has chosen its kernels
_IMPORT = "import time; began = time.perf_counter(); import mirage_sim; print(time.perf_counter() - began)"
_FIRST_RESET = """
import time
began = time.perf_counter()
import gymnasium, mirage_sim
env = gymnasium.make("MirageWorld-v0")
env.reset(seed=0)
print(time.perf_counter() - began)
"""


def bench_step(cfg: dict[str, Any]) -> dict[str, Any]:
    """Measure imports, the first reset and steps along a smooth, scripted drive.

    Args:
        cfg: ``world`` (config of a world model), ``steps`` to time, ``seed`` of the episode, and ``rgb_steps`` to time
            with either memory.

    Returns:
        ``{"metrics": ...}``: ``steps_per_s`` over all timed steps; ``import_s`` of ``import mirage_sim`` (median of
        five
        new processes); ``first_reset_s`` of import, ``gymnasium.make`` and ``reset`` (median of three); and the median
        milliseconds per step in each phase, with ``other_ms`` for everything around them;
        ``end_to_end_ratio_rgb``, the median time of a whole step with coloured points over that with latent points.
    """
    metrics: dict[str, float] = {
        "import_s": statistics.median(_seconds_of(_IMPORT) for _ in range(5)),
        "first_reset_s": statistics.median(_seconds_of(_FIRST_RESET) for _ in range(3)),
    }
    model: WorldModel = instantiate(cfg["world"])
    env: Any = gymnasium.make("MirageWorld-v0", world=model).unwrapped
    _, info = env.reset(seed=int(cfg["seed"]))
    whole: list[float] = []
    phases: dict[str, list[float]] = defaultdict(list)
    for step in range(WARM_UP + int(cfg["steps"])):
        began = time.perf_counter()
        *_, info = env.step(_command(step))
        took = time.perf_counter() - began
        if step >= WARM_UP:
            whole.append(took)
            for phase, seconds in env.world.snapshot().observation.info["seconds"].items():
                phases[phase].append(seconds)
    metrics["steps_per_s"] = len(whole) / sum(whole)
    metrics |= {f"{phase}_ms": 1e3 * statistics.median(seconds) for phase, seconds in phases.items()}
    around = [total - sum(parts) for total, parts in zip(whole, zip(*phases.values(), strict=True), strict=True)]
    metrics["other_ms"] = 1e3 * statistics.median(around)
    metrics["memory_points"] = info["memory_points"]
    return {"marks": metrics | _beside_rgb(model, int(cfg["seed"]), int(cfg["rgb_steps"]))}


def _beside_rgb(model: WorldModel, seed: int, steps: int) -> dict[str, float]:
    """Whole steps of the same networks with either memory, in turns, along the same drive from a reset."""
    envs = []
    for name, variant in variants_of(model, [LATENT, RGB_MEMORY]).items():
        env = gymnasium.make("MirageWorld-v0", world=variant)
        env.reset(seed=seed)
        envs.append((name, env, iter(range(steps + 1))))
    calls = [lambda env=env, step=step: env.step(_command(next(step))) for _, env, step in envs]
    seconds = dict(zip((name for name, _, _ in envs), side_by_side(steps, *calls), strict=True))
    return {"end_to_end_ratio_rgb": seconds[RGB_MEMORY] / seconds[LATENT]}


def _command(step: int) -> np.ndarray:
    """A drive that wanders without ever stopping: forward mostly, turns swelling and ebbing to both sides."""
    forward = 0.6 + 0.4 * math.cos(step / 13)
    turn = 0.8 * math.sin(step / 17) * math.cos(step / 41)
    return np.array([forward, turn], dtype=np.float32)


def _seconds_of(program: str) -> float:
    """What a new interpreter measures and prints; its own start is not in it."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the measured program failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])
