"""The codec of Wan 2.2: diffusers' ``AutoencoderKLWan`` with normalised latents, tiling and streaming."""

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

from mirage_sim.models.checkpoints import parse_dtype
from mirage_sim.models.pretrained import load_pretrained

Window = tuple[slice, slice]
# cache of one decoder layer: its last input frames, or _SEEN_ONE
Feature = Tensor | str | None
_SEEN_ONE = "Rep"  # diffusers' value for layers that have processed only the first frame


def published_config() -> dict[str, Any]:
    """Arguments of ``AutoencoderKLWan`` for the codec of Wan2.2-TI2V-5B, as published in ``vae/config.json``."""
    return json.loads(Path(__file__).with_name("vae.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class DecoderState:
    """Immutable state of the causal decoder after some latent frames.

    Attributes:
        features: caches per window of the image and layer of the decoder.
    """

    features: tuple[tuple[Feature, ...], ...]

    @property
    def nbytes(self) -> int:
        """Size of all features in bytes."""
        return sum(part.nbytes for window in self.features for part in window if isinstance(part, Tensor))

    def tensors(self) -> dict[str, Tensor]:
        """Return the features by name (window and layer). Layers that processed only one frame give empty tensors."""
        return {
            f"{window}.{layer}": part if isinstance(part, Tensor) else torch.empty(0)
            for window, features in enumerate(self.features)
            for layer, part in enumerate(features)
            if part is not None
        }


class WanCodec(nn.Module):
    """The codec of Wan 2.2. Implements :class:`mirage_sim.protocols.Codec`.

    Latents are normalised with the means and standard deviations of the configuration.

    Args:
        vae: an autoencoder in the Wan 2.2 configuration: patches, and a stride of (4, 16, 16).
        tile: height and width, in latent cells, of windows that are coded one after the other to save memory; None
            codes the whole image at once. Windows overlap by a quarter and are blended, which changes the image
            slightly.

    Raises:
        ValueError: if the configuration is inconsistent or ``tile`` is too small.
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
        """See :meth:`mirage_sim.protocols.Codec.encode`. Returns the mode of the posterior in float32.

        Raises:
            ValueError: if the number of frames is not ``4 n + 1`` or the size is not a multiple of 16.
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
        """See :meth:`mirage_sim.protocols.Codec.decode`. Returns float32."""
        grid = (latents.shape[-2], latents.shape[-1])
        windows = self._windows(grid)
        return _blend((self._decode(_cut(latents, window)) for window in windows), windows, grid).clamp(-1, 1)

    def decode_next(self, latents: Tensor, stream: DecoderState | None = None) -> tuple[Tensor, DecoderState]:
        """Decode the next latent frame. Frame by frame this equals :meth:`decode` bit for bit.

        Args:
            latents: one latent frame ``[B, C, 1, h, w]``.
            stream: state after the previous latent frame; None at the first. It does not change.

        Returns:
            Video ``[B, 3, 1, H, W]`` for the first latent frame and ``[B, 3, 4, H, W]`` for others, clamped to [-1, 1],
            and the new state.

        Raises:
            ValueError: if there is more than one latent frame, or the state has another size.
        """
        grid = (latents.shape[-2], latents.shape[-1])
        windows = self._windows(grid)
        features = stream.features if stream else ((),) * len(windows)
        if latents.shape[2] != 1:
            raise ValueError(f"latents: expected one latent frame, got {latents.shape[2]}")
        self._check_stream(features, windows, latents.shape[0])
        decoded = [
            self._decode_window(_cut(latents, window), cache) for window, cache in zip(windows, features, strict=True)
        ]
        frames = _blend((piece for piece, _ in decoded), windows, grid)
        return frames.clamp(-1, 1), DecoderState(tuple(cache for _, cache in decoded))

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
        state = DecoderState(tuple(map(tuple, features)))
        if not all(any(isinstance(part, Tensor) for part in window) for window in features):
            raise ValueError(f"stream: expected features of each of {len(windows)} windows, got none of some")
        self._check_stream(state.features, windows, 1)
        return state

    def _check_stream(self, features: tuple[tuple[Feature, ...], ...], windows: list[Window], batch: int) -> None:
        expected = [(batch, row.stop - row.start, column.stop - column.start) for row, column in windows]
        # the first layer caches the latents themselves
        first = [next((part.shape for part in window if isinstance(part, Tensor)), None) for window in features]
        got = [shape and (shape[0], *shape[-2:]) for shape in first]
        if len(got) != len(expected) or any(a not in (None, b) for a, b in zip(got, expected, strict=True)):
            raise ValueError(f"stream: expected one of windows (batch, h, w) {expected}, got one of {got}")

    def _decode(self, latents: Tensor) -> Tensor:
        """Decode all frames of one window, not clamped."""
        frames = []
        features: tuple[Feature, ...] = ()
        for latent in latents.split(1, dim=2):
            decoded, features = self._decode_window(latent, features)
            frames.append(decoded)
        return torch.cat(frames, dim=2)

    def _decode_window(self, latents: Tensor, features: tuple[Feature, ...]) -> tuple[Tensor, tuple[Feature, ...]]:
        clean = (latents * self.std + self.mean).to(self.vae.dtype)
        cache = list(features) or [None] * self.layers  # the decoder replaces entries, but does not modify them
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
    """Cover ``length`` with spans of equal size that overlap by at least a quarter."""
    tile = min(tile, length)
    overlap = tile // 4
    gaps = math.ceil((length - tile) / (tile - overlap))
    starts = [round(n * (length - tile) / gaps) for n in range(gaps + 1)] if gaps else [0]
    return [slice(start, start + tile) for start in starts]


def _cut(image: Tensor, window: Window, scale: int = 1) -> Tensor:
    rows, columns = (slice(span.start * scale, span.stop * scale) for span in window)
    return image[..., rows, columns]


def _blend(pieces: Iterable[Tensor], windows: list[Window], grid: tuple[int, int]) -> Tensor:
    """Blend pieces of equal size, one per window, into an image. A grid cell is one or more pixels of a piece."""
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
    """Weights ``[length]`` that rise from both ends to 1 over the smallest overlap of neighbouring windows."""
    from_end = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    overlap = max(length // scale // 4, 1) * scale
    return (torch.minimum(from_end, length - from_end) / overlap).clamp(max=1.0)


def load_codec(
    folder: str | Path, dtype: str = "float32", tile: tuple[int, int] | None = None, device: str = "cpu"
) -> WanCodec:
    """Load the codec from a folder in diffusers' layout (``vae/`` of Wan2.2-TI2V-5B).

    Args:
        folder: folder with ``config.json`` and ``diffusion_pytorch_model.safetensors``.
        dtype: type of the arithmetic: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        tile: see :class:`WanCodec`.
        device: device of the codec.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a file is missing, truncated or of another kind, or weights and configuration do not match.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder with the codec of Wan 2.2 (mirage download wan5b)")
    weight_dtype = parse_dtype("dtype", dtype)
    config = folder / "config.json"
    try:
        class_name = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{config}: expected the configuration of an AutoencoderKLWan: {error}") from error
    if class_name != AutoencoderKLWan.__name__:
        raise ValueError(f"{config}: expected the class AutoencoderKLWan, got {class_name!r}")
    vae = load_pretrained(
        AutoencoderKLWan, str(folder), torch_dtype=weight_dtype, local_files_only=True, low_cpu_mem_usage=False
    )
    return WanCodec(vae, tile).to(device)
