"""Atomic files and folders, JSON, safetensors with a digest, and a lock for the folder that a process writes to."""

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from uuid import uuid4

from safetensors import SafetensorError, safe_open

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

PARTIAL = ".partial"  # prefix of the names of unfinished files and folders
_DIGEST = "sha256"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path to write to, and rename it to `path` at the end: readers see the old file or the whole new one.

    Args:
        path: the final file. The partial file lies beside it and has the same suffix, because some libraries choose
            the format by the suffix.

    Raises:
        OSError: if the file cannot be written. The message names `path`.
    """
    path = path.absolute()
    partial = path.with_name(f"{PARTIAL}{uuid4().hex[:8]}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    except SafetensorError as error:  # safetensors raises it when the disk is full
        raise OSError(f"{path}: could not be written: {error}") from error
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise OSError(f"{path}: could not be written: {error.strerror or str(error).splitlines()[0]}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield the path of a folder to create, and rename it to `path` at the end. Its last name is the same as `path`'s.

    Args:
        path: a folder that does not exist, or is empty, in one that exists.
    """
    path = path.absolute()
    with tempfile.TemporaryDirectory(prefix=PARTIAL, suffix=f"-{path.name}", dir=path.parent) as partial:
        folder = Path(partial) / path.name
        yield folder
        folder.replace(path)


def remove_partial(folder: Path, pattern: str) -> None:
    """Remove the unfinished files and folders that killed processes left.

    Args:
        folder: to look in.
        pattern: glob pattern of the final names.
    """
    for path in folder.glob(f"{PARTIAL}*-{pattern}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, with a digest of its contents in the metadata.

    Args:
        path: the file.
        tensors: contiguous tensors on the CPU.
        metadata: text to store beside them. The digest is added as ``sha256``.

    Raises:
        OSError: if the file cannot be written. The message names it.
    """
    from safetensors.torch import save_file

    with atomic_write(path) as partial:
        save_file(dict(tensors), partial, metadata={**metadata, _DIGEST: digest(tensors, metadata)})


def read_tensors(
    path: str | Path, what: str = "a whole safetensors file"
) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read tensors and metadata of a safetensors file, and check its digest if it has one.

    Args:
        path: the file.
        what: what was expected, for the error message.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, no safetensors file, or does not match its digest.
    """
    with open_tensors(path, what) as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    if _DIGEST in metadata and metadata[_DIGEST] != digest(tensors, metadata):
        raise ValueError(f"{path}: expected the bytes that were written, got others: the file is damaged")
    return tensors, metadata


@contextmanager
def open_tensors(path: str | Path, what: str = "a whole safetensors file", framework: str = "pt") -> Iterator[Any]:
    """Open a safetensors file to read parts of it; see ``safetensors.safe_open``.

    Args:
        path: the file.
        what: what was expected, for the error message.
        framework: ``"pt"`` for torch tensors, ``"np"`` for NumPy arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated or no safetensors file, or lacks a tensor that is read within the context.
    """
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected {what}, got no such file") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: expected {what}: {error}") from error


def digest(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of tensors, and of the metadata except a digest in it."""
    import torch

    shapes = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}
    facts = {key: value for key, value in metadata.items() if key != _DIGEST}
    found = hashlib.sha256(json.dumps([facts, shapes], sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_folder(name: str, folder: str | Path) -> None:
    """Check that a folder can be written to. Folders that do not exist are not left behind.

    Args:
        name: the setting that names the folder, for the error message.
        folder: the folder; it and its parents need not exist.

    Raises:
        ValueError: if the folder cannot be created or written to.
    """
    folder = Path(folder).absolute()
    missing: list[Path] = []
    try:
        missing = _missing(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise ValueError(f"{name}: expected a folder that can be written to, got {folder}: {error.strerror}") from error
    finally:
        _remove_empty(missing)


def _missing(folder: Path) -> list[Path]:
    """Return the folder and its parents that do not exist, innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it is not empty, or another process removed it
            folder.rmdir()


@contextmanager
def lock_folder(folder: Path, name: str) -> Iterator[None]:
    """Reserve a folder for this process within the context. The lock of a killed process is void.

    Args:
        folder: is created if it does not exist, and removed at the end if it is still empty.
        name: the lock file, relative to the folder; it may lie in a subfolder.

    Raises:
        ValueError: if another process has reserved the folder.
        OSError: if the folder cannot be created.
    """
    lock = folder.absolute() / name
    created = _missing(lock.parent)
    with _locked(folder, lock) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            _remove_empty(created)


def _locked(folder: Path, lock: Path) -> TextIO:
    """Create and lock the file `lock`, and return it."""
    for last in (*[False] * 99, True):
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("a+")
        except FileNotFoundError:
            if last:
                raise
            continue  # the previous owner is removing the folders right now
        if not fcntl:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            break
        if _is_at(file.fileno(), lock):
            return file
        file.close()  # the previous owner has removed the file since it was opened
        owner = ""
    raise ValueError(
        f"output: expected a folder that no other process writes to, got {folder}, where {owner or 'another process'} "
        "is at work"
    )


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
