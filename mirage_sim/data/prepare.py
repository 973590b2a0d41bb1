"""``mirage prepare``: films with cameras and depth become clips of one size, rate and length."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mirage_sim.data.clips import Clip, save_clip
from mirage_sim.data.video_datasets import LAYOUTS, Film
from mirage_sim.geometry import Camera
from mirage_sim.settings import VideoSettings
from mirage_sim.world.images import fit

logger = logging.getLogger(__name__)

ZOOM = 0.01  # relative change of the focal length within a clip, which holds one for all of its frames


def prepare(settings: VideoSettings) -> dict[str, Any]:
    """Make clips of all films in a folder. Clips that are there already are kept; films that are no good are skipped.

    Args:
        settings: of a class whose ``layout`` is one of ``LAYOUTS``.

    Returns:
        Numbers of ``clips`` that were made now and of films that were ``refused`` (the log says why); ``output``.

    Raises:
        ValueError: if there are no films or none is good.
    """
    source, output, layout = Path(settings.source), Path(settings.output), LAYOUTS[settings.layout]
    names = [path.stem for path in sorted(source.glob(layout.pattern))]
    if not names:
        raise ValueError(f"{source}: expected films in the layout {settings.layout}, got no {layout.pattern}")
    made, faults = 0, []
    for name in tqdm(names, unit="film", disable=None):
        try:
            film = layout.read(source, name)
            for number, chosen in enumerate(choose_frames(film.times, settings.fps, settings.frames)):
                path = output / f"{name}-{number:03d}.safetensors"
                if not path.exists():
                    save_clip(cut(film, chosen, settings.size, {"film": name}), path)
                    made += 1
        except (ValueError, OSError) as error:
            faults.append(f"{name}: {error}")
            logger.warning("skipped %s", faults[-1])
    if len(faults) == len(names):
        raise ValueError(f"{source}: expected a film that can be used; {len(faults)} cannot, the first: {faults[0]}")
    return {"clips": made, "refused": len(faults), "output": settings.output}


def choose_frames(times: np.ndarray, fps: float, frames: int) -> list[list[int]]:
    """Which frames of a film make its clips, one after the other; what is left at the end makes none.

    Args:
        times: of the film's frames, seconds.
        fps: of the clips; at each tick the nearest frame is taken.
        frames: of a clip.

    Raises:
        ValueError: if times do not ascend, there are fewer frames than that per second, or none for a single clip.
    """
    if len(times) == 0 or not (np.diff(times) > 0).all():
        raise ValueError(f"times: expected those of frames one after the other, got {len(times)} that do not ascend")
    ticks = np.arange(int((times[-1] - times[0]) * fps + 1.5)) / fps + times[0]
    after = np.searchsorted(times, ticks).clip(1, max(len(times) - 1, 1))
    nearest = np.where(ticks - times[after - 1] <= times[after.clip(max=len(times) - 1)] - ticks, after - 1, after)
    if (off := np.abs(times[nearest] - ticks).max()) > 0.75 / fps or (np.diff(nearest) == 0).any():
        raise ValueError(f"fps: expected a film of at least {fps:g} frames per second, got one that is {off:.2f} s off")
    count = len(nearest) // frames
    if not count:
        raise ValueError(f"frames: expected a film of at least {frames / fps:.1f} s, got {times[-1] - times[0]:.1f} s")
    return [nearest[n * frames : (n + 1) * frames].tolist() for n in range(count)]


def cut(film: Film, chosen: Sequence[int], size: tuple[int, int], source: dict[str, str]) -> Clip:
    """The clip of some frames of a film: the middle of each picture, resized; without commands.

    Raises:
        ValueError: if motions are not rigid, the camera zooms, or no depth is known in some frame.
    """
    shares = film.intrinsics[list(chosen)]
    fx, fy, cx, cy = np.median(shares, axis=0)
    if not np.isfinite(shares).all() or not (shares[:, :2] > 0).all():
        raise ValueError("intrinsics: expected finite ones with positive focal lengths")
    if (np.abs(shares[:, :2] / (fx, fy) - 1) > ZOOM).any():
        low, high = shares[:, 0].min(), shares[:, 0].max()
        raise ValueError(f"intrinsics: expected one focal length per clip, got {low:.4f} to {high:.4f} of the width")
    pictures, camera = [], None
    c2w = torch.from_numpy(film.c2w[list(chosen)]).float()
    for picture in film.pictures(chosen):
        height, width = picture.shape[:2]
        K = torch.tensor([[fx * width, 0.0, cx * width], [0.0, fy * height, cy * height], [0.0, 0.0, 1.0]])
        fitted, camera = fit(picture, Camera(c2w[0], K.float(), (height, width)), size)
        pictures.append(torch.from_numpy(fitted))
    if camera is None:
        raise ValueError("frames: expected at least one")
    Camera(c2w, camera.K.expand(len(c2w), 3, 3), size).validate()
    whole = np.array([fx, fy, cx, cy])
    depth = torch.stack([fit_depth(values, whole, camera) for values in film.depth(chosen)])
    if (unknown := (depth > 0).flatten(1).any(1).logical_not()).any():
        raise ValueError(f"depth: expected some in each frame, got none in {int(unknown.sum())} of {len(depth)}")
    nothing = torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool)
    captioned = source | ({"caption": film.caption} if film.caption else {})
    return Clip(torch.stack(pictures), depth.half(), c2w, camera.K, *nothing, captioned)


def fit_depth(depth: np.ndarray, shares: np.ndarray, camera: Camera) -> torch.Tensor:
    """Depth of a whole picture as a camera of the same place and other intrinsics sees it: the nearest sample.

    Args:
        depth: ``[H, W]`` in metres; what is not positive and finite is unknown.
        shares: ``(fx, fy, cx, cy)`` of the whole picture as shares of its width and height.
        camera: batch shape ``()``.

    Returns:
        float32 of the camera's size, 0 where unknown.
    """
    fx, fy, cx, cy = shares
    (height, width), K = camera.size, camera.K.double().numpy()
    u = ((np.arange(width) + 0.5 - K[0, 2]) / K[0, 0] * fx + cx) * depth.shape[1]
    v = ((np.arange(height) + 0.5 - K[1, 2]) / K[1, 1] * fy + cy) * depth.shape[0]
    rows, columns = (
        np.floor(at).astype(int).clip(0, length - 1) for at, length in zip((v, u), depth.shape, strict=True)
    )
    values = depth[rows[:, None], columns].astype(np.float32)
    return torch.from_numpy(np.where(np.isfinite(values) & (values > 0), values, 0.0))
