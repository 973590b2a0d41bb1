"""Published models out of folders or hubs: all of their weights or none, and one clear line when it cannot be."""

import importlib
import textwrap
from types import ModuleType
from typing import Any


def require(module: str, install: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: what to import.
        install: what brings it, as the words after ``pip install``.

    Raises:
        ImportError: naming what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = textwrap.shorten(str(error), 200)
        raise ImportError(
            f"{module.partition('.')[0]}: expected it to be installed (pip install {install}): {reason}"
        ) from error


def load_pretrained(cls: Any, name: str, **options: Any) -> Any:
    """Load a model of diffusers or transformers, on the CPU, ready for inference.

    Those libraries fill what a checkpoint lacks with random numbers and go on; here that is an error.

    Args:
        cls: with a ``from_pretrained`` that tells what it did: a model class or an ``AutoModel...``.
        name: a folder, or the name of a model on a hub.
        options: what else ``from_pretrained`` takes.

    Raises:
        ValueError: if files are missing, truncated or foreign, or if weights and configuration do not fit each other.
    """
    try:
        model, report = cls.from_pretrained(name, use_safetensors=True, output_loading_info=True, **options)
    except Exception as error:  # whatever a foreign file does to a foreign loader
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"{name}: expected a folder that holds a whole {cls.__name__}: {reason}") from error
    faults = {fault.removesuffix("_keys"): sorted(map(str, keys)) for fault, keys in report.items() if keys}
    if faults:
        listed = "; ".join(f"{fault} {', '.join(keys[:3])} ({len(keys)} in all)" for fault, keys in faults.items())
        raise ValueError(f"{name}: the weights do not fit the {cls.__name__} that config.json describes: {listed}")
    return model.eval().requires_grad_(False)
