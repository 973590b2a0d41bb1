"""The public weights of the real backbone: fetching them, and whether they are all there."""

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
    """Where the weights are if nothing else is said."""
    return user_cache("wan5b")


def folder_of(folder: str | Path | None = None, part: str = "") -> str:
    """The folder of a part of the published weights.

    Args:
        folder: of all of them; None for :func:`default_folder`.
        part: ``"transformer"``, ``"vae"``; empty for the whole.
    """
    return str(Path(default_folder() if folder is None else folder) / part)


def faults(folder: str | Path) -> list[str]:
    """What is missing from a folder of published weights, or truncated; a line each, none if all is there."""
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
    """Whether a file is as long as its header says; the weights themselves are not read."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def download(settings: DownloadSettings) -> dict[str, Any]:
    """Fetch what the folder lacks, and check that it is all there; what was cut off continues where it stopped.

    Args:
        settings: the repository is in the layout of diffusers; a folder of None is :func:`default_folder`.

    Returns:
        ``folder``, where the weights are.

    Raises:
        OSError: if there is no network, or not enough room.
        ValueError: if the repository does not have what is needed.
    """
    folder = default_folder() if settings.folder is None else Path(settings.folder)
    if not folder.exists() or faults(folder):
        _fetch(folder, settings.repository, settings.revision)
    return {"folder": str(folder)}


def _fetch(folder: Path, repository: str, revision: str) -> None:
    hub = require("huggingface_hub", "huggingface_hub")
    for library in ("httpx", "httpx2"):  # of the hub's client; else a line for each request
        logging.getLogger(library).setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"revision": revision, "local_dir": folder, "allow_patterns": list(PARTS)}
    try:
        plan = hub.snapshot_download(repository, dry_run=True, **wanted)
        needed = sum(file.file_size for file in plan if file.will_download)
        free = shutil.disk_usage(folder).free
        if needed < free:
            hub.snapshot_download(repository, **wanted)
    except Exception as error:  # whatever networks do
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
