"""Layers of the mini networks."""

from typing import Any

import torch
from torch import Tensor, nn


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution whose result does not depend on the number of threads, bit for bit.

    On small grids, oneDNN's convolution splits the sum over channels among threads. A matrix product with pixels as
    rows does the same when there are few output channels. A product with channels as rows does not.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[B, in, h, w]`` to ``[B, out, h, w]``."""
        product = torch.matmul(self.weight.flatten(1), features.flatten(2))
        if self.bias is not None:
            product = product + self.bias[:, None]
        return product.unflatten(2, features.shape[2:]).contiguous(memory_format=torch.channels_last)


class LocalBlock(nn.Module):
    """``relu(x + convolutions(x))`` without normalisation, which would depend on the whole image.

    The meaning of a cell's latent must not depend on the rest of the frame, because a read combines cells of several
    frames. The block equals diffusers' ``AutoencoderTinyBlock``, whose import takes seconds.

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        first, second, third = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[B, width, h, w]`` to the same shape."""
        return nn.functional.relu(features + self.conv(features))


def residual_stack(width: int, depth: int) -> nn.Sequential:
    """Make a sequence of ``depth`` :class:`LocalBlock`."""
    return nn.Sequential(*(LocalBlock(width) for _ in range(depth)))


def zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Make a 3x3 convolution that is initialised to zero."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


class OneDnnConv(nn.Conv2d):
    """A convolution that always uses oneDNN on a CPU, with weights that are reordered once.

    For inputs of fewer than 20,480 values, PyTorch uses a slower native loop that returns NCHW, and it reorders the
    weights in every call. The operators used here are those of torch.compile. They are not public, but identical in all
    versions of torch that this package supports.
    """

    _reordered: tuple[object, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the reordered weights, which cannot be copied or pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_reordered"}

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        available = input.device.type == "cpu" and torch.backends.mkldnn.is_available()
        training = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")  # weights change in every call
        if training or not available or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        options = (self.padding, self.stride, self.dilation, self.groups)
        version = None if weight.is_inference() else weight._version  # inference tensors have no version counter
        key = (weight.data_ptr(), version, input.shape)
        if self._reordered is None or self._reordered[0] != key:
            reordered = torch.ops.mkldnn._reorder_convolution_weight(weight.contiguous(), *options, list(input.shape))
            self._reordered = key, reordered
        return torch.ops.mkldnn._convolution_pointwise(input, self._reordered[1], bias, *options, "none", [], "")


def channels_last(module: nn.Module) -> None:
    """Convert a module's weights to channels-last, and its convolutions to oneDNN; several times faster on a CPU."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = OneDnnConv  # replaces the convolutions inside diffusers' blocks, too
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
