"""Sampling of goals: reachable positions in a view, and the image that the world generates there.

Cameras must be level (+y is down), like those of the start images.
"""

import math

import numpy as np
import torch

from mirage_sim.geometry import Camera, VelocityLimits, se3_exp, se3_log, unproject
from mirage_sim.world import Observation, Session

BODY = 0.4  # metres; half the width of a free path, and the distance between a goal and the next surface
DIRECTIONS = 33
FIELD = 0.8  # fraction of the frame's width; paths nearer to the edges would be half out of view
#: Range of heights of obstacles, measured down from the camera, as fractions of the camera's height.
TALL = (-0.25, 0.75)


class NoFreeWay(ValueError):  # noqa: N818  (says what is missing)
    """Raised if a start view shows no free path that is long enough for a goal."""


def free_ways(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the straight paths in a view are free.

    The floor is the 90 % quantile of y (down) in the lower half of the image. Points are obstacles if they are at
    least a quarter of the camera's height above the floor and at most a quarter above the camera.

    Returns:
        Directions ``[N]``, radians to the right of the viewing direction, and free metres ``[N]``, less ``BODY``; at
        most 0 where the depth is unknown.
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


def sample_goal(observation: Observation, distance: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Sample a pose ``[4, 4]`` at the end of a free straight path, facing along it.

    Args:
        observation: the view.
        distance: minimum and maximum distance from the camera in metres.
        rng: random generator for direction and distance.

    Raises:
        NoFreeWay: if no path of the minimum distance is free.
    """
    nearest, farthest = distance
    directions, free = free_ways(observation)
    ways = np.flatnonzero(free >= nearest)
    if not len(ways):
        raise NoFreeWay(
            f"goal: expected a start view with {nearest:g} m of free way, got at most {max(free.max(), 0.0):.2f} m; "
            'start elsewhere or give options["goal"]'
        )
    way = rng.choice(ways)
    length = rng.uniform(nearest, min(farthest, free[way]))
    return observation.camera.c2w.double().numpy() @ ahead(directions[way], length)


def ahead(direction: float, length: float) -> np.ndarray:
    """Return the motion ``[4, 4]`` of a turn by ``direction`` radians to the right and ``length`` metres forward."""
    sine, cosine = math.sin(direction), math.cos(direction)
    motion = np.eye(4)
    motion[:3, 0], motion[:3, 2] = (cosine, 0.0, -sine), (sine, 0.0, cosine)
    motion[:3, 3] = length * motion[:3, 2]
    return motion


def generate_view(world: Session, pose: np.ndarray) -> np.ndarray:
    """Return the frame that the world generates at a pose, uint8 ``[H, W, 3]``.

    A fork of the world moves there on a straight path, at the agent's maximum speed.

    Args:
        world: it does not change.
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
