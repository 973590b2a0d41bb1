"""LeRobotDataset v3.0 with poses, intrinsics and depth, as ``mirage rollout format=lerobot`` writes it.

Features of a row: ``observation.images.rgb``; ``observation.images.depth``; ``observation.state``, the camera-to-world
pose with OpenCV axes: x, y, z in metres and the quaternion qx, qy, qz, qw; ``observation.intrinsics``: fx, fy, cx, cy
in pixels, with the corner of the image at (0, 0). Images are videos, or PNG files inside the Parquet files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.recordings.files import MAX_IMAGE, check_file, decode_depth, decode_image, number, read_json
from mirage_sim.data.recordings.lens import Lens
from mirage_sim.data.recordings.poses import motions_of
from mirage_sim.data.recordings.recording import Array, Depth, Image, Recording
from mirage_sim.data.video_io import decode_frames
from mirage_sim.models.pretrained import require

CODEBASE = "v3.0"
INFO = "meta/info.json"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = f"meta/episodes/{DATA_PATH.removeprefix('data/')}"

IMAGE, DEPTH = "observation.images.rgb", "observation.images.depth"
POSE, INTRINSICS = "observation.state", "observation.intrinsics"
LEVELS = 4095  # largest code of a depth video, which has 12 bits
SHIFT = 3.5  # metres; it keeps codes of near depth from being finer than needed
_MAX_FILE = 2**36  # bytes of a Parquet file or a video
_MAX_NUMBER = 2**40  # of rows, files and seconds
MM = 1000.0  # units per metre of depth in PNG files


def depth_to_codes(depth: NDArray[np.float32], farthest: float) -> NDArray[np.uint16]:
    """Quantise depth in ``[0, farthest]`` metres to 12 bits, evenly in ``ln(depth + SHIFT)``; 0 stays 0."""
    low, high = np.log(SHIFT), np.log(farthest + SHIFT)
    codes: NDArray[np.uint16] = np.rint(LEVELS * (np.log(depth + SHIFT) - low) / (high - low)).astype(np.uint16)
    return codes


def codes_to_depth(codes: NDArray[np.uint16], farthest: float) -> NDArray[np.float32]:
    """Return the depth of codes, the inverse of :func:`depth_to_codes`."""
    low, high = np.log(SHIFT), np.log(farthest + SHIFT)
    depth = np.exp(low + codes / LEVELS * (high - low)) - SHIFT
    return np.where(codes > 0, depth, 0.0).astype(np.float32)


@dataclass(frozen=True)
class LerobotEpisode:
    """An episode of a data set. Images and depth are decoded when they are asked for.

    Attributes:
        times: ``[N]`` seconds.
        c2w: camera-to-world poses ``[N, 4, 4]``.
        intrinsics: fx, fy, cx, cy in pixels, ``[N, 4]``.
        task: what the agent was to do.
    """

    times: Array
    c2w: Array
    intrinsics: Array
    task: str
    _dataset: "LerobotDataset"
    _row: Mapping[str, Any]

    def images(self, numbers: Sequence[int]) -> Iterator[Image]:
        """Images of these ascending numbers, uint8 ``[H, W, 3]``."""
        return self._dataset.decode(IMAGE, self._row, numbers)

    def depths(self, numbers: Sequence[int]) -> Iterator[Depth]:
        """Depth of these ascending numbers, float32 ``[H, W]``, metres, 0 where unknown."""
        return self._dataset.decode(DEPTH, self._row, numbers)


class LerobotDataset:
    """A data set on this machine.

    Args:
        folder: with ``meta/info.json``.

    Attributes:
        folder: as above.
        size: ``(height, width)`` of the images, in pixels.
        episodes: numbers of the episodes, ascending.

    Raises:
        FileNotFoundError: if the folder or a file is missing.
        ValueError: if the data set has another version or lacks a feature, or a file is damaged.
        ImportError: if pyarrow is not installed.
    """

    def __init__(self, folder: Path):
        self.folder, info = folder, read_json(folder / INFO)
        wanted = {"codebase_version": CODEBASE, "data_path": DATA_PATH}
        for name, value in wanted.items():
            if info.get(name) != value:
                raise ValueError(f"{folder}: expected {name} {value!r} in {INFO}, got {info.get(name)!r}")
        self._features = _features(folder, info.get("features"))
        self._fps = number(folder / INFO, "fps", info.get("fps"))
        if self._fps <= 0:
            raise ValueError(f"{folder}: expected positive fps, got {self._fps:g}")
        height, width, _ = self._features[IMAGE]["shape"]
        self.size = (height, width)
        self._videos = [key for key in (IMAGE, DEPTH) if self._features[key]["dtype"] == "video"]
        self._rows = _episodes(folder, self._videos)
        self.episodes = sorted(self._rows)

    def episode(self, index: int) -> LerobotEpisode:
        """Read the poses of an episode.

        Raises:
            FileNotFoundError: if its file is missing.
            ValueError: if its file is damaged or lacks rows.
        """
        row = self._rows[index]
        path = self.folder / _path(DATA_PATH, row, "data")
        table = _read(path, [POSE, INTRINSICS, "frame_index"], index)
        poses, intrinsics = (np.array(table[name].to_pylist(), dtype=np.float64) for name in (POSE, INTRINSICS))
        if poses.shape != (row["length"], 7) or intrinsics.shape != (row["length"], 4):
            raise ValueError(
                f"{path}: expected {row['length']} rows of episode {index} with {POSE} [7] and {INTRINSICS} [4], "
                f"got {list(poses.shape)} and {list(intrinsics.shape)}"
            )
        times = table["frame_index"].to_numpy() / self._fps
        c2w = motions_of(path, poses[:, :3], poses[:, 3:])
        return LerobotEpisode(times, c2w, intrinsics, " ".join(map(str, row["tasks"] or ())), self, row)

    def decode(self, key: str, row: Mapping[str, Any], numbers: Sequence[int]) -> Iterator[Any]:
        """Decode images or depth of an episode, see :class:`LerobotEpisode`."""
        farthest = self._features[key].get("info", {}).get("depth_max")
        if key not in self._videos:
            path = self.folder / _path(DATA_PATH, row, "data")
            files = _read(path, [key], row["episode_index"])[key]
            decoder = partial(decode_depth, units_per_metre=MM) if key == DEPTH else decode_image
            return (decoder(f"{path}: {key} {each}", _png(path, files[each].as_py())) for each in numbers)
        path = self.folder / _path(VIDEO_PATH, row, f"videos/{key}", video_key=key)
        check_file(path, _MAX_FILE)
        first = round(row[f"videos/{key}/from_timestamp"] * self._fps)
        frames = decode_frames(
            path, [first + each for each in numbers], self._fps, "gray12le" if key == DEPTH else "rgb24"
        )
        return (codes_to_depth(frame, farthest) for frame in frames) if key == DEPTH else frames


class LerobotRecording(Recording):
    """The only episode of a LeRobot data set.

    Raises:
        FileNotFoundError: as :class:`LerobotDataset`.
        ValueError: as :class:`LerobotDataset`, and if it holds several episodes.
    """

    layout = "lerobot"

    def __init__(self, source: Path):
        dataset = LerobotDataset(source)
        if len(dataset.episodes) > 1:
            raise ValueError(f"{source}: expected a data set of one episode, got {len(dataset.episodes)}")
        self._episode = episode = dataset.episode(dataset.episodes[0])
        lenses = [
            Lens((fx, fy), (cx, cy), dataset.size).validate(source) for fx, fy, cx, cy in episode.intrinsics.tolist()
        ]
        sources = {"image": IMAGE, "depth": DEPTH, "poses": POSE, "intrinsics": INTRINSICS}
        super().__init__(source, episode.times, episode.c2w, lenses, np.ones(len(lenses), dtype=bool), sources)

    @classmethod
    def matches(cls, source: Path) -> bool:
        """Whether it is a folder with ``meta/info.json``."""
        return (source / INFO).is_file()

    def _load(self, numbers: Sequence[int]) -> Iterator[tuple[Image, Depth | None]]:
        yield from zip(self._episode.images(numbers), self._episode.depths(numbers), strict=True)


def _features(folder: Path, features: Any) -> dict[str, Any]:
    """Return the features that are read, after a check.

    Raises:
        ValueError: naming the features that are missing or of another kind.
    """
    features = features if isinstance(features, dict) else {}
    kinds = {IMAGE: ("video", "image"), DEPTH: ("video", "image"), POSE: ("float32",), INTRINSICS: ("float32",)}
    read = {key: features[key] for key in kinds if isinstance(features.get(key), dict)}
    if wrong := [key for key, kind in kinds.items() if read.get(key, {}).get("dtype") not in kind]:
        raise ValueError(
            f"{folder}: expected a data set of mirage rollout, got one without a feature {', '.join(wrong)}"
        )
    image, depth = (list(read[key].get("shape", ())) for key in (IMAGE, DEPTH))
    if len(image) != 3 or not all(type(side) is int and side > 0 for side in image) or depth != [*image[:2], 1]:
        raise ValueError(
            f"{folder}: expected shapes [H, W, 3] and [H, W, 1] of image and depth, got {image} and {depth}"
        )
    if read[DEPTH]["dtype"] == "video":
        info = read[DEPTH].get("info") or {}
        coding = {"depth_unit": "m", "depth_min": 0, "shift": SHIFT, "use_log": True}
        found = {name: info.get(name) for name in coding}
        if found != coding or not number(folder / INFO, "depth_max", info.get("depth_max")) > 0:
            raise ValueError(f"{folder}: expected depth coded with {coding} and a positive depth_max, got {found}")
    return read


def _episodes(folder: Path, videos: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Return the rows of episodes by number: length, tasks, and where rows and videos are.

    Raises:
        ValueError: if there are none, or a number is out of range.
    """
    numbers = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    for key in videos:
        numbers += [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("meta/episodes/*/*.parquet")):
        rows += _read(path, [*numbers, "tasks"]).to_pylist()
    for row in rows:
        for name in numbers:
            if not isinstance(row[name], (int, float)) or not 0 <= row[name] < _MAX_NUMBER:
                raise ValueError(f"{folder}: expected a number {name} from 0 of each episode, got {row[name]!r}")
    if not rows:
        raise ValueError(f"{folder}: expected episodes in meta/episodes, got none")
    return {row["episode_index"]: row for row in rows}


def _path(template: str, row: Mapping[str, Any], prefix: str, **names: str) -> str:
    return template.format(**{name: row[f"{prefix}/{name}"] for name in ("chunk_index", "file_index")}, **names)


def _png(path: Path, value: Any) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else None
    if not isinstance(data, bytes) or len(data) > MAX_IMAGE:
        raise ValueError(f"{path}: expected the bytes of an image in each row, got none or too many")
    return data


def _read(path: Path, columns: Sequence[str], episode: int | None = None) -> Any:
    """Read columns of a Parquet file as a table, of all rows or those of an episode."""
    parquet, arrow = (require(name, "'mirage_sim[data]'") for name in ("pyarrow.parquet", "pyarrow"))
    check_file(path, _MAX_FILE)
    filters = None if episode is None else [("episode_index", "==", episode)]
    try:
        return parquet.read_table(path, columns=list(columns), filters=filters)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: expected a Parquet file with {', '.join(columns)}: {error}") from error
