"""A world whose memory is a known scene: a hall with a pillar ahead, measured from its start."""

import numpy as np

from mirage_sim.agents.plan_view import PlanView
from mirage_sim.world import World, WorldModel
from support.toy_world import SIZE, toy_starts

WALL = 6.0  # metres ahead
PILLAR = (1.8, 0.5)  # metres ahead, half of its width
EYE = 1.5  # metres above the floor


def pillar_depth() -> np.ndarray:
    """Return the z-depth of the hall from the start, float32 ``[H, W]`` in metres."""
    height, width = SIZE
    focal = height / 2 / np.tan(np.radians(30.0))
    down = ((np.arange(height) + 0.5 - height / 2) / focal)[:, None]
    right = ((np.arange(width) + 0.5 - width / 2) / focal)[None]
    floor = np.where(down > 0, EYE / np.maximum(down, 1e-9), np.inf)
    depth = np.minimum(np.broadcast_to(floor, SIZE), WALL)
    depth = np.where((np.abs(right) * PILLAR[0] < PILLAR[1]) & (PILLAR[0] < depth), PILLAR[0], depth)
    return depth.astype(np.float32)


def pillar_world(model: WorldModel) -> World:
    world = World(model)
    world.reset(toy_starts(1)[0], depth=pillar_depth())
    return world


def pillar_view(model: WorldModel) -> PlanView:
    return PlanView.of(pillar_world(model))
