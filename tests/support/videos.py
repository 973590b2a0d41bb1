"""Toy clips as videos in the layouts of public data sets."""

from pathlib import Path

import cv2
import numpy as np

from mirage_sim.agents.lerobot import poses_of, save_lerobot
from mirage_sim.data.clips import Clip
from mirage_sim.data.recordings.lerobot import DEPTH, IMAGE, INTRINSICS, POSE
from support.clips import toy_clip

FRAMES = 30
RATE = 16.0


def write_video(path: Path, clip: Clip) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = clip.cameras.size
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (width, height))
    for frame in clip.frames.numpy():
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def write_table(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, data=data, inds=np.arange(len(data)))


def write_vipe(folder: Path, name: str = "walk", seed: int = 0) -> Clip:
    clip = toy_clip(seed, FRAMES)
    write_video(folder / "rgb" / f"{name}.mp4", clip)
    write_table(folder / "pose" / f"{name}.npz", clip.c2w.numpy())
    K = clip.K
    intrinsics = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]], dtype=np.float32)
    write_table(folder / "intrinsics" / f"{name}.npz", np.tile(intrinsics, (FRAMES, 1)))
    write_table(folder / "depth" / f"{name}.npz", clip.depth.numpy())
    return clip


def write_realestate10k(folder: Path, name: str = "walk", seed: int = 0) -> Clip:
    clip = toy_clip(seed, FRAMES)
    (height, width), K = clip.cameras.size, clip.K
    share = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height]
    stamps = [1_000_000 + round(i * 1e6 / RATE) for i in range(FRAMES)]
    lines = ["https://example.org/video"]
    for stamp, w2c in zip(stamps, clip.cameras.w2c, strict=True):
        numbers = [*share, 0.0, 0.0, *w2c[:3].flatten().tolist()]
        lines.append(" ".join([str(stamp), *(f"{float(number):.9f}" for number in numbers)]))
    (folder / "poses").mkdir(parents=True, exist_ok=True)
    (folder / "poses" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "frames" / name).mkdir(parents=True)
    for stamp, frame in zip(stamps, clip.frames.numpy(), strict=True):
        cv2.imwrite(str(folder / "frames" / name / f"{stamp}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    write_table(folder / "depth" / f"{name}.npz", clip.depth.numpy())
    return clip


def write_lerobot(folder: Path, seed: int = 0) -> Clip:
    """A LeRobot data set of one episode, with images as PNG files."""
    clip = toy_clip(seed, FRAMES)
    fx, fy, cx, cy = clip.K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
    rows = {
        IMAGE: clip.frames.numpy(),
        DEPTH: clip.depth.float().numpy(),
        POSE: poses_of(clip.c2w.numpy()),
        INTRINSICS: np.tile(np.array([fx, fy, cx, cy], dtype=np.float32), (FRAMES, 1)),
        "action": np.zeros((FRAMES, 2), dtype=np.float32),
        "next.reward": np.zeros(FRAMES, dtype=np.float32),
        "fps": np.array(round(RATE)),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    archive = folder.with_name("archive.npz")
    np.savez(archive, **rows)
    save_lerobot(folder, [archive], "Walk.", "twist", video=False)
    archive.unlink()
    return clip
