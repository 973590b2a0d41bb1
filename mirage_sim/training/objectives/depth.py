"""The objective of the depth stage: metric depth of a frame, with or without remembered depth."""

import torch
from torch import Tensor

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.geometry import Camera
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.models.codec import PATCH, MiniCodec
from mirage_sim.models.depth import FARTHEST, NEAREST, MiniDepth
from mirage_sim.training.batched_memory import BatchMap
from mirage_sim.training.precision import Precision


class DepthObjective:
    """L1 loss of log depth and of its horizontal and vertical differences.

    Half of the samples get the depth that a memory of another frame of the walk shows.

    Args:
        data: recorded walks.
        codec: frozen codec that the frames are passed through, because at run time frames are generated.
        model: the depth head, trained.
        batch: samples per step.
        drift: standard deviation of the log scale of the remembered depth. The target is scaled alike: the memory's
            depth is an estimate, and agreement with it matters more than accuracy.
        latent_noise: largest standard deviation of the noise on the latents that frames are decoded from.
        gap: largest number of frames between the remembered frame and the target.
        clean: fraction of the frames that do not pass through the codec, like an episode's start image, on which the
            whole memory rests.
        error: standard deviation of the local errors of remembered log depth. 1.5 times this is smooth over four cells,
            half of it is independent per cell.
        samples_per_cell: samples per cell and axis of a memory read.
        precision: precision of the networks' arithmetic, see :class:`Precision`.

    Raises:
        ValueError: if the walks are too short for ``gap``, or the precision is unknown.
    """

    def __init__(
        self,
        data: WalkDataset,
        codec: MiniCodec,
        model: MiniDepth,
        *,
        batch: int = 16,
        drift: float = 0.05,
        latent_noise: float = 0.25,
        gap: int = 24,
        clean: float = 0.6,
        error: float = 0.02,
        samples_per_cell: int = 2,
        precision: str = "float32",
    ):
        data.check_gap(gap)
        self.data, self.codec, self.model = data, codec, model
        self.batch, self.drift, self.latent_noise, self.gap = batch, drift, latent_noise, gap
        self.clean, self.error, self.samples_per_cell = clean, error, samples_per_cell
        self.precision = Precision(precision, data.device)

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See :class:`mirage_sim.training.loop.Objective`."""
        device, count = self.data.device, self.batch
        walks = self.data.choose(count, generator)
        reach = torch.randint(1, self.gap + 1, (count,), generator=generator, device=device)
        first = torch.rand(count, generator=generator, device=device) * (self.data.length - reach)
        first = first.long()
        moments = self.data.draw(walks, torch.stack([first, first + reach], dim=1))
        grid = moments.camera.resize((self.data.size[0] // PATCH, self.data.size[1] // PATCH))
        cells = resample_depth(moments.depth[:, 0], grid.size)
        cells = cells * torch.exp(self.error * self._errors(grid.size, generator))
        nothing = torch.zeros(count, 1, *grid.size, device=device)
        view = (
            BatchMap.empty(count, 1, device).write(nothing, cells, grid[:, 0]).read(grid[:, 1], self.samples_per_cell)
        )
        known = view.surface(grid.size)[:, 0]
        remembers = (torch.arange(count, device=device) < count // 2).float()[:, None, None]
        scale = torch.exp(self.drift * torch.randn(count, 1, 1, generator=generator, device=device) * remembers)

        frames = moments.frames[:, 1]
        level = self.latent_noise * torch.rand(count, 1, 1, 1, generator=generator, device=device)
        with torch.no_grad(), self.precision():
            latents = self.codec.encode_frames(frames)
            noise = torch.randn(latents.shape, generator=generator, device=device)
            noised = self.codec.decode_frames(latents + level * noise)
        is_clean = (torch.rand(count, generator=generator, device=device) < self.clean)[:, None, None, None]
        shown = torch.where(is_clean, frames, noised.float().clamp(-1, 1))
        true = torch.log((moments.depth[:, 1] * scale).clamp(NEAREST, FARTHEST))
        camera = Camera(moments.camera.c2w[:, 1], moments.camera.K[:, 1], moments.camera.size)
        with self.precision():
            log_depth = self.model.log_depth(shown, camera, known * scale * remembers).float()

        error = log_depth - true
        edges = (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()
        with torch.no_grad():
            relative = (torch.exp(error) - 1).abs().flatten(1).mean(1)
        return {
            "loss": error.abs().mean() + edges,
            "absrel": relative[count // 2 :].mean(),
            "absrel_known": relative[: count // 2].mean(),
        }

    def _errors(self, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw errors of remembered log depth, ``[B, h, w]``, in units of ``error``."""
        height, width = (max(side // 4, 1) for side in grid)
        device = self.data.device
        smooth = torch.randn(self.batch, 1, height, width, generator=generator, device=device)
        smooth = torch.nn.functional.interpolate(smooth, grid, mode="bilinear")[:, 0]
        return 1.5 * smooth + 0.5 * torch.randn(self.batch, *grid, generator=generator, device=device)
