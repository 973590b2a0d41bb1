"""What another camera has already seen, decided by true depth alone."""

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, project, unproject

TOLERANCE = 0.03  # relative difference in depth that still is the same surface
FAR = 90.0  # metres; MiniWorld's depth ends at about 100, so that what is farther is sky


def seen_from(depth: Tensor, camera: Camera, first_depth: Tensor, first_camera: Camera) -> Tensor:
    """Which pixels show a place that the first camera saw too.

    Each pixel's true 3D point is projected into the first camera. It was seen there when it falls inside the picture
    and its depth lies, within 3 %, between the smallest and the largest of the four depths around it: a floor seen at a
    flat angle changes by more than 3 % from one row to the next, which a single neighbour would call hidden. Sky is as
    good as infinitely far.

    Args:
        depth: true z-depth ``[..., H, W]`` in metres.
        camera: batch shape ``[...]``.
        first_depth: true z-depth ``[H, W]`` of the first camera, same size.
        first_camera: batch shape ``()``.

    Returns:
        bool ``[..., H, W]``.
    """
    height, width = first_camera.size
    if first_depth.shape != (height, width):
        raise ValueError(f"first_depth: expected {[height, width]} like its camera, got {list(first_depth.shape)}")
    points = unproject(torch.where(depth >= FAR, 1e5, depth.float()), camera).reshape(-1, 3)
    u, v, z = project(points, first_camera)
    inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    left = (u.clamp(0, width) - 0.5).floor().long()
    top = (v.clamp(0, height) - 0.5).floor().long()
    clamped = first_depth.float().clamp(max=FAR)
    around = torch.stack(
        [
            clamped[(top + i).clamp(0, height - 1), (left + j).clamp(0, width - 1)]
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))
        ]
    )
    z = z.clamp(max=FAR)
    same = (z >= around.amin(0) * (1 - TOLERANCE)) & (z <= around.amax(0) * (1 + TOLERANCE))
    known = (depth > 0).reshape(-1)
    return (inside & same & known).reshape(depth.shape)
