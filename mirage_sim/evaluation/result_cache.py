"""Cached scores of an evaluation, in its output folder, so that a stopped run can continue.

There is one safetensors file per clip and variant, with every score as a float64 scalar, and with arrays such as the
frames of shown clips. A file is found again only by the same networks, settings, code and true clip.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import mirage_sim
from mirage_sim.data.clips import Clip
from mirage_sim.evaluation.ground_truth import digest
from mirage_sim.evaluation.scores import Row
from mirage_sim.io import atomic_write
from mirage_sim.world import WorldModel

ARRAYS = ("frames", "features")  # that a file may hold in addition to scores
_CODE = (  # the code that decides scores; changes elsewhere, such as of plots, keep cached files valid
    "protocols.py geometry memory models world data/clips.py evaluation/rollout.py evaluation/scores.py "
    "evaluation/metrics.py evaluation/ground_truth.py evaluation/perceptual.py"
).split()


def _add(sha: Any, value: Any) -> None:
    """Hash everything that defines a world model: classes, settings, weights."""
    sha.update(type(value).__qualname__.encode())
    if isinstance(value, torch.nn.Module):
        sha.update(repr(value).encode())
        plain = {name: each for name, each in vars(value).items() if not name.startswith("_")}
        _add(sha, {name: each for name, each in plain.items() if not isinstance(each, torch.nn.Module)})
        for name, tensor in value.state_dict().items():
            sha.update(name.encode())
            _add(sha, tensor)
    elif isinstance(value, torch.Tensor):
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, Mapping):
        for name in sorted(value, key=str):
            sha.update(str(name).encode())
            _add(sha, value[name])
    elif dataclasses.is_dataclass(value):
        # fields alone, because some classes cache results in other attributes
        _add(sha, {each.name: getattr(value, each.name) for each in dataclasses.fields(value)})
    elif hasattr(value, "__dict__"):
        _add(sha, vars(value))
    else:
        sha.update(repr(value).encode())


@functools.cache
def _code() -> str:
    """Digest of the code that decides scores, computed once per process, because loaded code does not change."""
    sha = hashlib.sha256()
    package = Path(mirage_sim.__file__).parent
    for name in _CODE:
        path = package / name
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            sha.update(source.read_bytes())
    return sha.hexdigest()


def fingerprint(model: WorldModel) -> str:
    """Hex digest, 16 digits, of the model's settings and weights and of the code that drives and scores it."""
    sha = hashlib.sha256(_code().encode())
    _add(sha, model)
    return sha.hexdigest()[:16]


class ResultCache:
    """Cached results of one variant, one file per clip.

    Args:
        folder: output folder of the evaluation.
        model: of the variant; its fingerprint is part of the path.
    """

    def __init__(self, folder: Path, model: WorldModel):
        self._folder = folder / "parts" / fingerprint(model)

    def _path(self, kind: str, clip: Clip, steps: int) -> Path:
        source = clip.source
        return self._folder / (
            f"{kind}-{source['environment']}-{source['seed']}-{steps}-{digest(clip)[:12]}.safetensors"
        )

    def save(self, kind: str, clip: Clip, steps: int, row: Row, arrays: Mapping[str, np.ndarray]) -> None:
        """Save the scores of a clip that was driven for ``steps`` steps, and some of ``ARRAYS`` by name."""
        path = self._path(kind, clip, steps)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in row.items()}
        tensors |= {name: torch.from_numpy(array) for name, array in arrays.items()}
        with atomic_write(path) as partial:
            save_file(tensors, partial)

    def load(
        self, kind: str, clip: Clip, steps: int, wanted: Collection[str]
    ) -> tuple[Row, dict[str, np.ndarray]] | None:
        """Load scores and the ``wanted`` arrays; None if the file or one of the arrays is missing.

        Raises:
            ValueError: if the file is damaged.
        """
        path = self._path(kind, clip, steps)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                names = set(file.keys())
                if not names.issuperset(wanted):
                    return None
                row = {name: float(file.get_tensor(name)) for name in sorted(names.difference(ARRAYS))}
                return row, {name: file.get_tensor(name).numpy() for name in wanted}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: expected readable scores; the file can be deleted: {error}") from error
