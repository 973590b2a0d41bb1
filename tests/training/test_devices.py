"""The objectives on a simulated accelerator, whose tensors have no values: using the CPU or reading a value fails."""

from pathlib import Path

import pytest
import torch
from support.toy_world import toy_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.training.mini_stages import Networks, build_objective

OPTIONS = {
    "codec": {"batch": 4, "photographs": torch.zeros(3, 48, 64, 3, dtype=torch.uint8)},
    "depth": {"batch": 4},
    "denoiser": {"batch": 6},
}


def on_device(values: Tensor) -> Tensor:
    return torch.empty(values.shape, dtype=values.dtype, device="meta")


@pytest.mark.parametrize("name", OPTIONS)
def test_objective_never_waits_for_the_accelerator(name: str, clips: Path):
    data = WalkDataset(clips)
    model = toy_model()
    networks = Networks(model.codec, model.denoiser, model.depth)
    with FakeTensorMode(allow_non_fake_inputs=False):
        data.frames, data.depth, data.c2w, data.K = map(on_device, (data.frames, data.depth, data.c2w, data.K))
        data.device, data._ends = data.frames.device, on_device(torch.zeros(len(data)))
        for network in networks:
            for key, parameter in list(network.named_parameters()):
                owner, _, last = key.rpartition(".")
                setattr(network.get_submodule(owner), last, nn.Parameter(on_device(parameter)))
        options = {k: on_device(v) if isinstance(v, Tensor) else v for k, v in OPTIONS[name].items()}
        modules, objective = build_objective(name, data, networks, options)
        for step in range(3):
            terms = objective(torch.Generator().manual_seed(step))
            terms["loss"].backward()
        assert terms["loss"].device.type == "meta"
        gradients = [p.grad for module in modules.values() for p in module.parameters()]
        assert all(gradient is not None and gradient.device.type == "meta" for gradient in gradients)
        with pytest.raises(DataDependentOutputException):
            terms["loss"].item()
        with pytest.raises(DynamicOutputShapeException):
            data.depth.nonzero()
        with pytest.raises(FakeTensorDeviceMismatchError):
            terms["loss"] + torch.zeros(1)
