"""Start-up time and steps per second of the environment, and the time of each phase of a step."""

import math
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

import gymnasium
import numpy as np

from benchmarks.runner import side_by_side
from mirage_sim.build import instantiate
from mirage_sim.evaluation.rollout import LATENT, RGB_MEMORY, variants_of
from mirage_sim.settings.benchmarks import StepBenchSettings
from mirage_sim.world import WorldModel

WARM_UP = 20  # steps that fill caches and let oneDNN choose its kernels
_IMPORT = "import time; began = time.perf_counter(); import mirage_sim; print(time.perf_counter() - began)"
_FIRST_RESET = """
import time
began = time.perf_counter()
import gymnasium, mirage_sim
env = gymnasium.make("MirageWorld-v0")
env.reset(seed=0)
print(time.perf_counter() - began)
"""


def bench_step(settings: StepBenchSettings) -> dict[str, Any]:
    """Time imports, the first reset, and steps along a smooth scripted drive.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``steps_per_s`` over all timed steps; ``import_s`` of ``import mirage_sim`` (median of five
        new processes); ``first_reset_s`` of import, ``gymnasium.make`` and ``reset`` (median of three); the median
        milliseconds of each phase of a step, and ``other_ms`` for the rest of the step; ``memory_points`` at the end;
        and ``end_to_end_ratio_rgb``, the median time of a step with RGB memory divided by that with latent memory.
    """
    metrics: dict[str, float] = {
        "import_s": statistics.median(_seconds_of(_IMPORT) for _ in range(5)),
        "first_reset_s": statistics.median(_seconds_of(_FIRST_RESET) for _ in range(3)),
    }
    model: WorldModel = instantiate(settings.world)
    env: Any = gymnasium.make("MirageWorld-v0", world=model).unwrapped
    _, info = env.reset(seed=int(settings.seed))
    whole: list[float] = []
    phases: dict[str, list[float]] = defaultdict(list)
    for step in range(WARM_UP + int(settings.steps)):
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
    return {"marks": metrics | _rgb_ratio(model, int(settings.seed), int(settings.rgb_steps))}


def _rgb_ratio(model: WorldModel, seed: int, steps: int) -> dict[str, float]:
    """Time steps of the same networks with both memories in turns, along the same drive from a reset."""
    envs = []
    for name, variant in variants_of(model, [LATENT, RGB_MEMORY]).items():
        env = gymnasium.make("MirageWorld-v0", world=variant)
        env.reset(seed=seed)
        envs.append((name, env, iter(range(steps + 1))))
    calls = [lambda env=env, step=step: env.step(_command(next(step))) for _, env, step in envs]
    seconds = dict(zip((name for name, _, _ in envs), side_by_side(steps, *calls), strict=True))
    return {"end_to_end_ratio_rgb": seconds[RGB_MEMORY] / seconds[LATENT]}


def _command(step: int) -> np.ndarray:
    """A smooth drive that never stops: always forward, turning left and right by varying amounts."""
    forward = 0.6 + 0.4 * math.cos(step / 13)
    turn = 0.8 * math.sin(step / 17) * math.cos(step / 41)
    return np.array([forward, turn], dtype=np.float32)


def _seconds_of(program: str) -> float:
    """Seconds that a program measures and prints in a new interpreter, without the interpreter's start."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the measured program failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])
