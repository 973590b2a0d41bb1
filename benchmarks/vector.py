"""Several worlds generated as one batch: speed-up, memory, and agreement with single worlds."""

from typing import Any

import gymnasium
import numpy as np

from benchmarks.runner import held_bytes, side_by_side
from mirage_sim.build import instantiate
from mirage_sim.settings.benchmarks import VectorBenchSettings
from mirage_sim.world import WorldModel

REPEATED = 4  # steps over which two runs of the same batch must have the same bits
TOLERANCE = 1  # grey level that a batch may differ from single worlds after one step; see envs/vector_env.py


def bench_vector(settings: VectorBenchSettings) -> dict[str, Any]:
    """Step single environments and a vector environment in turns, with the same seeds and actions.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``throughput_ratio_N``, steps per second of all N worlds divided by those of one
        environment; ``identical``, whether the batch agrees with single environments (the first frames in all bits, the
        next ones within one grey level) and repeats bit for bit; ``grey_levels_apart``, the largest difference after
        one step; ``mib_per_extra_world``, counted, that a freshly made world adds; ``steps_per_s_1`` and
        ``steps_per_s_N``.

    Raises:
        ValueError: for unusable settings.
    """
    model: WorldModel = instantiate(settings.world)
    count, seed = settings.worlds, int(settings.seed)
    actions = np.random.default_rng(seed).uniform(-1, 1, (settings.steps + 1, count, 2)).astype(np.float32)
    apart, same = compare(model, actions, seed)
    single = gymnasium.make("MirageWorld-v0", world=model)
    batch = gymnasium.make_vec("MirageWorld-v0", num_envs=count, world=model)
    single.reset(seed=seed)
    batch.reset(seed=seed)
    alone, together = iter(actions[:, 0]), iter(actions)
    seconds, seconds_batch = side_by_side(
        settings.steps, lambda: single.step(next(alone)), lambda: batch.step(next(together))
    )

    def make(worlds: int) -> gymnasium.vector.VectorEnv:
        return gymnasium.make_vec("MirageWorld-v0", num_envs=worlds, world=model)

    extra = held_bytes(lambda: make(count + 1)) - held_bytes(lambda: make(1))
    return {
        "marks": {
            f"throughput_ratio_{count}": count * seconds / seconds_batch,
            "identical": same and apart <= TOLERANCE,
            "grey_levels_apart": apart,
            "mib_per_extra_world": extra / count / 2**20,
            "steps_per_s_1": 1 / seconds,
            f"steps_per_s_{count}": count / seconds_batch,
        }
    }


def compare(model: WorldModel, actions: np.ndarray, seed: int) -> tuple[int, bool]:
    """Compare a batch of worlds with single ones of the same seeds, and with a second run of itself.

    Args:
        model: of the worlds.
        actions: ``[steps, worlds, 2]``.
        seed: of the first world; the others count up from it.

    Returns:
        Largest difference of frames after one step, in grey levels; and whether the first frames have the same bits and
        all frames of a second run have those of the first.
    """
    count = actions.shape[1]
    runs = []
    for _ in range(2):
        batch = gymnasium.make_vec("MirageWorld-v0", num_envs=count, world=model)
        runs.append([batch.reset(seed=seed)[0], *(batch.step(action)[0] for action in actions[:REPEATED])])
    starts, steps = [], []
    for i in range(count):
        env = gymnasium.make("MirageWorld-v0", world=model)
        starts.append(env.reset(seed=seed + i)[0])
        steps.append(env.step(actions[0, i])[0])
    apart = int(np.abs(runs[0][1].astype(int) - np.stack(steps)).max())
    same_starts = bool((runs[0][0] == np.stack(starts)).all())
    return apart, same_starts and all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))
