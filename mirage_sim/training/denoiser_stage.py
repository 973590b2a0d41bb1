"""The denoiser stage: flow matching on latents, conditioned on what a memory would show."""

import logging

import torch
from torch import Tensor

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.geometry import Camera
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.models.codec import PATCH, MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser
from mirage_sim.protocols import MemoryView
from mirage_sim.training.codec_stage import picture_loss, surrounded
from mirage_sim.training.simulated_memory import BatchMap
from mirage_sim.world.conditioning import build_conditioning

logger = logging.getLogger(__name__)


@torch.inference_mode()
def encode_walks(data: WalkDataset, codec: MiniCodec) -> Tensor:
    """Latents of every recorded frame, float16 ``[walks, frames, C, h, w]``."""
    height, width = data.size
    latents = torch.empty(len(data), data.length, codec.channels, height // PATCH, width // PATCH, dtype=torch.float16)
    for walk in range(len(data)):
        frames = data.frames[walk].permute(0, 3, 1, 2).float() / 127.5 - 1.0
        latents[walk] = codec.encode_frames(frames).half()
    logger.info("encoded %d frames", latents.shape[0] * latents.shape[1])
    return latents


def render_colours(codec: MiniCodec, view: MemoryView) -> MemoryView:
    """An RGB memory's view on the pixel grid as the denoiser gets it: encoded, on the latent grid."""
    pixels = view.latents[:, :, 0]
    share = torch.nn.functional.avg_pool2d(view.visible.float(), PATCH)
    visible = share >= 0.5
    nearest = torch.where(view.visible, view.depth, torch.inf)
    depth = -torch.nn.functional.max_pool2d(-nearest, PATCH)
    depth = torch.where(visible, depth, 0.0)
    with torch.no_grad():
        latents = codec.encode_frames(pixels)[:, :, None] * visible[:, None]
    zeros = torch.zeros_like(depth)
    return MemoryView(latents, visible, depth, visible.long() - 1, torch.stack([zeros, zeros], dim=1), zeros)


class DenoiserStage:
    """The loss of the denoiser stage.

    Each sample is one step of an episode: a memory written at a start frame, at up to two frames on the way and at the
    preceding frame; what it shows at the target's camera; and the target. A share of the batch reads an RGB memory and
    some read an empty one, so that one network serves the baselines too.

    Args:
        data: recorded walks.
        codec: frozen.
        model: what is trained.
        batch: samples per step.
        rgb_share, empty_share: of the batch; the rest reads latent memory.
        gap: the largest number of frames between start and target.
        wear: largest standard deviation of noise on latents that, at run time, are generated: those written after the
            start, and the preceding ones.
    """

    def __init__(
        self,
        data: WalkDataset,
        codec: MiniCodec,
        model: MiniDenoiser,
        *,
        batch: int = 12,
        rgb_share: float = 0.42,
        empty_share: float = 0.16,
        gap: int = 28,
        wear: float = 0.25,
    ):
        self.data, self.codec, self.model = data, codec, model
        self.batch, self.gap, self.wear = batch, gap, wear
        self.rgb = round(batch * rgb_share)
        self.empty = round(batch * empty_share)
        self.latents = encode_walks(data, codec)

    def _times(self, generator: torch.Generator) -> Tensor:
        """Frames ``[B, 5]`` of each sample: start, two on the way, preceding, target; in walking or reverse order."""
        reach = torch.randint(1, self.gap + 1, (self.batch,), generator=generator)
        start = (torch.rand(self.batch, generator=generator) * (self.data.length - reach)).long()
        fractions = torch.rand(self.batch, 2, generator=generator).sort(dim=1).values
        between = (fractions * reach[:, None]).long()
        steps = torch.cat([torch.zeros_like(reach)[:, None], between, (reach - 1)[:, None], reach[:, None]], dim=1)
        forward = torch.rand(self.batch, generator=generator)[:, None] < 0.5
        return torch.where(forward, start[:, None] + steps, (start + reach)[:, None] - steps)

    def _latent_view(self, latents: Tensor, depth: Tensor, grid: Camera) -> MemoryView:
        memory = BatchMap.empty(len(latents), latents.shape[2])
        for moment in range(4):
            memory = memory.write(latents[:, moment], depth[:, moment], grid[:, moment])
        return memory.read(grid[:, 4])

    def _rgb_view(self, frames: Tensor, depth: Tensor, camera: Camera) -> MemoryView:
        memory = BatchMap.empty(len(frames), 3)
        for moment in (0, 3):
            memory = memory.write(frames[:, moment], depth[:, moment], camera[:, moment])
        return render_colours(self.codec, memory.read(camera[:, 4]))

    def __call__(self, generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        """One batch."""
        walks = torch.randint(len(self.data), (self.batch,), generator=generator)
        times = self._times(generator)
        moments = self.data.draw(walks, times)
        clean = self.latents[walks[:, None], times].float()
        worn = clean.clone()
        level = self.wear * torch.rand(self.batch, 1, 1, 1, 1, generator=generator)
        worn[:, 1:4] += level * torch.randn(worn[:, 1:4].shape, generator=generator)

        grid = moments.camera.resize((clean.shape[-2], clean.shape[-1]))
        views = []
        with torch.no_grad():
            first = self.batch - self.rgb
            depth = resample_depth(moments.depth[:first], grid.size)
            views.append(self._latent_view(worn[:first], depth, grid[:first]))
            views.append(self._rgb_view(moments.frames[first:], moments.depth[first:], moments.camera[first:]))
        fields = MemoryView.__dataclass_fields__
        view = MemoryView(*(torch.cat([getattr(part, name) for part in views]) for name in fields))
        shown = torch.arange(self.batch) >= self.empty
        view = MemoryView(
            *(
                torch.where(shown.view(-1, *[1] * (getattr(view, name).ndim - 1)), getattr(view, name), filler)
                for name, filler in zip(fields, (0.0, False, 0.0, -1, 0.0, 0.0), strict=True)
            )
        )
        cameras = moments.camera[:, 4]
        chunk = Camera(cameras.c2w[:, None], cameras.K[:, None], cameras.size)
        conditioning = build_conditioning(view, worn[:, 3][:, :, None], moments.camera[:, 3], chunk)
        return self._flow_loss(clean[:, 4], moments.frames[:, 4], self.model.condition(conditioning), view, generator)

    def _flow_loss(self, clean, frames, condition, view, generator) -> dict[str, Tensor]:
        """Weighted error of the predicted clean latents, and of the decoded picture where it is determined."""
        sigma = torch.rand(self.batch, generator=generator)
        sigma = torch.where(torch.rand(self.batch, generator=generator) < 0.4, 1.0, sigma.clamp(min=0.02))
        s = sigma[:, None, None, None]
        noisy = (1 - s) * clean + s * torch.randn(clean.shape, generator=generator)
        predicted = self.model.predict_clean(noisy, sigma, condition)
        # the weight of a velocity loss, capped where the noise is so small that copying x is the answer
        squared = ((predicted - clean).square() * (1 / s**2).clamp(max=8.0)).mean()

        drawn = slice(0, None, 2)
        determined = torch.maximum(surrounded(view.visible[drawn]), 1 - s[drawn])
        generated = self.codec.decode_frames(predicted[drawn])
        picture = picture_loss(generated, frames[drawn], determined)
        with torch.no_grad():
            blind = (sigma[drawn] == 1.0)[:, None, None, None]
            weight = surrounded(view.visible[drawn]) * blind
            error = ((generated - frames[drawn]).square().mean(1, keepdim=True) * weight).sum()
            seen_psnr = -10 * torch.log10(error / weight.sum().clamp(min=1) / 4 + 1e-5)
        return {"loss": squared + picture, "latent": squared, "picture": picture, "seen_psnr": seen_psnr}
