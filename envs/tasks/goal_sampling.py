"""Places in front of a camera: where the view shows free floor, and what the world would show from there.

Cameras are taken to be level (+y is down), as those of the start frames are.
"""

import math

import numpy as np
import torch

from mirage_sim.geometry import Camera, VelocityLimits, se3_exp, se3_log, unproject
from mirage_sim.world import Observation, World

BODY = 0.4  # metres; half the width of the way that must be free, and what is left between a place and the next surface
DIRECTIONS = 33
FIELD = 0.8  # of the frame's width; nearer to its edges, half of the way would be unseen
#: Heights that stand in the way, as fractions of the camera's height above the floor, down from the camera.
TALL = (-0.25, 0.75)


def free_ways(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
    """How far one can go straight ahead in the directions that a frame shows.

    The floor is where most of the lower half of the picture's points end; what stands more than a quarter of the
    camera's height above it, and not more than a quarter above the camera, is in the way.

    Returns:
        Directions ``[N]``, radians to the right of the viewing direction, and free metres ``[N]``, less ``BODY``;
        not above 0 where the depth is unknown.
    """
    camera = observation.camera
    height, width = camera.size
    here = Camera(torch.eye(4), camera.K, camera.size)
    points = unproject(torch.from_numpy(observation.depth), here).double().numpy()
    floor = float(np.quantile(points[height // 2 :, :, 1], 0.9))
    known = observation.depth > 0
    in_the_way = known & (points[..., 1] > TALL[0] * floor) & (points[..., 1] < TALL[1] * floor)
    x, z = points[in_the_way][:, 0], points[in_the_way][:, 2]

    columns = np.linspace((1 - FIELD) / 2 * width, (1 + FIELD) / 2 * width, DIRECTIONS)
    directions = np.arctan((columns - camera.K[0, 2].item()) / camera.K[0, 0].item())
    sine, cosine = np.sin(directions)[:, None], np.cos(directions)[:, None]
    along, beside = x * sine + z * cosine, x * cosine - z * sine
    free = np.where(np.abs(beside) < BODY, along, np.inf).min(axis=1, initial=np.inf)
    return directions, np.where(np.isfinite(free), free, 0.0) - BODY


def draw_place(observation: Observation, distance: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """A pose ``[4, 4]`` that the view leads to, looking on along the way there.

    Args:
        observation: the view.
        distance: the nearest and the farthest, in metres from the camera.
        rng: draws the direction, among those that are free that far, and the distance.

    Raises:
        ValueError: if no direction is free as far as the nearest.
    """
    nearest, farthest = distance
    directions, free = free_ways(observation)
    ways = np.flatnonzero(free >= nearest)
    if not len(ways):
        raise ValueError(
            f"goal: expected a start view with {nearest:g} m of free way, got at most {max(free.max(), 0.0):.2f} m; "
            'start elsewhere or give options["goal"]'
        )
    way = rng.choice(ways)
    length = rng.uniform(nearest, min(farthest, free[way]))
    return observation.camera.c2w.double().numpy() @ ahead(directions[way], length)


def ahead(direction: float, length: float) -> np.ndarray:
    """Motion ``[4, 4]``: ``direction`` radians to the right, then ``length`` metres forward."""
    sine, cosine = math.sin(direction), math.cos(direction)
    motion = np.eye(4)
    motion[:3, 0], motion[:3, 2] = (cosine, 0.0, -sine), (sine, 0.0, cosine)
    motion[:3, 3] = length * motion[:3, 2]
    return motion


def look_from(world: World, pose: np.ndarray) -> np.ndarray:
    """What the world shows after a straight walk to a pose: a frame, uint8 ``[H, W, 3]``.

    Args:
        world: a fork of it walks there, in steps as long as those of the agent.
        pose: camera-to-world ``[4, 4]``.
    """
    drive = VelocityLimits(dt=world.model.dt)
    (world,) = world.fork(1)
    camera = world.camera
    target = torch.from_numpy(pose).double()
    begin = camera.c2w.double()
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = begin[:3, :3].T @ target[:3, :3]
    twist, way = se3_log(turn), target[:3, 3] - begin[:3, 3]
    needed = max(
        way.norm().item() / (drive.max_speed * drive.dt), twist.norm().item() / (drive.max_turn_rate * drive.dt)
    )
    steps = max(math.ceil(needed - 1e-6), 1)
    for step in range(1, steps + 1):
        c2w = begin @ se3_exp(twist * step / steps)
        c2w[:3, 3] = begin[:3, 3] + way * step / steps
        shown = world.step(Camera(c2w.float(), camera.K, camera.size))
    return shown.frame
