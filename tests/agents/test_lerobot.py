"""LeRobot data sets, checked by lerobot-doctor, which shares no code with the writer, and read back."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_doctor.dataset_loader import load_local
from lerobot_doctor.runner import Severity, run_checks
from support.rollouts import rollout_of
from support.toy_world import SIZE

from mirage_sim.agents.formats import save_npz
from mirage_sim.agents.lerobot import REMEMBERED, integer_fps, save_lerobot
from mirage_sim.build import compose
from mirage_sim.cli import main
from mirage_sim.data.clips import load_clip
from mirage_sim.data.recordings import open_recording
from mirage_sim.data.recordings.lerobot import DEPTH, IMAGE, LerobotDataset
from mirage_sim.data.video_io import decode_frames

STEPS = 12
Files = dict[Path, tuple[int, int]]


def files_in(folder: Path) -> Files:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def settings(toy_config: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Settings of a rollout of random steps."""

    def settings(folder: Path, **changes: Any) -> dict[str, Any]:
        ours = {"policy": "random", "steps": STEPS, "seed": 5, "worlds": 2, "format": "lerobot", "output": str(folder)}
        return toy_config | ours | changes

    return settings


@pytest.fixture(scope="module")
def rollouts(settings: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One and two episodes as `videos-1`, `videos-2`, `files-1`, `files-2`; the two also as archives, in `npz`."""
    folder = tmp_path_factory.mktemp("rollouts")
    for episodes in (1, 2):
        for name, video in (("videos", True), ("files", False)):
            rollout_of(settings(folder / f"{name}-{episodes}", episodes=episodes, video=video))
    rollout_of(settings(folder / "npz", episodes=2, format="npz"))
    return folder


@pytest.mark.parametrize("name", ["videos-1", "videos-2", "files-1", "files-2"])
def test_doctor_finds_no_fault(rollouts: Path, name: str) -> None:
    report = run_checks(load_local(rollouts / name / "rollout-v0"))
    worse = [
        message.message
        for result in report.results
        for message in result.messages
        if message.severity is not Severity.PASS
    ]
    assert report.summary_counts["FAIL"] == 0, worse
    harmless = (
        "zero variance",
        "constant",
        "stuck/static",
        "shorter than chunk_size",
        "too short",
    )  # of a short walk on a plane
    assert all(any(word in message for word in harmless) for message in worse), worse
    assert report.total_frames == STEPS * int(name[-1]) and report.fps == 10


@pytest.mark.parametrize(("name", "colour", "metres"), [("videos-2", 9.0, 0.01), ("files-2", 0.0, 6e-4)])
def test_episodes_equal_those_generated(rollouts: Path, name: str, colour: float, metres: float) -> None:
    dataset = LerobotDataset(rollouts / name / "rollout-v0")
    assert dataset.episodes == [0, 1] and dataset.size == SIZE
    rows = pq.read_table(rollouts / name / "rollout-v0/data/chunk-000/file-000.parquet").to_pydict()
    for index in (0, 1):
        with np.load(rollouts / "npz" / f"episode_{index:04d}.npz") as archive:
            true = dict(archive)
        episode = dataset.episode(index)
        np.testing.assert_allclose(episode.c2w, true["c2w"][:-1], atol=1e-6)
        np.testing.assert_allclose(episode.times, true["times"][:-1], atol=1e-6)
        K = true["K"]
        np.testing.assert_allclose(episode.intrinsics[3], [K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
        assert episode.task == "Explore the place."
        for shown, frame in zip(episode.images(range(STEPS)), true["observations/rgb"], strict=False):
            assert np.abs(shown.astype(float) - frame).mean() <= colour
        np.testing.assert_allclose(list(episode.depths([3, 11])), true["observations/depth"][[3, 11]], atol=metres)
        these = slice(STEPS * index, STEPS * (index + 1))
        np.testing.assert_array_equal(rows["action"][these], true["actions"])
        np.testing.assert_allclose(rows["next.reward"][these], true["rewards"], rtol=1e-6)
        assert rows["next.done"][these] == [False] * (STEPS - 1) + [True]
        assert rows["index"][these] == list(range(STEPS * index, STEPS * (index + 1)))
        np.testing.assert_allclose(rows["timestamp"][these], np.arange(STEPS) / 10, atol=1e-6)
    assert not any(rows["next.success"])


def test_masks_are_lossless_in_videos(rollouts: Path) -> None:
    path = rollouts / "videos-2/rollout-v0/videos" / REMEMBERED / "chunk-000/file-000.mp4"
    with np.load(rollouts / "npz" / "episode_0001.npz") as archive:
        masks = archive["observations/remembered"][:-1]
    frames = list(decode_frames(path, range(STEPS, 2 * STEPS), 10, "rgb24"))
    np.testing.assert_array_equal(np.stack(frames), np.repeat(255 * masks[..., None].astype(np.uint8), 3, axis=3))


def test_statistics_are_those_of_all_rows(rollouts: Path) -> None:
    folder = rollouts / "files-2" / "rollout-v0"
    stats = json.loads((folder / "meta/stats.json").read_text())
    rows = pq.read_table(folder / "data/chunk-000/file-000.parquet").to_pydict()
    actions = np.array(rows["action"])
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(stats["action"][name], getattr(actions, name)(axis=0), rtol=1e-5)
    assert stats["action"]["count"] == [2 * STEPS]
    colours = np.concatenate(
        [np.load(rollouts / "npz" / f"episode_{i:04d}.npz")["observations/rgb"][:-1] / 255 for i in (0, 1)]
    )
    np.testing.assert_allclose(np.array(stats[IMAGE]["mean"])[:, 0, 0], colours.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(np.array(stats[IMAGE]["std"])[:, 0, 0], colours.std((0, 1, 2)), rtol=1e-6)
    episode = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[1]
    np.testing.assert_allclose(episode["stats/action/q50"], np.median(actions[STEPS:], axis=0), rtol=1e-5)
    assert np.shape(episode[f"stats/{DEPTH}/max"]) == (1, 1, 1)


def test_tasks_have_the_index_of_pandas(rollouts: Path) -> None:
    table = pq.read_table(rollouts / "files-1/rollout-v0/meta/tasks.parquet")
    assert table.to_pylist() == [{"task_index": 0, "task": "Explore the place."}]
    assert table.schema.pandas_metadata["index_columns"] == ["task"]


def test_same_command_adds_nothing(settings: Callable[..., dict[str, Any]], rollouts: Path) -> None:
    folder = rollouts / "videos-2"
    before = files_in(folder)
    result = rollout_of(settings(folder, episodes=2))
    after = files_in(folder)
    metrics = folder / "metrics.json"  # the same content, written again
    assert before.pop(metrics)[1] == after.pop(metrics)[1] and after == before
    assert result["bytes"] == sum(path.stat().st_size for path in [*after, metrics]) and 0 <= result["seconds"] < 60


def test_killed_rollout_continues(
    settings: Callable[..., dict[str, Any]], rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("mirage_sim.agents.lerobot._Writer._tasks", fail)  # all other files are written by then
        with pytest.raises(OSError, match="disk full"):
            rollout_of(settings(tmp_path, episodes=2, video=False))
    assert [path.name for path in tmp_path.iterdir()] == [".rollout"]
    (tmp_path / ".rollout/archives/episode_0001.npz").unlink()
    (tmp_path / ".partial0-rollout-v0").mkdir()
    rollout_of(settings(tmp_path, episodes=2, video=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".rollout", "metrics.json", "rollout-v0"]
    ours, theirs = (folder / "rollout-v0" for folder in (tmp_path, rollouts / "files-2"))
    for path in theirs.rglob("*.*"):
        assert (ours / path.relative_to(theirs)).read_bytes() == path.read_bytes()


def test_folder_with_another_data_set_is_refused(settings: Callable[..., dict[str, Any]], rollouts: Path) -> None:
    before = files_in(rollouts)
    with pytest.raises(ValueError, match="output: expected a folder without episodes, .* whose seed, video differ"):
        rollout_of(settings(rollouts / "files-2", episodes=2, seed=6))
    with pytest.raises(ValueError, match="output: expected a folder that is no data set, got .*rollout-v0, which has"):
        rollout_of(settings(rollouts / "files-2" / "rollout-v0"))
    assert files_in(rollouts) == before


def test_fractional_rate_is_refused_before_anything(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    changed = settings(tmp_path / "new")
    changed["world"] = changed["world"] | {"horizon": {"_target_": "mirage_sim.world.Horizon", "fps": 7.5}}
    with pytest.raises(ValueError, match="format: expected a world with a whole number of steps per second.*, got 7.5"):
        rollout_of(changed)
    assert not (tmp_path / "new").exists()
    assert integer_fps(0.1) == 10 and integer_fps(4 / 16) == 4


@pytest.mark.parametrize("change", ["shape", "fps"])
def test_unequal_episodes_are_refused(tmp_path: Path, change: str) -> None:
    for index in (0, 1):
        size = (16, 32) if index and change == "shape" else (16, 16)
        rows = {
            IMAGE: np.zeros((3, *size, 3), np.uint8),
            DEPTH: np.zeros((3, *size), np.float32),
            "action": np.zeros((3, 2), np.float32),
            "fps": np.array(20 if index and change == "fps" else 10),
        }
        save_npz(tmp_path / f"{index}.npz", rows)
    archives = [tmp_path / "0.npz", tmp_path / "1.npz"]
    with pytest.raises(ValueError, match="episodes: expected the same shapes and frame rate .* others in 1: "):
        save_lerobot(tmp_path / "new", archives, "Walk.", "twist", video=True)
    assert sorted(tmp_path.iterdir()) == archives


@pytest.mark.parametrize(("mode", "kind"), [("discrete", "pose"), ("se3", "image")])
def test_goals_and_other_actions_are_kept(
    settings: Callable[..., dict[str, Any]], tmp_path: Path, mode: str, kind: str
) -> None:
    env = compose("rollout", ["policy=random", "env=goal", f"env.action_mode={mode}", f"env.task.kind={kind}"]).env
    rollout_of(settings(tmp_path, env=env, steps=6))
    features = json.loads((tmp_path / "rollout-v0/meta/info.json").read_text())["features"]
    rows = pq.read_table(tmp_path / "rollout-v0/data/chunk-000/file-000.parquet").to_pydict()
    if mode == "discrete":
        assert features["action"] == {"dtype": "int64", "shape": [1], "names": ["command"]}
        assert set(rows["action"]) <= {0, 1, 2, 3}
        assert np.shape(rows["observation.environment_state"]) == (len(rows["index"]), 4)
    else:
        assert features["action"]["names"] == ["x", "y", "z", "rx", "ry", "rz"]
        assert features["observation.images.goal"]["shape"] == [*SIZE, 3]
    report = run_checks(load_local(tmp_path / "rollout-v0"))
    assert report.summary_counts["FAIL"] == 0


@pytest.mark.parametrize("name", ["videos-2", "files-2"])
def test_prepare_makes_clips_of_episodes(rollouts: Path, tmp_path: Path, name: str) -> None:
    source, output = rollouts / name / "rollout-v0", tmp_path / "clips"
    words = [f"source={source}", f"output={output}", f"size=[{SIZE[0]},{SIZE[1]}]", "fps=10", "frames=6"]
    assert main(["prepare", "lerobot", *words]) == 0
    names = [f"{episode:06d}-{part:03d}.safetensors" for episode in (0, 1) for part in (0, 1)]
    assert sorted(path.name for path in output.iterdir()) == names
    clip = load_clip(output / "000001-001.safetensors")
    with np.load(rollouts / "npz" / "episode_0001.npz") as archive:
        true = {key: archive[key][6:12] for key in ("observations/rgb", "observations/depth", "c2w")}
        np.testing.assert_allclose(clip.K, archive["K"], atol=1e-4)
    lossy = name == "videos-2"
    assert np.abs(clip.frames.numpy().astype(float) - true["observations/rgb"]).mean() <= (9 if lossy else 0)
    np.testing.assert_allclose(clip.depth.float(), true["observations/depth"], atol=0.015 if lossy else 0.006)
    np.testing.assert_allclose(clip.c2w, true["c2w"], atol=1e-6)
    assert clip.source == {"film": "000001", "caption": "Explore the place."}


def test_single_episode_is_a_recording(rollouts: Path) -> None:
    recording = open_recording(rollouts / "videos-1" / "rollout-v0")
    assert recording.info.layout == "lerobot" and recording.info.depth == STEPS and recording.info.rate_hz == 10
    with np.load(rollouts / "npz" / "episode_0000.npz") as archive:
        depth = archive["observations/depth"]
    for number, frame in zip((2, 9), recording.frames([2, 9]), strict=True):
        assert frame.depth is not None
        np.testing.assert_allclose(frame.depth, depth[number], atol=0.01)
    with pytest.raises(ValueError, match="expected a data set of one episode, got 2"):
        open_recording(rollouts / "videos-2" / "rollout-v0")


def changed_info(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        info = json.loads((folder / "meta/info.json").read_text())
        (folder / "meta/info.json").write_text(json.dumps(info | changes))

    return change


def cut(name: str) -> Callable[[Path], None]:
    """Cut a file in the middle."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def cut_video(folder: Path) -> None:
    cut(f"videos/{IMAGE}/chunk-000/file-000.mp4")(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed_info(codebase_version="v2.1"), "expected codebase_version 'v3.0' in meta/info.json, got 'v2.1'"),
        (changed_info(data_path="../{chunk_index}"), "expected data_path 'data/chunk-"),
        (changed_info(fps=0), "expected positive fps, got 0"),
        (changed_info(fps="fast"), "expected a number 'fps', got 'fast'"),
        (changed_info(features={}), "got one without a feature observation.images.rgb, observation.images.depth, "),
        (cut("meta/info.json"), "info.json: expected JSON: "),
        (cut("data/chunk-000/file-000.parquet"), "file-000.parquet: expected a Parquet file with observation.state"),
        (
            cut("meta/episodes/chunk-000/file-000.parquet"),
            "file-000.parquet: expected a Parquet file with episode_index",
        ),
        (cut_video, "file-000.mp4: expected a readable video with a frame 11"),
    ],
)
def test_damaged_data_set_is_refused_in_one_line(
    rollouts: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(rollouts / "videos-1" / "rollout-v0", folder)
    damage(folder)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        open_recording(folder)
    assert "\n" not in str(raised.value)


def test_missing_video_is_named(rollouts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(rollouts / "videos-1" / "rollout-v0", folder)
    (folder / "videos" / DEPTH / "chunk-000/file-000.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=f"{DEPTH}/chunk-000/file-000.mp4: expected a file, got none"):
        open_recording(folder)
