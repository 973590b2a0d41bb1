"""Saved worlds of earlier releases must load, so the fixture stays when the format changes."""

from pathlib import Path

import gymnasium
import numpy as np

import mirage_sim  # noqa: F401  (registers the environment)
from mirage_sim.world import World

# MirageWorld-v0 with the mini world after reset(seed=5) and three steps of [0.8, 0.4]
SAVED = Path(__file__).parent.parent / "fixtures" / "world_format_1.safetensors"


def test_world_of_format_1_continues_bit_for_bit() -> None:
    env = gymnasium.make("MirageWorld-v0")
    env.reset(seed=5)
    for _ in range(3):
        env.step(np.array([0.8, 0.4], np.float32))
    driven = env.unwrapped.world
    loaded = World(driven.model)
    np.testing.assert_array_equal(loaded.load(SAVED).frame, driven.snapshot().observation.frame)
    for _ in range(6):
        frame, *_ = env.step(np.array([0.8, -0.4], np.float32))
        np.testing.assert_array_equal(loaded.step(driven.camera).frame, frame)
    assert loaded.state.map.points == driven.state.map.points
