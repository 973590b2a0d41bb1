"""Names and shapes of the published weights."""

import json
from functools import cache
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return found


def config() -> dict[str, Any]:
    """Arguments of diffusers' ``WanTransformer3DModel`` for Wan2.2-TI2V-5B."""
    return dict(_file()["config"])


def shapes(part: str) -> Shapes:
    """Return the names and shapes of all tensors of a part.

    Args:
        part: ``"backbone"`` with diffusers' names, or with the names of the method's authors ``"branch"`` (the memory
            side branch) or ``"lora"`` (the linear layers ``(out, in)`` that their adapters change).
    """
    stored = _file()[part]
    found = dict(stored["other"])
    for number in range(stored["blocks"]):
        block = stored["block"] | (stored["first_block"] if number == 0 else {})
        found |= {f"{stored['prefix']}{number}.{name}": shape for name, shape in block.items()}
    return {name: tuple(shape) for name, shape in found.items()}
