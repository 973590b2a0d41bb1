from typing import Any

import pytest
import torch
from PIL import Image
from support.toy_world import SIZE, toy_model, toy_starts

from mirage_sim.build import compose
from mirage_sim.data.clips import Clip, save_clip
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.models import save_model


@pytest.fixture(scope="session")
def clip() -> Clip:
    """A short walk with a turn; all frames are one image, the depth is constant."""
    commands = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.3, -0.5], [0.0, 1.0]])
    poses = [torch.eye(4)]
    poses[0][:3, 3] = torch.tensor([5.0, -1.0, 2.0])
    for motion in VelocityLimits().motion(commands):
        poses.append(poses[-1] @ motion)
    cameras = Camera.from_fov(torch.stack(poses), 60.0, SIZE)
    frames = torch.from_numpy(toy_starts(1)).expand(len(poses), -1, -1, -1).contiguous()
    return Clip(
        frames, torch.ones(frames.shape[:3]), cameras.c2w, cameras.K[0], commands, torch.zeros(4, dtype=torch.bool)
    )


@pytest.fixture(scope="session")
def toy_config(tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> dict[str, Any]:
    """Plain settings of a rollout in a toy world that starts from an image file."""
    folder, model = tmp_path_factory.mktemp("toy"), toy_model()
    overrides = [f"world.size={list(SIZE)}", "latent.channels=8", f"image={folder / 'start.png'}"]
    for name in ("codec", "denoiser", "depth"):
        save_model(getattr(model, name), folder / f"{name}.safetensors")
        overrides.append(f"world.{name}.path={folder / name}.safetensors")
    Image.fromarray(toy_starts(1)[0]).save(folder / "start.png")
    save_clip(clip, folder / "walk.safetensors")
    return compose("rollout", overrides).plain() | {"walk": str(folder / "walk.safetensors")}
