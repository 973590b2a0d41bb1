"""The mini codec: frames to latents at a quarter of the resolution, and back."""

import math

import torch
from torch import Tensor, nn

from mirage_sim.models.layers import PointwiseConv, channels_last, residual_stack, zero_conv

PATCH = 4
BOUND = 3.0  # latents are in (-3, 3)


def transform_basis(channels: int) -> tuple[Tensor, Tensor]:
    """Compute analysis and synthesis matrices of a small image transform, with which the codec is initialised.

    The transform combines orthonormal colour axes (grey, red-blue, green-magenta) with the 4x4 discrete cosine
    transform. It keeps the ``channels`` lowest frequencies, grey before colour, scaled to about unit variance on indoor
    images.

    Returns:
        Matrices ``[channels, 48]`` and ``[48, channels]``; their product is a projection.
    """
    k = torch.arange(PATCH, dtype=torch.float64)
    cosine = torch.cos(math.pi / PATCH * (k + 0.5) * k[:, None]) * math.sqrt(2 / PATCH)
    cosine[0] /= math.sqrt(2)
    colour = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    colour = colour / colour.norm(dim=1, keepdim=True)
    # colour costs as much as two steps of frequency, because images have far less energy in it
    costs = [(v * v + u * u + 4.0 * (c > 0), c, v, u) for c in range(3) for v in range(PATCH) for u in range(PATCH)]
    rows, scales = [], []
    for _, c, v, u in sorted(costs)[:channels]:
        rows.append(torch.einsum("c,y,x->cyx", colour[c], cosine[v], cosine[u]).flatten())
        scales.append((0.25 if v + u == 0 else 2.5) * (1.0 if c == 0 else 2.5))
    basis = torch.stack(rows)
    scale = torch.tensor(scales, dtype=torch.float64)[:, None]
    return (basis * scale).float(), (basis / scale).T.float()


class MiniCodec(nn.Module):
    """A convolutional autoencoder that works at latent resolution (it starts with a pixel-unshuffle, as Wan 2.2 does).

    Implements :class:`mirage_sim.protocols.Codec` with stride (1, 4, 4): each frame is coded independently. Encoder and
    decoder are each the sum of a linear transform, initialised with :func:`transform_basis`, and a network that is
    initialised to zero.

    Args:
        channels: latent channels.
        encoder_width: channels of the encoder network.
        encoder_depth: residual blocks of the encoder network.
        decoder_width: channels of the decoder network.
        decoder_depth: residual blocks of the decoder network.
    """

    stride = (1, PATCH, PATCH)

    def __init__(
        self,
        channels: int = 16,
        encoder_width: int = 48,
        encoder_depth: int = 2,
        decoder_width: int = 64,
        decoder_depth: int = 3,
    ):
        super().__init__()
        self.channels = channels
        self.config = {
            "channels": channels,
            "encoder_width": encoder_width,
            "encoder_depth": encoder_depth,
            "decoder_width": decoder_width,
            "decoder_depth": decoder_depth,
        }
        pixels = 3 * PATCH * PATCH
        self.encoder = nn.Sequential(
            nn.Conv2d(pixels, encoder_width, 3, padding=1),
            residual_stack(encoder_width, encoder_depth),
            zero_conv(encoder_width, channels),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, decoder_width, 3, padding=1),
            residual_stack(decoder_width, decoder_depth),
            zero_conv(decoder_width, pixels),
        )
        self.analysis = PointwiseConv(pixels, channels, 1)
        self.synthesis = PointwiseConv(channels, pixels, 1)
        for linear, matrix in zip((self.analysis, self.synthesis), transform_basis(channels), strict=True):
            linear.load_state_dict({"weight": matrix[..., None, None], "bias": torch.zeros(len(matrix))})
        channels_last(self)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode frames ``[N, 3, H, W]`` in [-1, 1] to latents ``[N, C, H/4, W/4]`` in (-3, 3)."""
        patches = nn.functional.pixel_unshuffle(frames, PATCH).contiguous(memory_format=torch.channels_last)
        return BOUND * torch.tanh((self.analysis(patches) + self.encoder(patches)) / BOUND)

    def decode_frames(self, latents: Tensor) -> Tensor:
        """Decode latents ``[N, C, h, w]`` to frames ``[N, 3, 4h, 4w]``, not clamped (training needs the gradient)."""
        latents = latents.contiguous(memory_format=torch.channels_last)
        return nn.functional.pixel_shuffle(self.synthesis(latents) + self.decoder(latents), PATCH)

    def encode(self, video: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.Codec.encode`."""
        batch = video.shape[0]
        frames = video.transpose(1, 2).flatten(0, 1)
        return self.encode_frames(frames).unflatten(0, (batch, -1)).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.Codec.decode`."""
        batch = latents.shape[0]
        frames = self.decode_frames(latents.transpose(1, 2).flatten(0, 1)).clamp(-1, 1)
        return frames.unflatten(0, (batch, -1)).transpose(1, 2)
