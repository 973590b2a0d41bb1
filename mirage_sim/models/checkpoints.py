"""Weights in and out: safetensors, with the class and its arguments as JSON in the header. No pickle anywhere."""

import json
import textwrap
from pathlib import Path

import torch
from torch import Tensor, nn

from mirage_sim.ambient import own_torch
from mirage_sim.io import read_tensors, save_tensors
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser
from mirage_sim.models.depth import MiniDepth
from mirage_sim.paths import ASSETS

#: arguments that files of earlier versions name differently
RENAMED = {"detail": "samples_per_cell"}
CLASSES: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in (MiniCodec, MiniDenoiser, MiniDepth)}


def save_model(model: nn.Module, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write one of our models, with a digest; the file appears whole or not at all.

    Args:
        model: of a class in ``CLASSES``.
        path: of the file.
        dtype: of the stored weights; they are loaded as float32.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"class": type(model).__name__, "config": json.dumps(model.config)}
    save_tensors(path, tensors, metadata)


def read_weights(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, on the CPU.

    Args:
        path: a file; a relative path that does not exist is looked up among the built-in assets.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, damaged or no safetensors file.
    """
    path = Path(path)
    if not path.exists() and not path.is_absolute():
        path = ASSETS / path
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a weights file (safetensors)")
    tensors, metadata = read_tensors(path)
    return metadata, tensors


def usable_device(device: torch.device | str) -> torch.device:
    """The device of this name, if torch can put a tensor there.

    Args:
        device: as torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:0"``, ...

    Raises:
        ValueError: if torch does not know it, or this machine does not have it.
    """
    try:
        place = torch.device(device)
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say unknown, and not there
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: expected one that torch can use, got {str(device)!r}: {reason}") from error
    return place


@own_torch()
def load_model(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Build and fill the model stored in a file, in float32, ready for inference.

    Args:
        path: a file; a relative path that does not exist is looked up among the built-in assets.
        device: where its weights shall be.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, foreign, or does not fit the class that it names; or if this machine does
            not have the device.
    """
    place = usable_device(device)
    metadata, state = read_weights(path)
    name = metadata.get("class", "")
    if name not in CLASSES:
        raise ValueError(f"{path}: expected weights of one of {sorted(CLASSES)}, got class {name!r}")
    try:
        config = json.loads(metadata["config"])
        model = CLASSES[name](**{RENAMED.get(key, key): value for key, value in config.items()})
        model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    except (
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        RuntimeError,
    ) as error:  # whatever a foreign config does
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"{path}: the weights do not fit the {name} that the file describes: {reason}") from error
    return model.eval().requires_grad_(False).to(place)
