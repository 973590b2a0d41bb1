"""Arithmetic of the networks in training: weights, geometry and losses are float32 whatever it is."""

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("float32", "bfloat16", "auto")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes with bfloat16; a CPU that only imitates it takes far longer than with float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Precision:
    """The arithmetic that networks are run with.

    Args:
        name: ``"float32"``, ``"bfloat16"``, or ``"auto"`` for bfloat16 where the device computes with it.
        device: of the networks.

    Raises:
        ValueError: for another name.
    """

    def __init__(self, name: str, device: torch.device):
        if name not in PRECISIONS:
            raise ValueError(f"precision: expected one of {PRECISIONS}, got {name!r}")
        self.device = device
        self.bfloat16 = name == "bfloat16" or (name == "auto" and has_bfloat16(device))

    def __call__(self) -> AbstractContextManager[None]:
        """The context to run networks in; what they return may be bfloat16."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()
