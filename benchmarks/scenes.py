"""Synthetic scenes: a furnished room with exact depth, cameras around it, and a hall of random points."""

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry import Camera, se3_exp, unproject
from mirage_sim.memory import LatentMap
from mirage_sim.memory.blocks import Points

HALL = (59.0, 4.0, 59.0)  # metres, around the origin; not a multiple of the map's blocks, so that walls cut them


def ray_cast(camera: Camera, room: Tensor, boxes: Tensor) -> Tensor:
    """Exact z-depth of a room with boxes in it.

    Args:
        camera: batch shape ``[...]``, inside the room and outside the boxes.
        room: ``[2, 3]``, lowest and highest corner, metres, world frame.
        boxes: ``[n, 2, 3]``.

    Returns:
        ``[..., H, W]`` metres, along the rays through the pixel centres.
    """
    origin = camera.c2w[..., None, None, :3, 3]
    ray = unproject(torch.ones(*camera.batch_shape, *camera.size), camera) - origin  # its z-depth is 1
    ray = torch.where(ray.abs() < 1e-9, 1e-9, ray)
    depth = torch.maximum((room[0] - origin) / ray, (room[1] - origin) / ray).amin(-1)
    for low, high in boxes:
        a, b = (low - origin) / ray, (high - origin) / ray
        enter, leave = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
        depth = torch.where((enter > 0) & (enter < leave), torch.minimum(depth, enter), depth)
    return depth


def furnished_room() -> tuple[Tensor, Tensor]:
    """A room of 10 x 3 x 10 metres around the origin with six pillars and crates: ``[2, 3]`` and ``[6, 2, 3]``."""
    room = torch.tensor([[-5.0, -1.5, -5.0], [5.0, 1.5, 5.0]])
    centre = torch.tensor([[-2.0, 0, 2], [0.5, 0.9, 3], [2.2, 0, 1.5], [-3, 1, -2], [0, 0, -3], [3, 0.9, -2.5]])
    half = torch.tensor(
        [[0.2, 1.5, 0.2], [0.6, 0.6, 0.4], [0.15, 1.5, 0.15], [0.5, 0.5, 0.5], [0.3, 1.5, 0.3], [1, 0.6, 0.3]]
    )
    return room, torch.stack([centre - half, centre + half], dim=1)


def circuit(count: int, size: tuple[int, int]) -> Camera:
    """Cameras once around the furnished room, on a circle, looking along it and to both sides.

    Args:
        count: number of cameras; the batch shape is ``[count]``.
        size: ``(height, width)``.
    """
    angle = torch.arange(count) * (2 * torch.pi / count)
    twist = torch.zeros(count, 6)
    twist[:, 4] = angle + 0.8 * torch.sin(5 * angle)
    c2w = se3_exp(twist)
    c2w[:, 0, 3], c2w[:, 2, 3] = -1.5 * torch.cos(angle), 1.5 * torch.sin(angle)
    return Camera.from_fov(c2w, 60.0, size)


def room_views(count: int, size: tuple[int, int]) -> Tensor:
    """Points of the room that the cameras of a :func:`circuit` see: ``[count, H * W, 3]`` metres, world frame."""
    cameras = circuit(count, size)
    return unproject(ray_cast(cameras, *furnished_room()), cameras).flatten(1, 2)


def hall(count: int, channels: int) -> LatentMap:
    """A map of ``count`` uniformly random points in a hall of 59 x 4 x 59 metres around the origin."""
    generator = torch.Generator().manual_seed(count)
    points = Points(
        (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor(HALL),
        torch.empty(count, channels).normal_(generator=generator),
        torch.arange(count),
        torch.rand(count, generator=generator) * 0.1 + 0.01,
    )
    return LatentMap.empty(channels).add(points, np.zeros(0, np.int64), count)
