"""Short walks through a textured box with exact images, depth and poses by ray casting."""

import math
from pathlib import Path

import torch
from torch import Tensor

from mirage_sim.data.clips import Clip, save_clip
from mirage_sim.geometry import Camera, VelocityLimits

SIZE = (48, 64)
HALF = (3.0, 1.5, 3.0)  # metres from the centre of the box to its walls


def cast(camera: Camera, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Render the image uint8 [H, W, 3] and z-depth [H, W] of one camera inside the box."""
    height, width = camera.size
    K, c2w = camera.K, camera.c2w
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ray = torch.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], torch.ones_like(u)], dim=-1) @ c2w[:3, :3].T
    half = torch.tensor(HALF)
    depth = ((half * ray.sign() - c2w[:3, 3]) / ray.where(ray != 0, 1e-9)).abs().amin(-1)
    point = c2w[:3, 3] + ray * depth[..., None]
    colour = 0.5 + 0.25 * torch.sin(3.0 * point + phase) + 0.2 * torch.sin(1.3 * point.roll(1, -1) - phase)
    return (colour.clamp(0, 1) * 255).round().byte(), depth


def toy_clip(seed: int, frames: int = 40, size: tuple[int, int] = SIZE) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    phase = 6.0 * torch.rand(3, generator=generator)
    turn = 0.6 * torch.sin(torch.arange(frames - 1) / 5 + phase[0])
    commands = torch.stack([0.3 * torch.ones(frames - 1), turn], dim=1)
    heading = 2 * math.pi * torch.rand(1, generator=generator).item()
    c2w = torch.eye(4)
    c2w[0, 0] = c2w[2, 2] = math.cos(heading)
    c2w[0, 2], c2w[2, 0] = math.sin(heading), -math.sin(heading)
    poses = [c2w]
    for motion in VelocityLimits().motion(commands):
        poses.append(poses[-1] @ motion)
    cameras = Camera.from_fov(torch.stack(poses), 60.0, size)
    images, depths = zip(*(cast(camera, phase) for camera in cameras), strict=True)
    blocked = torch.zeros(frames - 1, dtype=torch.bool)
    source = {"environment": "Box", "seed": str(seed)}
    depth = torch.stack(depths).half()
    return Clip(torch.stack(images), depth, cameras.c2w, cameras.K[0].clone(), commands, blocked, source)


def write_clips(folder: Path, count: int = 3, frames: int = 40) -> Path:
    for seed in range(count):
        save_clip(toy_clip(seed, frames), folder / f"Box-{seed:06d}.safetensors")
    return folder
