"""The codec of Wan 2.2: diffusers' ``AutoencoderKLWan`` between pictures and latents of unit variance."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d, unpatchify
from torch import Tensor, nn

from mirage_sim.models.pretrained import load_pretrained

Window = tuple[slice, slice]
# of one layer of the decoder: the last frames that it saw, or the mark that it has seen only the first
Feature = Tensor | str | None
_SEEN_ONE = "Rep"  # diffusers' mark


def published_config() -> dict[str, Any]:
    """Arguments of ``AutoencoderKLWan`` that make it the codec of Wan2.2-TI2V-5B: ``vae/config.json`` as published."""
    return json.loads(Path(__file__).with_name("vae.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class DecoderState:
    """What the decoder keeps of the latent frames it has decoded.

    Nothing in it ever changes: keeping it is a snapshot, using it twice a fork.

    Attributes:
        features: per window of the picture and per layer of the decoder.
    """

    features: tuple[tuple[Feature, ...], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all features."""
        return sum(part.nbytes for window in self.features for part in window if isinstance(part, Tensor))

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by window and layer; of a layer that has seen only the first frame, an empty tensor."""
        return {
            f"{window}.{layer}": part if isinstance(part, Tensor) else torch.empty(0)
            for window, features in enumerate(self.features)
            for layer, part in enumerate(features)
            if part is not None
        }


class WanCodec(nn.Module):
    """Fulfils :class:`mirage_sim.protocols.Codec`; latents are normalised by the mean and the deviation of the config.

    Args:
        vae: in the Wan 2.2 configuration: patches, and a stride of (4, 16, 16).
        tile: height and width, in latent cells, of the windows that are coded one after the other to save memory; None
            codes the whole picture at once. Windows overlap by a quarter and are blended, which changes the picture
            a little.

    Raises:
        ValueError: if the configuration contradicts itself or ``tile`` is too small.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vae: AutoencoderKLWan, tile: tuple[int, int] | None = None):
        super().__init__()
        config: Any = vae.config
        self.channels = config.z_dim
        self.patch = config.patch_size or 1
        self.stride = (config.scale_factor_temporal, config.scale_factor_spatial, config.scale_factor_spatial)
        spatial = self.patch * 2 ** (len(config.dim_mult) - 1)
        temporal = 2 ** sum(config.temperal_downsample)
        if self.stride != (temporal, spatial, spatial):
            raise ValueError(
                f"vae: expected the stride of its layers, {(temporal, spatial, spatial)}, got {self.stride}"
            )
        if not len(config.latents_mean) == len(config.latents_std) == self.channels:
            counts = f"{len(config.latents_mean)} means and {len(config.latents_std)} deviations"
            raise ValueError(f"vae: expected {self.channels} latent means and deviations (z_dim), got {counts}")
        if tile is not None and (len(tile) != 2 or min(tile) < 4):
            raise ValueError(f"tile: expected height and width of at least 4 latent cells, got {tile}")
        self.vae = vae
        self.tile = tile
        self.layers = sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
        self.register_buffer("mean", torch.tensor(config.latents_mean).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.latents_std).view(-1, 1, 1, 1), persistent=False)

    def encode(self, video: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.Codec.encode`; float32, the mode of the posterior.

        Raises:
            ValueError: if the frames are not ``4 n + 1`` or the size is not a multiple of 16.
        """
        frames, height, width = video.shape[-3:]
        t, y, x = self.stride
        if (frames - 1) % t or height % y or width % x:
            raise ValueError(
                f"video: expected {t} n + 1 frames of multiples of {y} x {x}, got {frames} of {height} x {width}"
            )
        grid = (height // y, width // x)
        windows = self._windows(grid)
        pieces = (
            self.vae.encode(_cut(video, window, y).to(self.vae.dtype)).latent_dist.mode().float() for window in windows
        )
        return (_blend(pieces, windows, grid) - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.Codec.decode`; float32."""
        grid = (latents.shape[-2], latents.shape[-1])
        windows = self._windows(grid)
        return _blend((self._decode(_cut(latents, window)) for window in windows), windows, grid).clamp(-1, 1)

    def decode_next(self, latents: Tensor, stream: DecoderState | None = None) -> tuple[Tensor, DecoderState]:
        """Decode one latent frame as soon as it is made; frame by frame this gives the bits of :meth:`decode`.

        Args:
            latents: ``[B, C, 1, h, w]``.
            stream: after the latent frame before; None at the first. It stays as it was.

        Returns:
            Video ``[B, 3, 1, H, W]`` of the first latent frame and ``[B, 3, 4, H, W]`` of others, clamped to [-1, 1];
            and the stream after it.

        Raises:
            ValueError: if there is more than one latent frame, or the stream is of another size.
        """
        grid = (latents.shape[-2], latents.shape[-1])
        windows = self._windows(grid)
        features = stream.features if stream else ((),) * len(windows)
        if latents.shape[2] != 1:
            raise ValueError(f"latents: expected one latent frame, got {latents.shape[2]}")
        self._check_stream(features, windows, latents.shape[0])
        made = [
            self._decode_window(_cut(latents, window), before) for window, before in zip(windows, features, strict=True)
        ]
        frames = _blend((piece for piece, _ in made), windows, grid)
        return frames.clamp(-1, 1), DecoderState(tuple(after for _, after in made))

    def stream(self, tensors: dict[str, Tensor], grid: tuple[int, int]) -> DecoderState:
        """See :meth:`mirage_sim.protocols.StreamingCodec.stream`."""
        windows = self._windows(grid)
        features: list[list[Feature]] = [[None] * self.layers for _ in windows]
        try:
            for name, tensor in tensors.items():
                window, layer = name.split(".")
                features[int(window)][int(layer)] = tensor if tensor.numel() else _SEEN_ONE
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"stream: expected features of {len(windows)} windows of {self.layers} layers, got {name!r}"
            ) from error
        made = tuple(map(tuple, features))
        if not all(any(isinstance(part, Tensor) for part in window) for window in made):
            raise ValueError(f"stream: expected features of each of {len(windows)} windows, got none of some")
        self._check_stream(made, windows, 1)
        return DecoderState(made)

    def _check_stream(self, features: tuple[tuple[Feature, ...], ...], windows: list[Window], batch: int) -> None:
        expected = [(batch, row.stop - row.start, column.stop - column.start) for row, column in windows]
        # the first layer sees the latents themselves
        first = [next((part.shape for part in window if isinstance(part, Tensor)), None) for window in features]
        seen = [shape and (shape[0], *shape[-2:]) for shape in first]
        if len(seen) != len(expected) or any(was not in (None, now) for was, now in zip(seen, expected, strict=True)):
            raise ValueError(f"stream: expected one of windows (batch, h, w) {expected}, got one of {seen}")

    def _decode(self, latents: Tensor) -> Tensor:
        """All frames of one window, not clamped."""
        frames = []
        features: tuple[Feature, ...] = ()
        for latent in latents.split(1, dim=2):
            made, features = self._decode_window(latent, features)
            frames.append(made)
        return torch.cat(frames, dim=2)

    def _decode_window(self, latents: Tensor, features: tuple[Feature, ...]) -> tuple[Tensor, tuple[Feature, ...]]:
        clean = (latents * self.std + self.mean).to(self.vae.dtype)
        cache = list(features) or [None] * self.layers  # the decoder replaces entries, never what is in them
        decoded = self.vae.decoder(
            self.vae.post_quant_conv(clean), feat_cache=cache, feat_idx=[0], first_chunk=not features
        )
        return unpatchify(decoded, self.patch).float(), tuple(cache)

    def _windows(self, grid: tuple[int, int]) -> list[Window]:
        if self.tile is None:
            return [(slice(0, grid[0]), slice(0, grid[1]))]
        rows, columns = (_spans(length, tile) for length, tile in zip(grid, self.tile, strict=True))
        return [(row, column) for row in rows for column in columns]


def _spans(length: int, tile: int) -> list[slice]:
    """Equal spans that cover ``length``, each overlapping the next by a quarter or more."""
    tile = min(tile, length)
    overlap = tile // 4
    gaps = math.ceil((length - tile) / (tile - overlap))
    starts = [round(n * (length - tile) / gaps) for n in range(gaps + 1)] if gaps else [0]
    return [slice(start, start + tile) for start in starts]


def _cut(picture: Tensor, window: Window, scale: int = 1) -> Tensor:
    rows, columns = (slice(span.start * scale, span.stop * scale) for span in window)
    return picture[..., rows, columns]


def _blend(pieces: Iterable[Tensor], windows: list[Window], grid: tuple[int, int]) -> Tensor:
    """The picture that equal pieces make, one of each window; a cell of the grid may be several of theirs."""
    pieces = iter(pieces)
    first = next(pieces)
    if len(windows) == 1:
        return first
    scale = first.shape[-1] // (windows[0][1].stop - windows[0][1].start)
    weight = _ramp(first.shape[-2], scale, first)[:, None] * _ramp(first.shape[-1], scale, first)
    weights = first.new_zeros(grid[0] * scale, grid[1] * scale)
    total = first.new_zeros(*first.shape[:-2], *weights.shape)
    for piece, window in zip(chain([first], pieces), windows, strict=True):
        _cut(total, window, scale).add_(piece * weight)
        _cut(weights, window, scale).add_(weight)
    return total / weights


def _ramp(length: int, scale: int, like: Tensor) -> Tensor:
    """Weights that rise from either end over the least overlap of neighbouring windows; ``[length]``, at most 1."""
    from_end = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    overlap = max(length // scale // 4, 1) * scale
    return (torch.minimum(from_end, length - from_end) / overlap).clamp(max=1.0)


def load_codec(
    folder: str | Path, dtype: str = "float32", tile: tuple[int, int] | None = None, device: str = "cpu"
) -> WanCodec:
    """The codec in a folder as published (``vae/`` of Wan2.2-TI2V-5B for diffusers).

    Args:
        folder: with ``config.json`` and ``diffusion_pytorch_model.safetensors``.
        dtype: to compute in: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        tile: see :class:`WanCodec`.
        device: where it shall be.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a file is missing, truncated or foreign, or does not fit the others.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder with the codec of Wan 2.2 (mirage download wan5b)")
    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in precisions:
        raise ValueError(f"dtype: expected one of {sorted(precisions)}, got {dtype!r}")
    config = folder / "config.json"
    try:
        named = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{config}: expected the configuration of an AutoencoderKLWan: {error}") from error
    if named != AutoencoderKLWan.__name__:
        raise ValueError(f"{config}: expected the class AutoencoderKLWan, got {named!r}")
    vae = load_pretrained(
        AutoencoderKLWan, str(folder), torch_dtype=precisions[dtype], local_files_only=True, low_cpu_mem_usage=False
    )
    return WanCodec(vae, tile).to(device)
