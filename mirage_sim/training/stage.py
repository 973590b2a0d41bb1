"""What a stage of training is made of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mirage_sim.training.loop import Loss


class Stage(NamedTuple):
    """A stage that is ready to be trained.

    Attributes:
        modules: what is trained, by name: those of their parameters that require a gradient.
        exports: by file name, what writes that file of the trained modules.
        loss: what is minimised.
        accelerator: of :func:`mirage_sim.training.loop.make_accelerator`.
        generator_device: of the generators that the loss draws with.
    """

    modules: dict[str, nn.Module]
    exports: Mapping[str, Callable[[Path], None]]
    loss: Loss
    accelerator: Any
    generator_device: torch.device = torch.device("cpu")
