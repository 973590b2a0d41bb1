import pytest
import torch
from torch import nn

from mirage_sim.models import MiniDepth
from mirage_sim.models.layers import OneDnnConv, channels_last


@pytest.mark.parametrize(("channels", "size"), [(96, (6, 8)), (16, (24, 32)), (80, (12, 16))])
@pytest.mark.parametrize("stride", [1, 2])
def test_result_equals_a_convolution(channels: int, size: tuple[int, int], stride: int):
    plain = nn.Conv2d(channels, 24, 3, padding=1, stride=stride)
    quick = nn.Conv2d(channels, 24, 3, padding=1, stride=stride)
    quick.load_state_dict(plain.state_dict())
    channels_last(quick)
    assert isinstance(quick, OneDnnConv)
    x = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), plain(x), rtol=1e-4, atol=1e-5)


def test_convolution_has_gradients():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    channels_last(conv)
    conv(torch.ones(1, 8, 4, 4)).sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.abs().sum() > 0


def test_all_convolutions_of_a_network_are_converted():
    plain = [name for name, layer in MiniDepth().named_modules() if type(layer) is nn.Conv2d]
    assert plain == []
