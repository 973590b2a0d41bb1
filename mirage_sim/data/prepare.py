"""``mirage prepare``: convert videos with known cameras and depth to clips of one size, rate and length."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mirage_sim.data.clips import Clip, save_clip
from mirage_sim.data.video_datasets import LAYOUTS, Video
from mirage_sim.geometry import Camera
from mirage_sim.settings import VideoSettings
from mirage_sim.world.images import fit

logger = logging.getLogger(__name__)

MAX_ZOOM = 0.01  # relative change of the focal length within a clip, whose frames share their intrinsics


def prepare(settings: VideoSettings) -> dict[str, Any]:
    """Make clips of all videos in a folder. Existing clips are kept, and unusable videos are skipped with a warning.

    Args:
        settings: of the class for the layout of the videos.

    Returns:
        Numbers of new ``clips`` and of ``refused`` videos (the log says why they were refused), and ``output``.

    Raises:
        ValueError: if the folder holds no usable video.
    """
    source, output, layout = Path(settings.source), Path(settings.output), LAYOUTS[settings.layout]
    names = layout.names(source)
    if not names:
        raise ValueError(f"{source}: expected videos in the layout {settings.layout}, got no {layout.files}")
    made, faults = 0, []
    for name in tqdm(names, unit="video", disable=None):
        try:
            video = layout.read(source, name)
            for number, chosen in enumerate(choose_frames(video.times, settings.fps, settings.frames)):
                path = output / f"{name}-{number:03d}.safetensors"
                if not path.exists():
                    save_clip(cut(video, chosen, settings.size, {"film": name}), path)
                    made += 1
        except (ValueError, OSError) as error:
            faults.append(f"{name}: {error}")
            logger.warning("skipped %s", faults[-1])
    if len(faults) == len(names):
        raise ValueError(f"{source}: expected a usable video, got {len(faults)} others; the first: {faults[0]}")
    return {"clips": made, "refused": len(faults), "output": settings.output}


def choose_frames(times: np.ndarray, fps: float, frames: int) -> list[list[int]]:
    """Choose the frames of successive clips; the remaining frames at the end are dropped.

    Args:
        times: of the video's frames, seconds.
        fps: frame rate of the clips; for each of their frames the nearest one is chosen.
        frames: number of frames of a clip.

    Raises:
        ValueError: if times do not increase, or the frame rate or the duration of the video is too low.
    """
    if len(times) == 0 or not (np.diff(times) > 0).all():
        raise ValueError(f"times: expected increasing times of frames, got {len(times)} that do not increase")
    ticks = np.arange(int((times[-1] - times[0]) * fps + 1.5)) / fps + times[0]
    after = np.searchsorted(times, ticks).clip(1, max(len(times) - 1, 1))
    nearest = np.where(ticks - times[after - 1] <= times[after.clip(max=len(times) - 1)] - ticks, after - 1, after)
    if (off := np.abs(times[nearest] - ticks).max()) > 0.75 / fps or (np.diff(nearest) == 0).any():
        raise ValueError(
            f"fps: expected a video of at least {fps:g} frames per second, got one whose frames are {off:.2f} s off"
        )
    count = len(nearest) // frames
    if not count:
        raise ValueError(f"frames: expected a video of at least {frames / fps:.1f} s, got {times[-1] - times[0]:.1f} s")
    return [nearest[n * frames : (n + 1) * frames].tolist() for n in range(count)]


def cut(video: Video, chosen: Sequence[int], size: tuple[int, int], source: dict[str, str]) -> Clip:
    """Make a clip, without commands, of some frames: crop the middle of each image and resize it.

    Raises:
        ValueError: if motions are not rigid, the camera zooms, or a frame has no known depth.
    """
    relative = video.intrinsics[list(chosen)]
    fx, fy, cx, cy = np.median(relative, axis=0)
    if not np.isfinite(relative).all() or not (relative[:, :2] > 0).all():
        raise ValueError("intrinsics: expected finite ones with positive focal lengths")
    if (np.abs(relative[:, :2] / (fx, fy) - 1) > MAX_ZOOM).any():
        low, high = relative[:, 0].min(), relative[:, 0].max()
        raise ValueError(f"intrinsics: expected one focal length per clip, got {low:.4f} to {high:.4f} of the width")
    images, camera = [], None
    c2w = torch.from_numpy(video.c2w[list(chosen)]).float()
    for image in video.images(chosen):
        height, width = image.shape[:2]
        K = torch.tensor([[fx * width, 0.0, cx * width], [0.0, fy * height, cy * height], [0.0, 0.0, 1.0]])
        fitted, camera = fit(image, Camera(c2w[0], K.float(), (height, width)), size)
        images.append(torch.from_numpy(fitted))
    if camera is None:
        raise ValueError("frames: expected at least one")
    Camera(c2w, camera.K.expand(len(c2w), 3, 3), size).validate()
    depth = torch.stack([fit_depth(values, np.array([fx, fy, cx, cy]), camera) for values in video.depth(chosen)])
    if (unknown := (depth > 0).flatten(1).any(1).logical_not()).any():
        raise ValueError(
            f"depth: expected some known depth in each frame, got none in {int(unknown.sum())} of {len(depth)}"
        )
    commands, blocked = torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool)
    source = source | ({"caption": video.caption} if video.caption else {})
    return Clip(torch.stack(images), depth.half(), c2w, camera.K, commands, blocked, source)


def fit_depth(depth: np.ndarray, intrinsics: np.ndarray, camera: Camera) -> torch.Tensor:
    """Resample depth for a camera at the same pose with other intrinsics, by nearest neighbours.

    Args:
        depth: ``[H, W]`` of a whole image, metres; unknown where it is not positive and finite.
        intrinsics: ``(fx, fy, cx, cy)`` of the whole image, relative to its width and height.
        camera: the other camera, batch shape ``()``.

    Returns:
        float32 of the camera's size, 0 where unknown.
    """
    fx, fy, cx, cy = intrinsics
    (height, width), K = camera.size, camera.K.double().numpy()
    u = ((np.arange(width) + 0.5 - K[0, 2]) / K[0, 0] * fx + cx) * depth.shape[1]
    v = ((np.arange(height) + 0.5 - K[1, 2]) / K[1, 1] * fy + cy) * depth.shape[0]
    rows, columns = (
        np.floor(at).astype(int).clip(0, length - 1) for at, length in zip((v, u), depth.shape, strict=True)
    )
    values = depth[rows[:, None], columns].astype(np.float32)
    return torch.from_numpy(np.where(np.isfinite(values) & (values > 0), values, 0.0))
