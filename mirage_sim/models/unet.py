"""A small U-Net of diffusers' blocks, the trunk of the mini denoiser."""

from collections.abc import Sequence

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from mirage_sim.models.layers import PointwiseConv, zero_conv

GROUPS = 8


class UNet(nn.Module):
    """A U-Net from features ``[B, widths[0], h, w]`` to ``[B, out_channels, h, w]``.

    h and w must be divisible by ``2^(levels - 1)``. There is one residual block per level of the encoder, two with
    attention between them at the coarsest level, one per level of the decoder, and one more at full resolution for
    details.

    Args:
        out_channels: channels of the last convolution, which is initialised to zero.
        widths: channels per level, from the finest.
        embedding: channels of the global embedding that every block gets.
    """

    def __init__(self, out_channels: int, widths: Sequence[int], embedding: int):
        super().__init__()

        def block(width: int, out_width: int) -> ResnetBlock2D:
            layer = ResnetBlock2D(in_channels=width, out_channels=out_width, temb_channels=embedding, groups=GROUPS)
            if width != out_width:
                layer.conv_shortcut = PointwiseConv(width, out_width, 1)
            return layer

        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.down_blocks = nn.ModuleList([block(fine, fine) for fine, _ in pairs])
        self.downsamplers = nn.ModuleList(
            [Downsample2D(fine, use_conv=True, out_channels=coarse, name="op") for fine, coarse in pairs]
        )
        deepest = widths[-1]
        self.mid_before = block(deepest, deepest)
        self.attention = Attention(
            deepest, heads=deepest // 32, dim_head=32, norm_num_groups=GROUPS, residual_connection=True, bias=True
        )
        self.mid_after = block(deepest, deepest)
        self.upsamplers = nn.ModuleList(
            [nn.Sequential(PointwiseConv(coarse, fine, 1), nn.Upsample(scale_factor=2)) for fine, coarse in pairs]
        )
        self.up_blocks = nn.ModuleList([block(2 * fine, fine) for fine, _ in pairs])
        self.detail = block(widths[0], widths[0])
        self.norm_out = nn.GroupNorm(GROUPS, widths[0])
        self.conv_out = zero_conv(widths[0], out_channels)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Run the network on features and a global embedding ``[B, embedding]``."""
        skips = []
        for block, downsampler in zip(self.down_blocks, self.downsamplers, strict=True):
            features = block(features, embedding)
            skips.append(features)
            features = downsampler(features)
        features = self.mid_before(features, embedding)
        features = self.attention(features)
        features = self.mid_after(features, embedding)
        for block, upsampler in zip(reversed(self.up_blocks), reversed(self.upsamplers), strict=True):
            features = block(torch.cat([upsampler(features), skips.pop()], dim=1), embedding)
        features = self.detail(features, embedding)
        return self.conv_out(nn.functional.silu(self.norm_out(features)))
