"""Download of the public Wan2.2 weights, and the check that they are complete."""

import json
import logging
import shutil
import textwrap
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mirage_sim.models.pretrained import require
from mirage_sim.paths import user_cache
from mirage_sim.settings import DownloadSettings

GIB = 2**30
WEIGHTS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
PARTS = ("model_index.json", "scheduler/*", "tokenizer/*", *(f"{part}/*" for part in WEIGHTS))


def default_folder() -> Path:
    """Default folder of the weights, in the user's cache."""
    return user_cache("wan5b")


def folder_of(folder: str | Path | None = None, part: str = "") -> str:
    """Return the folder of a part of the published weights.

    Args:
        folder: folder of all parts; None for :func:`default_folder`.
        part: ``"transformer"`` or ``"vae"``; empty for all parts.
    """
    return str(Path(default_folder() if folder is None else folder) / part)


def faults(folder: str | Path) -> list[str]:
    """List missing and truncated files of a folder of published weights, one line each."""
    folder = Path(folder)
    if not folder.is_dir():
        return [f"{folder}: no such folder"]
    found = [] if any((folder / "tokenizer").glob("*")) else [f"{folder / 'tokenizer'}: missing"]
    for part, stem in WEIGHTS.items():
        index = folder / part / f"{stem}.safetensors.index.json"
        try:
            files = _shards(index) if index.is_file() else [folder / part / f"{stem}.safetensors"]
        except (ValueError, LookupError, TypeError, AttributeError):
            found.append(f"{index}: expected an index of shards")
            continue
        for path in (folder / part / "config.json", *files):
            if not path.is_file():
                found.append(f"{path}: missing")
            elif path.suffix == ".safetensors" and not _whole(path):
                found.append(f"{path}: truncated")
    return found


def _shards(index: Path) -> list[Path]:
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return sorted({index.parent / name for name in names})


def _whole(path: Path) -> bool:
    """Return whether a file has the length that its header declares, without reading the weights."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def download(settings: DownloadSettings) -> dict[str, Any]:
    """Download missing files, resuming partial ones, and check that the folder is complete.

    Args:
        settings: repository in diffusers' layout and destination; a folder of None is :func:`default_folder`.

    Returns:
        ``folder``, which holds the weights.

    Raises:
        OSError: if there is no network, or not enough disk space.
        ValueError: if the repository lacks files.
    """
    folder = default_folder() if settings.folder is None else Path(settings.folder)
    if not folder.exists() or faults(folder):
        _fetch(folder, settings.repository, settings.revision)
    return {"folder": str(folder)}


def _fetch(folder: Path, repository: str, revision: str) -> None:
    hub = require("huggingface_hub", "huggingface_hub")
    for library in ("httpx", "httpx2"):  # the hub's client would log a line for each request
        logging.getLogger(library).setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"revision": revision, "local_dir": folder, "allow_patterns": list(PARTS)}
    try:
        plan = hub.snapshot_download(repository, dry_run=True, **wanted)
        needed = sum(file.file_size for file in plan if file.will_download)
        free = shutil.disk_usage(folder).free
        if needed < free:
            hub.snapshot_download(repository, **wanted)
    except Exception as error:  # network errors have many types
        reason = textwrap.shorten(str(error), 150)
        raise ConnectionError(
            f"{repository}: could not fetch it to {folder} (is there a network?): {reason}"
        ) from error
    if needed >= free:
        raise OSError(f"{folder}: expected room for {needed / GIB:.1f} GiB, got {free / GIB:.1f} GiB free")
    if missing := faults(folder):
        raise ValueError(
            f"{repository}: expected all of the weights, got {len(missing)} faults, the first: {missing[0]}"
        )
