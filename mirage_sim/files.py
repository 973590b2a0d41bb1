"""Files and folders that are written to: files appear whole or not at all, and one process at a time fills a folder."""

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

from safetensors import SafetensorError

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

PARTIAL = ".partial"  # how the names of unfinished files begin
_DIGEST = "sha256"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file, which then appears at ``path`` whole or not at all, whoever else writes it, too.

    Args:
        path: of the file; the partial one is beside it, and its name ends alike, for libraries that look at that.

    Raises:
        OSError: naming ``path``, if it could not be written.
    """
    path = path.absolute()
    partial = path.with_name(f"{PARTIAL}{uuid4().hex[:8]}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    except SafetensorError as error:  # its way to say that a disk is full
        raise OSError(f"{path}: could not be written: {error}") from error
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise OSError(f"{path}: could not be written: {error.strerror or str(error).splitlines()[0]}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, which appears whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with a digest of all that is in it; it appears whole or not at all.

    Args:
        path: of the file.
        tensors: contiguous, on the CPU.
        metadata: without ``sha256``, where the digest goes.

    Raises:
        OSError: naming the file, if it could not be written.
    """
    from safetensors.torch import save_file

    with whole(path) as partial:
        save_file(dict(tensors), partial, metadata={**metadata, _DIGEST: digest(tensors, metadata)})


def digest(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors, and of the metadata but for a digest in it."""
    import torch

    shapes = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}
    facts = {key: value for key, value in metadata.items() if key != _DIGEST}
    found = hashlib.sha256(json.dumps([facts, shapes], sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_digest(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> None:
    """Check what was read from a file of :func:`save_tensors`; files from before there were digests pass.

    Raises:
        ValueError: if it is not what was written.
    """
    if _DIGEST in metadata and metadata[_DIGEST] != digest(tensors, metadata):
        raise ValueError(f"{path}: expected the bytes that were written, got others: the file is damaged")


def check_folder(name: str, folder: str | Path) -> None:
    """Check that a folder can be written to, before anything is made for it; it is not there afterwards if it was not.

    Args:
        name: of the setting, for the message.
        folder: may be missing, and those above it, too.

    Raises:
        ValueError: if it cannot be made or written to.
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
    """The folder and those above it that are not there, innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # something is in it, or it has gone
            folder.rmdir()


@contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Keep a folder for this process, as long as the context lasts; who has it but died has it no more.

    Args:
        folder: is made where it is missing, and removed again if nothing is in it at the end.
        name: of the file in it that is locked meanwhile; it may be in a folder of its own.

    Raises:
        ValueError: if another process has it.
        OSError: if it cannot be made.
    """
    lock = folder.absolute() / name
    made = _missing(lock.parent)
    with _locked(folder, lock) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            _remove_empty(made)


def _locked(folder: Path, lock: Path) -> TextIO:
    """The file at ``lock``, made and locked."""
    for last in (*[False] * 99, True):
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("a+")
        except FileNotFoundError:
            if last:
                raise
            continue  # who had it is just removing folders
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
        file.close()  # who had it has removed it meanwhile
        owner = ""
    raise ValueError(
        f"output: expected a folder that nobody else is writing to, got {folder}, where {owner or 'another process'} is"
    )


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def remove_partial(folder: Path, pattern: str) -> None:
    """Remove what processes that were killed had not finished, of files and folders whose names match."""
    for path in folder.glob(f"{PARTIAL}*-{pattern}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
