"""Clips as a codec sees them: encoded once, and kept on disk by what went in."""

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
    """What training needs of a clip of ``T`` latent frames.

    Attributes:
        latents: ``[C, T, h, w]``.
        depth: z-depth on the latent grid ``[T, h, w]``, metres, 0 unknown.
        camera: one per latent frame, batch shape ``[T]``, pixel size.
    """

    latents: Tensor
    depth: Tensor
    camera: Camera


class LatentClips:
    """All clips of a folder as latents of a codec; each is encoded when it is first asked for.

    A file of the cache is named after the codec and the content of the clip, so that neither another codec nor a
    clip that was recorded again finds the latents of the old one.

    Args:
        folder: holds ``*.safetensors`` clips.
        codec: encodes them.
        size: ``(height, width)`` that they must have.
        cache: folder of ``HASH.safetensors``; None for ``mirage_sim/latents`` among the user's cached files.
        device: where the codec is, and where latents are brought.

    Attributes:
        captions: of the clips, prompts that may be empty.

    Raises:
        ValueError: if there are no clips, or a file is none.
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
        """A clip, from the cache if it is there.

        Raises:
            ValueError: if its file is no whole clip, or one of another size.
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
                f"{source}: expected pictures of {list(self.size)}, got {list(clip.cameras.size)}; "
                f"mirage prepare clips 'size={list(self.size)}' makes them so"
            )
        stride, y, x = self.codec.stride
        frames = (len(clip) - 1) // stride * stride + 1  # what is over makes no latent frame
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
    """All that decides what a codec makes of a picture: its kind, how it is tiled, its weights and constants."""
    yield f"{type(codec).__name__} {codec.stride} {getattr(codec, 'tile', None)}".encode()
    if isinstance(codec, torch.nn.Module):
        for tensors in (codec.named_parameters(), codec.named_buffers()):
            for name, tensor in tensors:
                yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
                yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
