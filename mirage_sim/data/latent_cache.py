"""Latents of clips, encoded once and cached on disk."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.data.clips import load_clip, load_source
from mirage_sim.geometry import Camera
from mirage_sim.io import atomic_write, open_tensors
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.paths import user_cache
from mirage_sim.protocols import Codec

logger = logging.getLogger(__name__)

_FIELDS = ("latents", "depth", "c2w", "K")


@dataclass(frozen=True)
class LatentClip:
    """A clip of ``T`` latent frames.

    Attributes:
        latents: ``[C, T, h, w]``.
        depth: z-depth on the latent grid ``[T, h, w]``, metres, 0 unknown.
        camera: one per latent frame, batch shape ``[T]``, pixel size.
    """

    latents: Tensor
    depth: Tensor
    camera: Camera


class LatentClips:
    """The clips of a folder as latents of a codec; each is encoded on first use.

    A file of the cache is named by a hash of the codec and the content of the clip, so another codec or another
    recording never gets outdated latents.

    Args:
        folder: of ``*.safetensors`` clips.
        codec: encodes the clips.
        size: expected ``(height, width)`` of the clips.
        cache: folder for ``HASH.safetensors``; None for ``mirage_sim/latents`` in the user's cache folder.
        device: of the codec and of the latents.

    Attributes:
        captions: prompts of the clips; they may be empty.

    Raises:
        ValueError: if there are no clips, or a file is no clip.
    """

    def __init__(
        self,
        folder: Path,
        codec: Codec,
        size: tuple[int, int],
        cache: Path | None = None,
        device: torch.device | str = "cpu",
    ):
        self.paths = sorted(folder.glob("*.safetensors"))
        if not self.paths:
            raise ValueError(
                f"{folder}: expected clips (*.safetensors); make some with mirage prepare or mirage record"
            )
        self.codec, self.size, self.device = codec, tuple(size), device
        self.cache = user_cache("latents") if cache is None else cache
        self.captions = [load_source(path).get("caption", "") for path in self.paths]
        self._codec_digest = _digest(_describe(codec))
        self._files: dict[int, Path] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LatentClip:
        """Return a clip from the cache, or encode it.

        Raises:
            ValueError: if its file is no clip or has another size.
        """
        if index not in self._files:
            content = self.paths[index].read_bytes()
            self._files[index] = self.cache / f"{_digest([self._codec_digest.encode(), content])}.safetensors"
        path = self._files[index]
        if not path.exists():
            self._encode(self.paths[index], path)
        try:
            return self._read(path)
        except ValueError as error:
            logger.warning("%s; it is encoded again", error)
            self._encode(self.paths[index], path)
            return self._read(path)

    def _read(self, path: Path) -> LatentClip:
        with open_tensors(path) as file:
            latents, depth, c2w, K = (file.get_tensor(name).float().to(self.device) for name in _FIELDS)
            camera = Camera(c2w, K.expand(len(c2w), 3, 3), (self.size[0], self.size[1]))
            return LatentClip(latents, depth, camera)

    @torch.no_grad()
    def _encode(self, source: Path, path: Path) -> None:
        clip = load_clip(source)
        if clip.cameras.size != self.size:
            raise ValueError(
                f"{source}: expected images of {list(self.size)}, got {list(clip.cameras.size)}; "
                f"resize the clips with: mirage prepare clips 'size={list(self.size)}'"
            )
        stride, y, x = self.codec.stride
        frames = (len(clip) - 1) // stride * stride + 1  # further frames are no whole latent frame
        video = clip.frames[:frames].permute(3, 0, 1, 2)[None].to(self.device).float() / 127.5 - 1.0
        latents = self.codec.encode(video)[0]
        depth = resample_depth(clip.depth[:frames:stride].float(), (self.size[0] // y, self.size[1] // x))
        tensors = {"latents": latents.half().cpu(), "depth": depth, "c2w": clip.c2w[:frames:stride], "K": clip.K}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            save_file({name: tensors[name].contiguous() for name in _FIELDS}, partial, {"clip": source.name})


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _describe(codec: Codec) -> Iterable[bytes]:
    """Yield all that determines the latents of a codec: its type, stride, tiling, weights and constants."""
    yield f"{type(codec).__name__} {codec.stride} {getattr(codec, 'tile', None)}".encode()
    if isinstance(codec, torch.nn.Module):
        for tensors in (codec.named_parameters(), codec.named_buffers()):
            for name, tensor in tensors:
                yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
                yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
