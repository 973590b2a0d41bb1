"""Atomic files, digests, and the lock of a folder."""

import json
import multiprocessing
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.clips import toy_clip

from mirage_sim.agents.formats import save_npz
from mirage_sim.data.clips import save_clip
from mirage_sim.evaluation.media import save_image, save_video
from mirage_sim.io import atomic_folder, atomic_write, check_folder, lock_folder, read_tensors, save_json, save_tensors

NOISE = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), dtype=np.uint8)
WRITERS: dict[str, Any] = {
    "a.json": lambda path: save_json(path, {"numbers": list(range(20_000))}),
    "a.npz": lambda path: save_npz(path, {"noise": NOISE}),
    "a.png": lambda path: save_image(Image.fromarray(NOISE.reshape(-1, 96, 3)), path),
    "a.mp4": lambda path: save_video(NOISE, path, 10),
    "a.safetensors": lambda path: save_tensors(path, {"noise": torch.from_numpy(NOISE)}, {}),
    "clip.safetensors": lambda path: save_clip(toy_clip(0), path),
}
LIMIT = 20_000  # bytes of a file


@contextmanager
def full_disk() -> Iterator[None]:
    """Limit the size of files of this process and its children, like a full disk.

    Not a fixture: pytest itself writes to a log between a test and the end of its fixtures.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_keeps_the_old_file_and_names_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("the old one")
    with full_disk(), pytest.raises(OSError, match=f"^{path}: "):
        WRITERS[name](path)
    assert path.read_text() == "the old one"
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_writers_leave_one_complete_file(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).stat().st_size > LIMIT


def test_errors_about_other_files_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "a"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "/proc/nothing"])
def test_unusable_folders_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="^output: expected a folder that can be written to, got .*: "):
        check_folder("output", tmp_path / name)


def test_check_folder_leaves_no_trace(tmp_path: Path) -> None:
    check_folder("output", tmp_path / "new" / "inner")
    check_folder("output", tmp_path)
    assert not list(tmp_path.iterdir())


HOLD = """
import sys, time
from pathlib import Path
from mirage_sim.io import lock_folder
with lock_folder(Path(sys.argv[1]), "notes/lock"):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_lock_admits_one_process_and_ends_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "mine\n"
        with pytest.raises(ValueError, match=f"^output: expected .*, got {folder}, where process {other.pid} on"):
            with lock_folder(folder, "notes/lock"):
                pytest.fail("two are in it")
        other.kill()
    assert (folder / "notes" / "lock").exists(), "nobody could remove it"
    with lock_folder(folder, "notes/lock"):
        (folder / "result").touch()
    assert sorted(each.name for each in folder.rglob("*")) == ["notes", "result"]


def test_lock_in_impossible_folder_raises() -> None:
    with pytest.raises(FileNotFoundError, match="/proc/nothing"), lock_folder(Path("/proc/nothing"), "lock"):
        pytest.fail("it was made")


def test_lock_removes_folders_it_created(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "a" / "b", "notes/lock"):
        assert (tmp_path / "a" / "b" / "notes" / "lock").exists()
    assert not list(tmp_path.iterdir())
    with lock_folder(tmp_path, "notes/lock"):
        pass
    assert tmp_path.exists()


def enter(folder: str, queue: Any) -> None:
    try:
        with lock_folder(Path(folder), "notes/lock"):
            count = Path(folder) / "count"
            queue.put(int(count.read_text()) if count.exists() else 0)
            count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
    except ValueError:
        queue.put(None)


def test_many_processes_lock_in_turn_without_loss(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=enter, args=(str(tmp_path / "o"), queue)) for _ in range(20)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    entered = sorted(answer for answer in answers if answer is not None)
    assert entered == list(range(len(entered))) and entered
    assert int((tmp_path / "o" / "count").read_text()) == len(entered)


TENSORS = {"a": torch.arange(6).reshape(2, 3).float(), "b": torch.tensor(True), "c": torch.zeros(0, 4)}


def test_digest_covers_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"facts": "x"})
    tensors, metadata = read_tensors(path)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS) and metadata["facts"] == "x"
    good = path.read_bytes()
    head = 8 + int.from_bytes(good[:8], "little")
    for change in (lambda t: t.update(a=t["a"] + 1), lambda t: t.update(a=t["a"].T), lambda t: t.pop("b")):
        changed = dict(tensors)
        change(changed)
        save_file({name: tensor.contiguous() for name, tensor in changed.items()}, path, metadata)
        with pytest.raises(ValueError, match=f"^{path}: expected the bytes that were written"):
            read_tensors(path)
    save_file(tensors, path, metadata | {"facts": "y"})
    with pytest.raises(ValueError, match="is damaged"):
        read_tensors(path)
    for place in range(head, len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(ValueError, match="is damaged"):
            read_tensors(path)


def test_files_without_a_digest_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "old")
    assert set(read_tensors(tmp_path / "old")[0]) == set(TENSORS)


def test_missing_and_truncated_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError, match=f"^{path}: expected a map, got no such file$"):
        read_tensors(path, "a map")
    save_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"^{path}: expected a whole safetensors file: "):
        read_tensors(path)


def test_atomic_folder_appears_only_when_complete(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a") as folder:
        folder.mkdir()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "a") as folder:
        assert folder.name == "a"
        folder.mkdir()
        (folder / "file").touch()
        assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a" / "file").exists()


def test_json_ends_with_a_newline(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
