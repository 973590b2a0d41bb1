from collections.abc import Iterator

import pytest
import torch
from torch import nn

from mirage_sim.models.layers import PointwiseConv


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SHAPES = [(48, 16, 24, 32), (16, 48, 24, 32), (128, 64, 6, 8), (64, 160, 3, 4), (5, 1, 7, 9)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("before", "after", "height", "width"), SHAPES)
def test_result_equals_a_1x1_convolution(before: int, after: int, height: int, width: int, bias: bool):
    torch.manual_seed(0)
    plain = nn.Conv2d(before, after, 1, bias=bias)
    ours = PointwiseConv(before, after, 1, bias=bias)
    ours.load_state_dict(plain.state_dict())
    features = torch.randn(3, before, height, width)
    for layout in (torch.contiguous_format, torch.channels_last):
        inputs = features.contiguous(memory_format=layout).requires_grad_()
        expected, found = plain(inputs), ours(inputs)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        gradients = torch.autograd.grad(expected.square().sum(), [inputs, plain.weight])
        found_gradients = torch.autograd.grad(found.square().sum(), [inputs, ours.weight])
        torch.testing.assert_close(found_gradients, gradients, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("before", "after", "height", "width"), SHAPES)
def test_result_does_not_depend_on_threads(before: int, after: int, height: int, width: int, threads: None):
    torch.manual_seed(0)
    conv = PointwiseConv(before, after, 1).requires_grad_(False)
    for batch in (1, 3):
        features = torch.randn(batch, before, height, width).contiguous(memory_format=torch.channels_last)
        outputs = []
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            outputs.append(conv(features))
        assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
