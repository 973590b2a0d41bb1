"""Weights of the mini networks as safetensors files. The header names the class and holds its arguments as JSON."""

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

#: arguments that have another name in files of earlier versions
RENAMED = {"detail": "samples_per_cell"}
CLASSES: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in (MiniCodec, MiniDenoiser, MiniDepth)}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def save_model(model: nn.Module, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a model and a digest of its weights. The write is atomic.

    Args:
        model: a model with a ``config``, the arguments of its class.
        path: the file. Its folder is created if missing.
        dtype: type of the stored weights. They are loaded as float32.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"class": type(model).__name__, "config": json.dumps(model.config)}
    save_tensors(path, tensors, metadata)


def read_weights(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the metadata and tensors of a safetensors file to the CPU.

    Args:
        path: the file. A relative path that does not exist is looked up among the built-in assets.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, damaged or not a safetensors file.
    """
    path = Path(path)
    if not path.exists() and not path.is_absolute():
        path = ASSETS / path
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a weights file (safetensors)")
    tensors, metadata = read_tensors(path)
    return metadata, tensors


def usable_device(device: torch.device | str) -> torch.device:
    """Return a device after checking that torch can create a tensor there.

    Args:
        device: torch's name of the device: ``"cpu"``, ``"cuda"``, ``"cuda:0"``, ...

    Raises:
        ValueError: if torch does not know the device, or this machine does not have it.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:  # torch raises both for unknown and missing devices
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: expected one that torch can use, got {str(device)!r}: {reason}") from error
    return found


def parse_dtype(argument: str, name: str) -> torch.dtype:
    """Return the floating-point type of a name in ``DTYPES``.

    Raises:
        ValueError: naming the argument, if the name is unknown.
    """
    if name not in DTYPES:
        raise ValueError(f"{argument}: expected one of {sorted(DTYPES)}, got {name!r}")
    return DTYPES[name]


@own_torch()
def load_model(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Load a model from a file, in float32, ready for inference.

    Args:
        path: the file. A relative path that does not exist is looked up among the built-in assets.
        device: device of the weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, of another kind, or does not fit the class that it names, or if this
            machine does not have the device.
    """
    device = usable_device(device)
    metadata, state = read_weights(path)
    name = metadata.get("class", "")
    if name not in CLASSES:
        raise ValueError(f"{path}: expected weights of one of {sorted(CLASSES)}, got class {name!r}")
    try:
        config = json.loads(metadata["config"])
        model = CLASSES[name](**{RENAMED.get(key, key): value for key, value in config.items()})
        model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    except (AttributeError, TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:  # any JSON
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"{path}: the weights do not fit the {name} that the file describes: {reason}") from error
    return model.eval().requires_grad_(False).to(device)
