from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def awake() -> Callable[[nn.Module], nn.Module]:
    """Puts noise on all weights: output layers start at zero, which would hide what lies before them."""

    def wake(model: nn.Module, level: float = 0.05) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += level * torch.randn(parameter.shape, generator=generator)
        return model.eval().requires_grad_(False)

    return wake
