"""Precision of the networks' arithmetic in training. Weights, geometry and losses are always float32."""

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("float32", "bfloat16", "auto")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 natively; emulation is far slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Precision:
    """Makes the autocast context that networks run in.

    Args:
        name: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 if the device computes in it natively.
        device: device of the networks.

    Raises:
        ValueError: if the name is unknown.
    """

    def __init__(self, name: str, device: torch.device):
        if name not in PRECISIONS:
            raise ValueError(f"precision: expected one of {PRECISIONS}, got {name!r}")
        self.device = device
        self.bfloat16 = name == "bfloat16" or (name == "auto" and has_bfloat16(device))

    def __call__(self) -> AbstractContextManager[None]:
        """Return the context to run networks in. Their outputs may be bfloat16."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()
