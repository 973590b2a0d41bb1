"""Layers that several mini networks are made of."""

from typing import Any

import torch
from torch import Tensor, nn


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution whose bits do not depend on the number of threads.

    oneDNN's own splits the sum over channels among threads on small grids, and so does a product with the pixels as
    rows where there are few output channels. With the channels as rows, neither happens.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, in, h, w]`` to ``[B, out, h, w]``."""
        product = torch.matmul(self.weight.flatten(1), features.flatten(2))
        if self.bias is not None:
            product = product + self.bias[:, None]
        return product.unflatten(2, features.shape[2:]).contiguous(memory_format=torch.channels_last)


class LocalBlock(nn.Module):
    """``relu(x + convolutions(x))``, purely local, without normalisation over the picture.

    What a cell's latent means must not depend on the rest of the frame: it will be read beside cells of other frames.
    The same block as diffusers' ``AutoencoderTinyBlock``, importing which takes seconds.

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        first, second, third = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, width, h, w]`` to the same shape."""
        return nn.functional.relu(features + self.conv(features))


def residual_stack(width: int, depth: int) -> nn.Sequential:
    """``depth`` :class:`LocalBlock`, one after the other."""
    return nn.Sequential(*(LocalBlock(width) for _ in range(depth)))


def zero_conv(before: int, after: int) -> nn.Conv2d:
    """A 3x3 convolution that starts at zero, so that what it is added to starts unchanged."""
    conv = nn.Conv2d(before, after, 3, padding=1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


class OneDnnConv(nn.Conv2d):
    """A convolution that oneDNN computes however small the picture, from weights laid out for it once.

    Below 20,480 input values PyTorch takes a plain loop instead, which is slower and hands the layout on as NCHW; and
    it lays the weights out anew in every call. The operators are those that torch.compile uses; they are not public,
    and the same in all versions of torch that this package accepts so far.
    """

    _laid_out: tuple[object, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the weights as oneDNN laid them out, which can be neither copied nor pickled, and made again."""
        return {name: value for name, value in self.__dict__.items() if name != "_laid_out"}

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        possible = input.device.type == "cpu" and torch.backends.mkldnn.is_available()
        plain = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")  # which lays weights out anew, in any case
        if plain or not possible or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        how = (self.padding, self.stride, self.dilation, self.groups)
        version = None if weight.is_inference() else weight._version  # which only others count
        state = (weight.data_ptr(), version, input.shape)
        if self._laid_out is None or self._laid_out[0] != state:
            laid_out = torch.ops.mkldnn._reorder_convolution_weight(weight.contiguous(), *how, list(input.shape))
            self._laid_out = state, laid_out
        return torch.ops.mkldnn._convolution_pointwise(input, self._laid_out[1], bias, *how, "none", [], "")


def channels_last(module: nn.Module) -> None:
    """Lay weights out as oneDNN likes them, and let it compute every convolution; several times faster on a CPU."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = OneDnnConv  # diffusers' blocks make their own convolutions
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
