"""Videos with known cameras and depth, in the layouts of public data sets; each data set is a folder.

* ``vipe``: ``rgb/NAME.mp4``, ``pose/NAME.npz`` (``data [n, 4, 4]`` camera to world, ``inds [n]`` numbers of frames),
  ``intrinsics/NAME.npz`` (``data [n, 4]``: fx, fy, cx, cy in pixels; ``inds``) and ``depth/NAME.npz``
  (``data [n, H, W]`` z-depth; ``inds``).
* ``realestate10k``: ``poses/NAME.txt`` as published (the address of the video, then a line per frame: microseconds; fx,
  fy, cx, cy relative to width and height; two zeros; the 12 numbers of the world-to-camera motion),
  ``frames/NAME/MICROSECONDS.png`` (or another format), or ``frames/NAME.mp4`` with one frame per line, and
  ``depth/NAME.npz`` as above, numbered by line from 0, in the unit of the poses.
* ``clips``: ``NAME.safetensors`` as written by ``mirage record``, with a frame every 1/16 s.
* ``lerobot``: a LeRobotDataset v3.0 as written by ``mirage rollout format=lerobot``, see
  :mod:`mirage_sim.data.recordings.lerobot`; ``NAME`` is the number of an episode, and its task the prompt.

``captions/NAME.txt`` may hold a prompt. Axes are OpenCV's and the corner of an image is (0, 0). Depth is unknown where
it is 0 or not finite.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.clips import load_clip
from mirage_sim.data.recordings.lerobot import INFO, LerobotDataset
from mirage_sim.data.recordings.realestate10k import pose_lines
from mirage_sim.data.video_io import Image, image_files, read_table, read_video, video_facts
from mirage_sim.world.images import read_image

Array = NDArray[np.floating]
CLIP_RATE = 16.0  # frames per second of recorded walks; 4 frames are one step of Wan's worlds


@dataclass(frozen=True)
class Video:
    """A video of ``n`` frames with a camera each.

    Attributes:
        times: of the frames, ``[n]`` seconds.
        c2w: camera-to-world motions ``[n, 4, 4]``.
        intrinsics: fx, fy, cx, cy relative to the width and height of the image, ``[n, 4]``.
        images: reads the images of some frames, given by ascending indices; uint8 ``[H, W, 3]`` each.
        depth: reads the z-depth of some frames, one array each that covers the whole image at any resolution.
        caption: a prompt, or empty.
    """

    times: Array
    c2w: Array
    intrinsics: Array
    images: Callable[[Sequence[int]], Iterator[Image]]
    depth: Callable[[Sequence[int]], list[NDArray[np.floating]]]
    caption: str = ""


def read_vipe(folder: Path, name: str) -> Video:
    """Open a video in the layout of ViPE.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    path = folder / "rgb" / f"{name}.mp4"
    rate, _, (height, width) = video_facts(path)
    poses = read_table(folder / "pose" / f"{name}.npz", (4, 4))
    intrinsics = read_table(folder / "intrinsics" / f"{name}.npz", (4,))
    numbers = sorted(poses.keys() & intrinsics.keys())
    return Video(
        times=np.array(numbers) / rate,
        c2w=np.array([poses[number] for number in numbers], dtype=np.float64).reshape(-1, 4, 4),
        intrinsics=np.array([intrinsics[number] for number in numbers]).reshape(-1, 4) / (width, height, width, height),
        images=lambda wanted: read_video(path, [numbers[i] for i in wanted]),
        depth=_depth_of(folder, name, numbers),
        caption=_caption(folder, name),
    )


def read_realestate10k(folder: Path, name: str) -> Video:
    """Open a video in the layout of RealEstate10K.

    Raises:
        ValueError: if a file is missing or damaged, or the numbers of images and poses differ.
    """
    rows = pose_lines(folder / "poses" / f"{name}.txt")
    stamps = [int(row[0]) for row in rows]
    w2c = np.tile(np.eye(4), (len(rows), 1, 1))
    w2c[:, :3] = rows[:, 7:].reshape(-1, 3, 4)
    return Video(
        times=(rows[:, 0] - rows[0, 0]) / 1e6,
        c2w=_inverse(w2c),
        intrinsics=rows[:, 1:5],
        images=_images_of(folder / "frames" / name, stamps),
        depth=_depth_of(folder, name, range(len(rows))),
        caption=_caption(folder, name),
    )


