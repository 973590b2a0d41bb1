"""Training samples of the Wan2.2 stages: chunks of recorded clips, conditioned by the code of a rollout."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mirage_sim.data.latent_cache import LatentClip, LatentClips
from mirage_sim.geometry import Camera
from mirage_sim.protocols import Conditioning, MemoryView, SpatialMemory, TextEncoder
from mirage_sim.world import Horizon, References, build_conditioning, stack_references
from mirage_sim.world.history import History


class Sample(NamedTuple):
    """One chunk: its clean latents ``[1, C, T, h, w]`` and the denoiser's conditioning."""

    clean: Tensor
    conditioning: Conditioning


@dataclass(frozen=True)
class Drop:
    """Fractions of the samples, in [0, 1], from which a part of the conditioning is dropped.

    Attributes:
        text: fraction with an empty prompt.
        references: fraction without reference frames.
        preceding: fraction without preceding frames.

    Raises:
        ValueError: if a fraction is out of range.
    """

    text: float = 0.1
    references: float = 0.1
    preceding: float = 0.1

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"drop.{name}: expected a share in [0, 1], got {share}")


class ChunkSamples:
    """Draws chunks from clips. The memory holds the clip up to the chunk, at the clip's own depth and poses.

    Args:
        clips: clips to draw from.
        prompts: one prompt per clip.
        memory: memory of the world.
        horizon: length of a chunk, and number of preceding frames.
        references: selection of reference frames.
        text: encoder of the prompts.
        drop: how often parts of the conditioning are dropped.

    Raises:
        ValueError: if a prompt is too long, or chunks do not overlap.
    """

    def __init__(
        self,
        clips: LatentClips,
        prompts: Sequence[str],
        memory: SpatialMemory,
        horizon: Horizon,
        references: References,
        text: TextEncoder,
        drop: Drop,
    ):
        if not horizon.overlap:
            raise ValueError("horizon: expected chunks that overlap, as those of the Wan2.2 backbone do, got overlap 0")
        self.clips, self.prompts, self.memory = clips, prompts, memory
        self.horizon, self.references, self.text, self.drop = horizon, references, text, drop
        text.embed(sorted({"", *prompts}))  # all in one call, so that the encoder is loaded once

    def draw(self, generator: torch.Generator) -> Sample:
        """Draw one chunk of one clip.

        Raises:
            ValueError: if the clip is shorter than a chunk.
        """
        index = int(torch.randint(len(self.clips), (1,), generator=generator))
        clip, horizon = self.clips[index], self.horizon
        most = clip.latents.shape[1] - horizon.latents
        if most < 0:
            raise ValueError(
                f"{self.clips.paths[index]}: expected at least {horizon.latents} latent frames, "
                f"got {clip.latents.shape[1]}"
            )
        start = int(torch.randint(most + 1, (1,), generator=generator))
        without_text, without_references, without_preceding = (
            float(torch.rand(1, generator=generator)) < share
            for share in (self.drop.text, self.drop.references, self.drop.preceding)
        )
        before = max(0, start - horizon.preceding)
        map = self._write(self.memory.empty(), clip, 0, before)
        readout = torch.zeros_like(clip.latents[:, : start + 1])  # only that of the preceding frames is used
        if before < start:
            readout[:, before:start] = self._read(map, clip, before, start).latents
        history = self._history(clip, readout)
        view = self._read(self._write(map, clip, before, start + 1), clip, start, start + horizon.latents)
        chunk, shown = slice(start, start + horizon.latents), slice(start if without_preceding else before, start)
        references = clip.latents[:, :0] if without_references else self._references(history, view, clip.camera[chunk])
        conditioning = build_conditioning(
            MemoryView.stack([view]),
            clip.latents[None, :, shown],
            clip.camera[start : start + 1],
            Camera.stack([clip.camera[chunk]]),
            first=clip.latents[None, :, start : start + 1],
            references=references[None],
            preceding_readout=history.readout[None, :, shown.start - before : -1],
            text=self.text.embed(["" if without_text else self.prompts[index]]).to(clip.latents.device),
        )
        return Sample(clip.latents[None, :, chunk], conditioning)

    def _write(self, map: object, clip: LatentClip, start: int, end: int) -> object:
        """Return the map with latent frames ``start`` to ``end`` of a clip written to it."""
        if start == end:
            return map
        camera = clip.camera[start:end]
        depth = _to_pixels(clip.depth[start:end], camera.size)
        return self.memory.write(
            map,
            latents=clip.latents[:, start:end],
            frames=depth.new_zeros(()).expand(3, *depth.shape),  # a latent memory does not use them
            depth=depth,
            static=torch.ones_like(depth, dtype=torch.bool),
            camera=camera,
        )

    def _read(self, map: object, clip: LatentClip, start: int, end: int) -> MemoryView:
        height, width = clip.depth.shape[-2:]
        return self.memory.read(map, clip.camera[start:end]).resize((height, width))

    def _history(self, clip: LatentClip, readout: Tensor) -> History:
        """Return the history of a rollout that generated the clip's first T frames, with ``readout [C, T, h, w]``."""
        count = readout.shape[1]
        places = self.references.places(clip.depth[:count], clip.camera[:count])
        empty = History(None, readout[:, :0])
        return empty.extend(clip.latents[:, :count], readout, places, None, self.horizon.window)

    def _references(self, history: History, view: MemoryView, camera: Camera) -> Tensor:
        """Latents ``[C, R, h, w]`` of the earlier frames that overlap most with the new frames of the chunk."""
        new = slice(self.horizon.overlap, None)
        chosen = self.references.choose(
            self.references.place(view.at(new).depth, camera[new]), [frame.place for frame in history.earlier]
        )
        return stack_references([history.earlier[i].latents for i in chosen], view.latents)


def _to_pixels(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat the depth of cells ``[T, h, w]`` at all of their pixels, ``[T, *size]``, as a memory write expects it."""
    rows, columns = size[0] // depth.shape[-2], size[1] // depth.shape[-1]
    return depth.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
