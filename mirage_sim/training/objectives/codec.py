"""The objective of the codec stage: codec and aligner together, so that *warped* latents decode to a warped image."""

import torch
from torch import Tensor, nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.geometry import cells_of
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.denoiser import ReadoutAligner
from mirage_sim.training.batched_memory import BatchMap
from mirage_sim.training.precision import Precision


def image_loss(generated: Tensor, true: Tensor, weight: Tensor | None = None) -> Tensor:
    """L1 loss of the pixels plus L1 loss of their horizontal and vertical differences, which penalises blur.

    Args:
        generated: generated images ``[N, 3, H, W]``.
        true: true images of the same shape.
        weight: weights ``[N, 1, H, W]``, or on a coarser grid; None weights all pixels equally.
    """
    error = generated - true
    weight = torch.ones_like(error[:, :1]) if weight is None else weight
    weight = nn.functional.interpolate(weight, error.shape[-2:])
    total = weight.sum().clamp(min=1.0)
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean(1, keepdim=True) * weight[..., 1:, :]
    right = (error[..., 1:] - error[..., :-1]).abs().mean(1, keepdim=True) * weight[..., 1:]
    level = error.abs().mean(1, keepdim=True) * weight
    return (level.sum() + down.sum() + right.sum()) / total


def mostly_visible(visible: Tensor) -> Tensor:
    """Return weights of the shape of ``visible [N, 1, h, w]``: 1 where over 45 % of the 3x3 neighbourhood is visible.

    This includes the one-cell gaps that open between points when the camera approaches, but not areas beyond an edge.
    """
    share = nn.functional.avg_pool2d(visible.float(), 3, stride=1, padding=1)
    return (share > 0.45).float()


def to_float_images(images: Tensor) -> Tensor:
    """Convert images uint8 ``[N, H, W, 3]`` to float32 ``[N, 3, H, W]`` in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


class CodecObjective:
    """Reconstruction loss of frames, and of target frames that are read from a memory of two other frames.

    Args:
        data: recorded walks.
        codec: the codec, trained.
        aligner: the read-out aligner, trained.
        batch: samples per step. Each consists of two frames to remember and one target frame of the same walk.
        noise: standard deviation of the noise that is added to latents before decoding. It keeps the effect of small
            denoiser errors on the image small.
        gap: largest number of frames between the first remembered frame and the target.
        photographs: images uint8 ``[N, H, W, 3]`` of the walks' size that are only reconstructed; None for none.
        photograph_share: fraction of the batch that is drawn from ``photographs``, if there are any.
        precision: precision of the networks' arithmetic, see :class:`Precision`.

    Raises:
        ValueError: if the walks are too short for ``gap``, or the precision is unknown.
    """

    def __init__(
        self,
        data: WalkDataset,
        codec: MiniCodec,
        aligner: ReadoutAligner,
        *,
        batch: int = 8,
        noise: float = 0.1,
        gap: int = 24,
        photographs: Tensor | None = None,
        photograph_share: float = 0.3,
        precision: str = "float32",
    ):
        data.check_gap(gap)
        self.data, self.codec, self.aligner = data, codec, aligner
        self.photographs = None if photographs is None else photographs.to(data.device)
        self.precision = Precision(precision, data.device)
        self.photograph_count = 0 if photographs is None else round(batch * photograph_share)
        self.batch, self.noise, self.gap = batch - self.photograph_count, noise, gap

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See :class:`mirage_sim.training.loop.Objective`."""
        device = self.data.device

        def uniform() -> Tensor:
            return torch.rand(self.batch, generator=generator, device=device)

        walks = self.data.choose(self.batch, generator)
        reach = torch.randint(1, self.gap + 1, (self.batch,), generator=generator, device=device)
        first = (uniform() * (self.data.length - reach)).long()
        between = first + (uniform() * reach).long()
        target = first + reach
        # the memory must work in both directions of time
        flip = uniform() < 0.5
        first, target = torch.where(flip, target, first), torch.where(flip, first, target)
        moments = self.data.draw(walks, torch.stack([first, between, target], dim=1))

        latents = self._encode(moments.frames.flatten(0, 1)).unflatten(0, (self.batch, 3))
        grid = moments.camera.resize((latents.shape[-2], latents.shape[-1]))
        depth = resample_depth(moments.depth, grid.size)
        memory = BatchMap.empty(self.batch, latents.shape[2], device)
        for moment in (0, 1):
            memory = memory.write(latents[:, moment], depth[:, moment], grid[:, moment])
        view = memory.read(grid[:, 2], self.aligner.samples_per_cell)
        with self.precision():
            aligned, _, _ = self.aligner(view, grid.size)

        true, targets, encoded = moments.frames[:, 2], moments.frames[:, 2], latents[:, 2]
        if self.photographs is not None:
            photographs = self._draw_photographs(self.photographs, generator)
            targets, encoded = torch.cat([targets, photographs]), torch.cat([encoded, self._encode(photographs)])
        noised = torch.cat([encoded, aligned.float()])
        noised = noised + self.noise * torch.randn(noised.shape, generator=generator, device=device)
        with self.precision():
            decoded = self.codec.decode_frames(noised).float()
        reconstructed, warped = decoded.split([len(encoded), self.batch])
        weight = mostly_visible(view.resize(grid.size).visible)
        reconstruction = image_loss(reconstructed, targets)
        warp = image_loss(warped, true, weight)
        with torch.no_grad():
            psnr = -10 * torch.log10((reconstructed - targets).square().mean() / 4)
            squared = cells_of((warped - true).square().mean(1), grid.size).mean(-1)[:, None] * weight
            warp_psnr = -10 * torch.log10(squared.sum() / weight.sum().clamp(min=1) / 4)
        return {
            "loss": reconstruction + 0.7 * warp,
            "psnr": psnr,
            "warp_psnr": warp_psnr,
            "seen": weight.mean(),
        }

    def _encode(self, frames: Tensor) -> Tensor:
        with self.precision():
            return self.codec.encode_frames(frames).float()

    def _draw_photographs(self, photographs: Tensor, generator: torch.Generator) -> Tensor:
        """Draw ``photograph_count`` of them, ``[N, 3, H, W]`` in [-1, 1]."""
        count = (self.photograph_count,)
        return to_float_images(
            photographs[torch.randint(len(photographs), count, generator=generator, device=photographs.device)]
        )
