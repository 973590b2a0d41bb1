"""What published weights look like: names and shapes, without the weights."""

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
    """Arguments of diffusers' ``WanTransformer3DModel`` that make it Wan2.2-TI2V-5B."""
    return dict(_file()["config"])


def shapes(part: str) -> Shapes:
    """Names and shapes of all tensors of a part.

    Args:
        part: ``"backbone"``, as diffusers names its tensors; ``"branch"``, as the method's authors name those of the
            memory side branch; ``"lora"``, the linear layers ``(out, in)`` that their adapters are for, in their names.
    """
    stored = _file()[part]
    found = dict(stored["other"])
    for number in range(stored["blocks"]):
        block = stored["block"] | (stored["first_block"] if number == 0 else {})
        found |= {f"{stored['prefix']}{number}.{name}": shape for name, shape in block.items()}
    return {name: tuple(shape) for name, shape in found.items()}
