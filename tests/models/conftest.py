from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def awake() -> Callable[[nn.Module], nn.Module]:
    """Adds noise to all weights, because output layers are initialised to zero and would hide earlier layers."""

    def wake(model: nn.Module, level: float = 0.05) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += level * torch.randn(parameter.shape, generator=generator)
        return model.eval().requires_grad_(False)

    return wake
