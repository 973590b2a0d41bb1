"""Loading of published models from folders or hubs, with strict checks and one-line errors."""

import importlib
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def require(module: str, install: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: name of the module.
        install: arguments of ``pip install`` that install it.

    Raises:
        ImportError: with the command that installs the library, if it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = textwrap.shorten(str(error), 200)
        raise ImportError(
            f"{module.partition('.')[0]}: expected it to be installed (pip install {install}): {reason}"
        ) from error


def load_pretrained(cls: Any, name: str, **options: Any) -> Any:
    """Load a model of diffusers or transformers to the CPU, ready for inference.

    Those libraries initialise missing weights randomly and only warn. Here missing weights are an error.

    Args:
        cls: a model class or ``AutoModel...``, whose ``from_pretrained`` supports ``output_loading_info``.
        name: a folder, or the name of a model on a hub.
        options: further arguments of ``from_pretrained``.

    Raises:
        ValueError: if files are missing, truncated or of another kind, or if weights and configuration do not match.
    """
    try:
        model, report = cls.from_pretrained(name, use_safetensors=True, output_loading_info=True, **options)
    except Exception as error:  # loaders raise many types on unreadable files
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"{name}: expected a folder that holds a whole {cls.__name__}: {reason}") from error
    faults = {fault.removesuffix("_keys"): sorted(map(str, keys)) for fault, keys in report.items() if keys}
    if faults:
        listed = "; ".join(f"{fault} {', '.join(keys[:3])} ({len(keys)} in all)" for fault, keys in faults.items())
        raise ValueError(f"{name}: the weights do not fit the {cls.__name__} that config.json describes: {listed}")
    return model.eval().requires_grad_(False)


def load_processor(cls: Any, name: str, kind: str, **options: Any) -> Any:
    """Load a tokenizer or processor of transformers.

    Args:
        cls: a class with ``from_pretrained``.
        name: a folder, or the name of a model on a hub.
        kind: what is expected there, for the error.
        options: further arguments of ``from_pretrained``.

    Raises:
        ValueError: if files are missing or unreadable.
    """
    try:
        return cls.from_pretrained(name, **options)
    except Exception as error:  # loaders raise many types on unreadable files
        raise ValueError(f"{name}: expected {kind}: {textwrap.shorten(str(error), 300)}") from error


def to_uint8(images: "Tensor") -> "Tensor":
    """Convert images in [0, 1] to uint8."""
    return (images * 255).round().clamp(0, 255).byte()


def to_arrays(images: "Tensor") -> list[Any]:
    """Convert images ``[N, 3, H, W]`` in [0, 1] to N arrays uint8 ``[H, W, 3]``, as processors expect them."""
    return list(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy())
