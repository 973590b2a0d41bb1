"""The denoiser stage: flow matching on latents, conditioned on what a memory would show."""

import logging

import torch
from torch import Tensor

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.geometry import Camera
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.memory.rgb_memory import encode_rendering
from mirage_sim.models.codec import PATCH, MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser, PreparedCondition
from mirage_sim.models.sampler import FlowSampler
from mirage_sim.protocols import Conditioning, MemoryView
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
        own_from: part of the training after which, in half of the batches, the preceding frame is not the true one but
            the model's own, sampled from what its memory shows: it must learn to go on from its own pictures.
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
        own_from: float = 0.35,
    ):
        self.data, self.codec, self.model = data, codec, model
        self.batch, self.gap, self.wear, self.own_from = batch, gap, wear, own_from
        self.sampler = FlowSampler(steps=2, shift=0.02)  # one to draw, one to polish
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

    def _views(self, latent_memory: BatchMap, rgb_memory: BatchMap, camera: Camera) -> MemoryView:
        """What the two kinds of memory show to cameras of batch shape ``[B]``, some samples made blind."""
        height, width = self.data.size
        first = self.batch - self.rgb
        grid = (height // PATCH, width // PATCH)
        parts = (
            latent_memory.read(camera[:first].resize(grid)),
            encode_rendering(self.codec, rgb_memory.read(camera[first:]), grid),
        )
        shown = torch.arange(self.batch) >= self.empty
        fields = []
        for name, filler in zip(MemoryView.__dataclass_fields__, (0.0, False, 0.0, -1, 0.0, 0.0), strict=True):
            values = torch.cat([getattr(part, name) for part in parts])
            fields.append(torch.where(shown.view(-1, *[1] * (values.ndim - 1)), values, filler))
        return MemoryView(*fields)

    def _conditioning(self, view: MemoryView, preceding: Tensor, last: Camera, camera: Camera) -> Conditioning:
        chunk = Camera(camera.c2w[:, None], camera.K[:, None], camera.size)
        return build_conditioning(view, preceding[:, :, None], last, chunk)

    def __call__(self, generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        """One batch."""
        walks = torch.randint(len(self.data), (self.batch,), generator=generator)
        times = self._times(generator)
        frames, depth, camera = self.data.draw(walks, times)
        clean = self.latents[walks[:, None], times].float()
        worn = clean.clone()
        level = self.wear * torch.rand(self.batch, 1, 1, 1, 1, generator=generator)
        worn[:, 1:4] += level * torch.randn(worn[:, 1:4].shape, generator=generator)
        own = progress > self.own_from and torch.rand(1, generator=generator).item() < 0.5

        first = self.batch - self.rgb
        grid = camera.resize((clean.shape[-2], clean.shape[-1]))
        cells = resample_depth(depth, grid.size)
        with torch.no_grad():
            latent_memory = BatchMap.empty(first, self.codec.channels)
            for moment in range(3):
                at = (slice(first), moment)
                latent_memory = latent_memory.write(worn[at], cells[at], grid[at])
            at = (slice(first, None), 0)
            rgb_memory = BatchMap.empty(self.rgb, 3).write(frames[at], depth[at], camera[at])
            preceding, pictures = worn[:, 3], frames[first:, 3]
            if own:
                view = self._views(latent_memory, rgb_memory, camera[:, 3])
                condition = self.model.condition(self._conditioning(view, worn[:, 2], camera[:, 2], camera[:, 3]))
                noise = torch.randn(preceding.shape, generator=generator)
                preceding = self.sampler.sample(self.model, condition, noise[:, :, None])[:, :, 0]
                pictures = self.codec.decode_frames(preceding[first:]).clamp(-1, 1)
            at = (slice(first), 3)
            latent_memory = latent_memory.write(preceding[:first], cells[at], grid[at])
            at = (slice(first, None), 3)
            rgb_memory = rgb_memory.write(pictures, depth[at], camera[at])
            view = self._views(latent_memory, rgb_memory, camera[:, 4])
        conditioning = self._conditioning(view, preceding, camera[:, 3], camera[:, 4])
        return self._flow_loss(clean[:, 4], frames[:, 4], self.model.condition(conditioning), view, generator)

    def _noise_levels(self, generator: torch.Generator) -> Tensor:
        """Noise levels ``[B]``: mostly where the sampler works, which draws from pure noise and polishes near none."""
        kind = torch.rand(self.batch, generator=generator)
        level = torch.rand(self.batch, generator=generator)
        polish = 0.02 + 0.13 * level
        return torch.where(kind < 0.4, 1.0, torch.where(kind < 0.65, polish, level.clamp(min=0.02)))

    def _flow_loss(
        self,
        clean: Tensor,
        frames: Tensor,
        condition: PreparedCondition,
        view: MemoryView,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Weighted error of the predicted clean latents, and of the decoded picture where it is determined."""
        sigma = self._noise_levels(generator)
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
