"""``format=lerobot``: episodes as a LeRobotDataset v3.0, which learners such as LeRobot load.

A row holds an observation, the action taken at it, and the reward that followed. The last observation of an episode,
after which there is no action, is left out. :mod:`mirage_sim.data.recordings.lerobot` reads these data sets.
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mirage_sim.agents.episodes import Episode
from mirage_sim.agents.lerobot_statistics import combine_statistics, statistics_of
from mirage_sim.data.recordings.lerobot import (
    CODEBASE,
    DATA_PATH,
    DEPTH,
    EPISODES_PATH,
    IMAGE,
    INFO,
    INTRINSICS,
    MM,
    POSE,
    SHIFT,
    VIDEO_PATH,
    depth_to_codes,
)
from mirage_sim.envs.actions import ActionMode
from mirage_sim.envs.registration import WORLD_ID
from mirage_sim.evaluation.media import save_video
from mirage_sim.geometry.quaternions import quaternion_of
from mirage_sim.io import atomic_folder, save_json
from mirage_sim.models.pretrained import require

REMEMBERED, GOAL = "observation.images.remembered", "observation.environment_state"
GOAL_IMAGE = "observation.images.goal"
ACTION, REWARD, DONE, SUCCESS = "action", "next.reward", "next.done", "next.success"
TASKS = {"explore": "Explore the place.", "goal": "Go to the goal.", "none": "Move through the place."}
NAMES = {  # of the entries of vectors
    POSE: ["x", "y", "z", "qx", "qy", "qz", "qw"],
    INTRINSICS: ["fx", "fy", "cx", "cy"],
    GOAL: ["forward", "left", "up", "yaw"],
    "twist": ["forward", "turn"],
    "se3": ["x", "y", "z", "rx", "ry", "rz"],
    "discrete": ["command"],
}
# arguments of save_video; -g 2 makes random access quick
COLOUR: dict[str, Any] = {"output_params": ["-g", "2", "-crf", "18"]}
LOSSLESS: dict[str, dict[str, Any]] = {
    REMEMBERED: {"output_params": ["-g", "2", "-qp", "0"]},
    DEPTH: {
        "codec": "libx265",
        "pix_fmt_in": "gray12le",
        "pix_fmt_out": "gray12le",
        "output_params": ["-g", "2", "-x265-params", "lossless=1:log-level=error"],
    },
}
COUNTERS = {"timestamp": np.float32, **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), np.int64)}
_FIRST_FILE = {"chunk_index": 0, "file_index": 0}

Arrays = dict[str, np.ndarray]


def integer_fps(dt: float) -> int:
    """Return the frames per second of a world, which LeRobot stores as an integer.

    Args:
        dt: simulated seconds per step.

    Raises:
        ValueError: if it is no integer.
    """
    fps = round(1 / dt)
    if abs(fps * dt - 1) > 1e-6:
        raise ValueError(
            f"format: expected a world with a whole number of steps per second for lerobot, got {1 / dt:g}"
        )
    return fps


def task_of(task: str | dict[str, Any]) -> str:
    """Return the sentence that describes a task of the environment, as configurations name it."""
    name = task if isinstance(task, str) else task["_target_"].rpartition(".")[2].lower()
    return TASKS.get(name, name)


def rows_of(episode: Episode) -> Arrays:
    """Return the rows of an episode, one array per feature, and ``fps``."""
    count, K = len(episode.actions), episode.K
    observations, infos = episode.observations[:count], episode.infos[1:]
    action = np.stack(episode.actions)
    rows = {
        IMAGE: np.stack(episode.frames[:count]),
        DEPTH: np.stack(episode.depths[:count]),
        REMEMBERED: np.stack(episode.remembered[:count]),
        POSE: poses_of(episode.c2w[:count]),
        INTRINSICS: np.tile(K[[0, 1, 0, 1], [0, 1, 2, 2]], (count, 1)),
        ACTION: action.astype(np.int64 if action.ndim == 1 else np.float32),
        REWARD: np.array(episode.rewards, dtype=np.float32),
        DONE: np.array(episode.terminations) | np.array(episode.truncations),
        SUCCESS: np.array([bool(info.get("is_success", False)) for info in infos]),
    }
    if isinstance(observations[0], dict) and "goal" in observations[0]:
        goal = np.stack([observation["goal"] for observation in observations])
        rows[GOAL_IMAGE if goal.ndim == 4 else GOAL] = goal
    return rows | {"fps": np.array(integer_fps(episode.dt))}


def poses_of(c2w: np.ndarray) -> np.ndarray:
    """Return positions and quaternions ``[N, 7]`` of poses. Signs of successive quaternions agree."""
    quaternions = np.stack([quaternion_of(pose[:3, :3]) for pose in c2w])
    turned = np.cumprod(np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1.0, 1.0))
    quaternions[1:] *= turned[:, None]
    return np.concatenate([c2w[:, :3, 3], quaternions], axis=1).astype(np.float32)


def save_lerobot(folder: Path, archives: Sequence[Path], task: str, action_mode: ActionMode, video: bool) -> None:
    """Write a data set of episodes atomically.

    Args:
        folder: a new one, or an empty one.
        archives: of the episodes, with the arrays of :func:`rows_of`.
        task: a sentence.
        action_mode: of the environment; it names the entries of actions.
        video: stores images as videos, and depth in 12 bits; else as PNG files in the Parquet files, depth in
            millimetres.

    Raises:
        ValueError: if episodes differ in features, shapes or frame rate.
        ImportError: if pyarrow is not installed.
    """
    with atomic_folder(folder) as partial:
        _Writer(partial, archives, task, action_mode, video).write()


class _Writer:
    """Writes a data set to a folder; arguments as for :func:`save_lerobot`."""

    def __init__(self, folder: Path, archives: Sequence[Path], task: str, action_mode: ActionMode, video: bool):
        self._arrow, self._parquet = (require(name, "'mirage_sim[data]'") for name in ("pyarrow", "pyarrow.parquet"))
        self._folder, self._archives, self._task, self._mode = folder, archives, task, action_mode
        first = _load(archives[0])
        self._fps = int(first.pop("fps"))
        self._shapes = _shapes(first)
        self._kinds = self._shapes | {name: (np.dtype(kind), ()) for name, kind in COUNTERS.items()}
        self._images = [key for key in first if key.startswith("observation.images.")]
        self._videos = self._images if video else []
        self._farthest = 0.0

    def write(self) -> None:
        """Write all files."""
        episodes: list[dict[str, Any]] = []
        statistics: list[dict[str, Any]] = []
        with self._parquet.ParquetWriter(self._file(DATA_PATH), self._schema()) as rows:
            for index, archive in enumerate(tqdm(self._archives, desc="rows", unit="episode", leave=False)):
                arrays = self._checked(archive)
                self._farthest = max(self._farthest, float(arrays[DEPTH].max()))
                begin = episodes[-1]["dataset_to_index"] if episodes else 0
                arrays |= _counters(index, begin, len(arrays[ACTION]), self._fps)
                rows.write_table(self._table(arrays))
                scale = {} if self._videos else {DEPTH: arrays[DEPTH] * np.float32(MM)}
                statistics.append({key: statistics_of(array) for key, array in (arrays | scale).items()})
                row = self._episode(index, begin, len(arrays[ACTION]))
                for key, values in statistics[-1].items():
                    row |= {f"stats/{key}/{name}": value for name, value in values.items()}
                episodes.append(row)
        self._farthest = self._farthest or 1.0  # where no depth is known
        count = episodes[-1]["dataset_to_index"]
        for key in self._videos:
            path = self._file(VIDEO_PATH, video_key=key)
            frames = tqdm(self._frames(key), total=count, desc=key, unit="frame", leave=False)
            save_video(frames, path, self._fps, quality=None, **LOSSLESS.get(key, COLOUR))
        self._parquet.write_table(self._arrow.Table.from_pylist(episodes), self._file(EPISODES_PATH))
        self._parquet.write_table(self._tasks(), self._folder / "meta" / "tasks.parquet")
        save_json(self._folder / "meta" / "stats.json", combine_statistics(statistics))
        save_json(self._folder / INFO, self._info(len(episodes), count))

    def _file(self, template: str, **names: str) -> Path:
        path = self._folder / template.format(**_FIRST_FILE, **names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _checked(self, archive: Path) -> Arrays:
        arrays = _load(archive)
        fps = int(arrays.pop("fps"))
        shapes = _shapes(arrays)
        if (shapes, fps) != (self._shapes, self._fps):
            wrong = sorted(key for key in {*shapes, *self._shapes} if shapes.get(key) != self._shapes.get(key))
            raise ValueError(
                f"episodes: expected the same shapes and frame rate in all of them, got others in {archive.stem}: "
                f"{', '.join(wrong) or f'{fps} instead of {self._fps} frames per second'}"
            )
        return arrays

    def _schema(self) -> Any:
        """Return the columns of the data: lists of fixed length, scalars, and PNG files."""
        arrow, fields = self._arrow, {}
        for key, (dtype, shape) in self._kinds.items():
            if key in self._videos:
                continue
            if key in self._images:
                fields[key] = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
            else:
                scalar = arrow.from_numpy_dtype(dtype)
                fields[key] = arrow.list_(scalar, shape[0]) if shape else scalar
        return arrow.schema(list(fields.items()))

    def _table(self, arrays: Arrays) -> Any:
        columns = []
        for field in self._schema():
            array = arrays[field.name]
            values = _files(field.name, array) if field.name in self._images else array.tolist()
            columns.append(self._arrow.array(values, field.type))
        return self._arrow.Table.from_arrays(columns, schema=self._schema())

    def _episode(self, index: int, begin: int, length: int) -> dict[str, Any]:
        row = {
            "episode_index": index,
            "tasks": [self._task],
            "length": length,
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": begin,
            "dataset_to_index": begin + length,
        }
        for key in self._videos:
            row |= {f"videos/{key}/{name}": value for name, value in _FIRST_FILE.items()}
            row[f"videos/{key}/from_timestamp"] = begin / self._fps
            row[f"videos/{key}/to_timestamp"] = (begin + length) / self._fps
        return row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}

    def _frames(self, key: str) -> Iterator[np.ndarray]:
        """Yield the images of all episodes as :func:`save_video` takes them."""
        for archive in self._archives:
            with np.load(archive, allow_pickle=False) as arrays:
                images = arrays[key]
            for image in images:
                yield depth_to_codes(image, self._farthest) if key == DEPTH else _colour(image)

    def _tasks(self) -> Any:
        """Return the table of tasks, with the metadata by which pandas takes its column `task` for the index."""
        table = self._arrow.table({"task_index": [0], "task": [self._task]})
        columns = [
            {"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": kind, "metadata": None}
            for name, pandas, kind in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ]
        described = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
        return table.replace_schema_metadata({"pandas": json.dumps(described)})

    def _info(self, episodes: int, frames: int) -> dict[str, Any]:
        return {
            "codebase_version": CODEBASE,
            "robot_type": WORLD_ID,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": 1,
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": {key: self._feature(key, *kind) for key, kind in self._kinds.items()},
        }

    def _feature(self, key: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> dict[str, Any]:
        if key in self._images:
            channels = 1 if key == DEPTH else 3
            feature: dict[str, Any] = {
                "dtype": "video" if key in self._videos else "image",
                "shape": [*shape[:2], channels],
                "names": ["height", "width", "channels"],
            }
            if key in self._videos:
                feature["info"] = self._video_info(key, shape, channels)
            elif key == DEPTH:
                feature["info"] = {"is_depth_map": True, "depth_unit": "mm"}
            return feature
        names = NAMES.get(self._mode if key == ACTION else key)
        return {"dtype": dtype.name, "shape": list(shape) or [1], "names": names}

    def _video_info(self, key: str, shape: tuple[int, ...], channels: int) -> dict[str, Any]:
        is_depth = key == DEPTH
        info = {
            "video.height": shape[0],
            "video.width": shape[1],
            "video.codec": "hevc" if is_depth else "h264",
            "video.pix_fmt": "gray12le" if is_depth else "yuv420p",
            "video.fps": self._fps,
            "video.channels": channels,
            "video.is_depth_map": is_depth,
            "has_audio": False,
        }
        if not is_depth:
            return info
        coding = {"depth_min": 0.0, "depth_max": self._farthest, "shift": SHIFT, "use_log": True}
        return info | {"is_depth_map": True, "depth_unit": "m", **coding}


def _load(archive: Path) -> Arrays:
    with np.load(archive, allow_pickle=False) as arrays:
        return dict(arrays)


def _shapes(arrays: Arrays) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return the type and the shape of a row of each array."""
    return {key: (array.dtype, array.shape[1:]) for key, array in arrays.items()}


def _counters(episode: int, begin: int, length: int, fps: int) -> Arrays:
    """Return the columns that every data set has."""
    frame = np.arange(length)
    columns = {
        "timestamp": frame / fps,
        "frame_index": frame,
        "episode_index": np.full(length, episode),
        "index": begin + frame,
        "task_index": np.zeros(length),
    }
    return {name: column.astype(COUNTERS[name]) for name, column in columns.items()}


def _colour(image: np.ndarray) -> np.ndarray:
    """Return an image as RGB; a mask becomes black and white."""
    return np.repeat(np.uint8(255) * image[..., None], 3, axis=2) if image.dtype == np.bool_ else image


def _files(key: str, images: np.ndarray) -> list[dict[str, Any]]:
    """Return images as PNG files for a column; depth in whole millimetres, 0 beyond what 16 bits hold."""
    if key == DEPTH:
        scaled = np.rint(images * MM)
        images = np.where(scaled < 2**16, scaled, 0).astype(np.uint16)
    return [{"bytes": _png(_colour(image)), "path": None} for image in images]


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
