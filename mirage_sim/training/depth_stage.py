"""The depth stage: metric depth of a frame, alone or in agreement with what a memory knows."""

import torch
from torch import Tensor

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.geometry import Camera
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.models.codec import PATCH, MiniCodec
from mirage_sim.models.depth import FARTHEST, NEAREST, MiniDepth
from mirage_sim.training.simulated_memory import BatchMap


@torch.no_grad()
def worn_frames(codec: MiniCodec, frames: Tensor, wear: float, generator: torch.Generator) -> Tensor:
    """Frames ``[N, 3, H, W]`` as a codec decodes them, after noise of up to a standard deviation ``wear``."""
    level = wear * torch.rand(len(frames), 1, 1, 1, generator=generator)
    latents = codec.encode_frames(frames)
    return codec.decode_frames(latents + level * torch.randn(latents.shape, generator=generator)).clamp(-1, 1)


class DepthStage:
    """The loss of the depth stage.

    Args:
        data: recorded walks.
        codec: frozen; frames come as it decodes them, because at run time they are generated.
        model: what is trained.
        batch: samples per step; in half of them the depth of another frame is known where it is in view.
        drift: standard deviation of the log scale by which a known depth, and with it the answer, is off: the memory's
            own depth is an estimate, and agreeing with it matters more than being right.
        wear: largest standard deviation of noise on the latents that the frames are decoded from.
        gap: the largest number of frames between the known and the target.
    """

    def __init__(
        self,
        data: WalkDataset,
        codec: MiniCodec,
        model: MiniDepth,
        *,
        batch: int = 16,
        drift: float = 0.05,
        wear: float = 0.25,
        gap: int = 24,
    ):
        self.data, self.codec, self.model = data, codec, model
        self.batch, self.drift, self.wear, self.gap = batch, drift, wear, gap

    def __call__(self, generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        """One batch."""
        walks = torch.randint(len(self.data), (self.batch,), generator=generator)
        reach = torch.randint(1, self.gap + 1, (self.batch,), generator=generator)
        first = (torch.rand(self.batch, generator=generator) * (self.data.length - reach)).long()
        moments = self.data.draw(walks, torch.stack([first, first + reach], dim=1))
        grid = moments.camera.resize((self.data.size[0] // PATCH, self.data.size[1] // PATCH))
        cells = resample_depth(moments.depth[:, 0], grid.size)
        nothing = torch.zeros(self.batch, 1, *grid.size)
        known = BatchMap.empty(self.batch, 1).write(nothing, cells, grid[:, 0]).read(grid[:, 1]).depth[:, 0]
        remembers = (torch.arange(self.batch) < self.batch // 2).float()[:, None, None]
        scale = torch.exp(self.drift * torch.randn(self.batch, 1, 1, generator=generator) * remembers)

        frames = worn_frames(self.codec, moments.frames[:, 1], self.wear, generator)
        true = torch.log((moments.depth[:, 1] * scale).clamp(NEAREST, FARTHEST))
        camera = Camera(moments.camera.c2w[:, 1], moments.camera.K[:, 1], moments.camera.size)
        log_depth = self.model.log_depth(frames, camera, known * scale * remembers)

        error = log_depth - true
        edges = (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()
        with torch.no_grad():
            relative = (torch.exp(error) - 1).abs().flatten(1).mean(1)
        return {
            "loss": error.abs().mean() + edges,
            "absrel": relative[self.batch // 2 :].mean(),
            "absrel_known": relative[: self.batch // 2].mean(),
        }
