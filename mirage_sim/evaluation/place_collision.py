"""``mirage eval collision recording=...``: collisions in a world made from a recording, against the simulator's truth.

The recordings are clips of ``mirage record``, whose metadata names simulator, environment and seed. The whole recording
is imported. Then the queries of :mod:`mirage_sim.evaluation.collision` are asked at its cameras. A query counts only
within observed space: where the imported memory shows the ground of the path.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.ambient import own_torch
from mirage_sim.build import instantiate
from mirage_sim.data.clips import Clip
from mirage_sim.data.recordings import open_recording
from mirage_sim.data.recordings.place import import_place, level_from_recording
from mirage_sim.data.simulators import ReferenceSimulator
from mirage_sim.evaluation.collision import ESTIMATED, ask, body_of, count, metrics_of, true_maps
from mirage_sim.evaluation.ground_truth import open_simulator
from mirage_sim.evaluation.place import sources_of
from mirage_sim.evaluation.simulated import mount_of, simulated_clip
from mirage_sim.evaluation.summary import write_json
from mirage_sim.settings import CollisionSettings
from mirage_sim.world import WorldModel


@own_torch()
def evaluate(settings: CollisionSettings) -> dict[str, Any]:
    """Compare collisions in imported worlds with those of the simulator that was recorded.

    Returns:
        ``marks``: as of :func:`mirage_sim.evaluation.collision.evaluate`, with intervals over recordings; and
        ``recordings``, true and false positives and negatives of each.

    Raises:
        FileNotFoundError: for missing files.
        ValueError: if a recording is no clip of a simulator.
        ImportError: if the simulator's packages or EGL are missing.
    """
    sources, started = sources_of(Path(str(settings.recording))), time.perf_counter()
    clips = [simulated_clip(source) for source in sources]
    model = instantiate(settings.world)
    counts: list[NDArray[np.int64]] = []
    for source, clip in zip(sources, clips, strict=True):
        simulator = open_simulator(clip.source["simulator"], clip.source["environment"])
        try:
            counts.append(count_recording(source, clip, simulator, model))
        finally:
            simulator.close()
    names = ("tp", "fp", "fn", "tn", "unknown")
    result: dict[str, Any] = {
        "marks": metrics_of({ESTIMATED: np.stack(counts)}),
        "recordings": {
            source.name: dict(zip(names, own.sum((0, 1)).tolist(), strict=True))
            for source, own in zip(sources, counts, strict=True)
        },
        "seconds": round(time.perf_counter() - started, 1),
    }
    if settings.output:
        write_json(result, Path(settings.output) / "collision.json")
    return result


def count_recording(source: Path, clip: Clip, simulator: ReferenceSimulator, model: WorldModel) -> NDArray[np.int64]:
    """Import a recording and count its world's answers, ``[parts, kinds, 5]`` as :func:`~.collision.count` does."""
    recording = open_recording(source)
    level = level_from_recording(recording)
    c2w = torch.from_numpy(level @ recording.c2w).float()
    simulator.mount = mount_of(clip)
    clip = replace(clip, c2w=c2w)
    queries = ask(simulator, clip, true_maps(clip, model.codec.stride))
    map = import_place(recording, model).world.state.map
    return count(queries, [map] * len(clip), clip.cameras, body_of(simulator))