def read_clip(folder: Path, name: str) -> Video:
    """Open a recorded walk as a video.

    Raises:
        ValueError: if the file is damaged.
    """
    clip = load_clip(folder / f"{name}.safetensors")
    (height, width), K = clip.cameras.size, clip.K.double().numpy()
    share = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height]
    return Video(
        times=np.arange(len(clip)) / CLIP_RATE,
        c2w=clip.c2w.double().numpy(),
        intrinsics=np.tile(share, (len(clip), 1)),
        images=lambda wanted: (clip.frames[i].numpy() for i in wanted),
        depth=lambda wanted: [clip.depth[i].numpy() for i in wanted],
        caption=clip.source.get("caption", ""),
    )


def read_episode(folder: Path, name: str) -> Video:
    """Open an episode of a LeRobot data set as a video.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or the data set lacks poses, intrinsics or depth.
    """
    dataset = LerobotDataset(folder)
    episode, (height, width) = dataset.episode(int(name)), dataset.size
    return Video(
        times=episode.times,
        c2w=episode.c2w,
        intrinsics=episode.intrinsics / (width, height, width, height),
        images=episode.images,
        depth=lambda wanted: list(episode.depths(wanted)),
        caption=episode.task,
    )


def _episodes(folder: Path) -> list[str]:
    return [f"{index:06d}" for index in LerobotDataset(folder).episodes] if (folder / INFO).exists() else []


def _stems(pattern: str) -> Callable[[Path], list[str]]:
    return lambda folder: [path.stem for path in sorted(folder.glob(pattern))]


@dataclass(frozen=True)
class Layout:
    """A layout of videos in a folder.

    Attributes:
        files: the files by which it is recognised, for errors.
        names: lists the videos of a folder.
        read: opens a video by folder and name.
    """

    files: str
    names: Callable[[Path], list[str]]
    read: Callable[[Path, str], Video]


LAYOUTS: Mapping[str, Layout] = {
    "vipe": Layout("pose/*.npz", _stems("pose/*.npz"), read_vipe),
    "realestate10k": Layout("poses/*.txt", _stems("poses/*.txt"), read_realestate10k),
    "clips": Layout("*.safetensors", _stems("*.safetensors"), read_clip),
    "lerobot": Layout(INFO, _episodes, read_episode),
}


def _inverse(w2c: Array) -> Array:
    try:
        return np.linalg.inv(w2c)
    except np.linalg.LinAlgError:
        return np.full_like(w2c, np.nan)  # raises later, as any other motion that is not rigid


def _images_of(path: Path, stamps: Sequence[int]) -> Callable[[Sequence[int]], Iterator[Image]]:
    """Return a reader of the images in a folder, named by time stamps, or else of the video ``path.mp4``."""
    video = path.with_name(f"{path.name}.mp4")
    if not path.is_dir():
        _, frames, _ = video_facts(video)
        if frames != len(stamps):
            raise ValueError(f"{video}: expected a frame for each of {len(stamps)} poses, got {frames}")
        return partial(read_video, video)
    files = image_files(path)
    if missing := [stamp for stamp in stamps if stamp not in files]:
        raise ValueError(f"{path}: expected an image for each of {len(stamps)} poses, got none named {missing[0]}")
    return lambda wanted: (read_image(files[stamps[i]]) for i in wanted)


def _depth_of(folder: Path, name: str, numbers: Sequence[int]) -> Callable[[Sequence[int]], list[NDArray[np.floating]]]:
    """Return a reader of ``depth/NAME.npz``; the file is read on first use."""
    path = folder / "depth" / f"{name}.npz"
    if not path.exists():
        raise ValueError(f"{path}: expected z-depth, data [n, H, W] and inds [n], in the unit of the poses")
    table = cache(lambda: read_table(path, (None, None)))  # one video makes many clips

    def read(wanted: Sequence[int]) -> list[NDArray[np.floating]]:
        if missing := [numbers[i] for i in wanted if numbers[i] not in table()]:
            raise ValueError(f"{path}: expected depth of frame {missing[0]} among its inds")
        return [table()[numbers[i]] for i in wanted]

    return read


def _caption(folder: Path, name: str) -> str:
    path = folder / "captions" / f"{name}.txt"
    return " ".join(path.read_text(encoding="utf-8").split()) if path.exists() else ""
