"""The denoiser stage: flow matching on latents, conditioned on what a memory would show."""

import logging

import torch
from torch import Tensor, nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.geometry import Camera
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.memory.rgb_memory import encode_rendering
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser, PreparedCondition
from mirage_sim.models.sampler import FlowSampler
from mirage_sim.protocols import Conditioning, MemoryView
from mirage_sim.training.codec_stage import picture_loss, surrounded
from mirage_sim.training.simulated_memory import BatchMap
from mirage_sim.world.conditioning import build_conditioning

logger = logging.getLogger(__name__)

UNDETERMINED = 0.03  # weight of the distance from the truth where the truth is one of many pictures that would do


@torch.inference_mode()
def encode_walks(data: WalkDataset, codec: MiniCodec) -> Tensor:
    """Latents of every recorded frame, float16 ``[walks, frames, C, h, w]``."""
    (height, width), (_, y, x) = data.size, codec.stride
    latents = torch.empty(len(data), data.length, codec.channels, height // y, width // x, dtype=torch.float16)
    for walk in range(len(data)):
        frames = data.frames[walk].permute(0, 3, 1, 2).float() / 127.5 - 1.0
        latents[walk] = codec.encode_frames(frames).half()
    logger.info("encoded %d frames", latents.shape[0] * latents.shape[1])
    return latents


# texture is drawn to this quantile of what may be there: energies are skewed, and their median lies below their mean
LACKING = 0.65


class DenoiserStage:
    """The loss of the denoiser stage.

    Each sample is one step of an episode: a memory written at a start frame and at three frames on the way, of which
    the last precedes the target; what it shows at the target's camera; and the target. A share of the batch reads an
    RGB memory and some read an empty one, so that one network serves the baselines too.

    Where the memory says what is to be seen, the network is drawn to the truth. Where it does not, the truth is one of
    many pictures that would do, and their mean is fog: what can be asked for there is the texture of the truth, not
    its every stone (:class:`Texture`).

    Args:
        data: recorded walks.
        codec: frozen.
        model: what is trained.
        batch: samples per step.
        rgb_share, empty_share: of the batch; the rest reads latent memory.
        gap: the largest number of frames between start and target.
        wear: largest standard deviation of noise on latents that, at run time, are generated: those written after the
            start, and the preceding ones.
        own_from: part of the training after which, in ``own_share`` of the batches, the three frames before the target
            are not the true ones but the model's own, each drawn from what its memory shows: it must learn to go on
            from its own pictures.
        texture: weight of the difference of textures, where the network draws from nothing but what it is told.
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
        own_from: float = 0.1,
        own_share: float = 0.5,
        texture: float = 10.0,
    ):
        self.data, self.codec, self.model = data, codec, model
        self.batch, self.gap, self.wear = batch, gap, wear
        self.own_from, self.own_share = own_from, own_share
        self.texture, self.texture_of = texture, Texture(codec.channels)
        self.sampler = FlowSampler(steps=1)
        self.rgb = round(batch * rgb_share)
        self.empty = round(batch * empty_share)
        self.latents = encode_walks(data, codec)
        self.grid = (self.latents.shape[-2], self.latents.shape[-1])

    def _times(self, own: bool, generator: torch.Generator) -> Tensor:
        """Frames ``[B, 5]`` of each sample: start, two on the way, preceding, target; in walking or reverse order."""
        reach = torch.randint(1, self.gap + 1, (self.batch,), generator=generator)
        start = (torch.rand(self.batch, generator=generator) * (self.data.length - reach)).long()
        if own:
            between = (reach[:, None] - torch.tensor([3, 2])).clamp(min=0)
        else:
            fractions = torch.rand(self.batch, 2, generator=generator).sort(dim=1).values
            between = (fractions * reach[:, None]).long()
        steps = torch.cat([torch.zeros_like(reach)[:, None], between, (reach - 1)[:, None], reach[:, None]], dim=1)
        forward = torch.rand(self.batch, generator=generator)[:, None] < 0.5
        return torch.where(forward, start[:, None] + steps, (start + reach)[:, None] - steps)

    def _views(self, latent_memory: BatchMap, rgb_memory: BatchMap, camera: Camera) -> MemoryView:
        """What the two kinds of memory show to cameras of batch shape ``[B]``, some samples made blind."""
        first, detail = self.batch - self.rgb, self.model.aligner.detail
        rendering = encode_rendering(self.codec, rgb_memory.read(camera[first:]), self.grid)
        parts = (
            latent_memory.read(camera[:first].resize(self.grid), detail),
            rendering.resize((detail * self.grid[0], detail * self.grid[1])),
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
        own = progress >= self.own_from and torch.rand(1, generator=generator).item() < self.own_share
        walks = torch.randint(len(self.data), (self.batch,), generator=generator)
        times = self._times(own, generator)
        frames, depth, camera = self.data.draw(walks, times)
        clean = self.latents[walks[:, None], times].float()
        level = self.wear * torch.rand(self.batch, 1, 1, 1, generator=generator)

        first = self.batch - self.rgb
        grid, cells = camera.resize(self.grid), resample_depth(depth, self.grid)
        latent_memory, rgb_memory = BatchMap.empty(first, self.codec.channels), BatchMap.empty(self.rgb, 3)
        preceding, pictures = clean[:, 0], frames[first:, 0]
        with torch.no_grad():
            for moment in range(4):
                if own and moment > 0:
                    view = self._views(latent_memory, rgb_memory, camera[:, moment])
                    conditioning = self._conditioning(view, preceding, camera[:, moment - 1], camera[:, moment])
                    noise = torch.randn(preceding.shape, generator=generator)[:, :, None]
                    preceding = self.sampler.sample(self.model, self.model.condition(conditioning), noise)[:, :, 0]
                    pictures = self.codec.decode_frames(preceding[first:]).clamp(-1, 1)
                elif moment > 0:
                    preceding = clean[:, moment] + level * torch.randn(preceding.shape, generator=generator)
                    pictures = frames[first:, moment]
                at = (slice(first), moment)
                latent_memory = latent_memory.write(preceding[:first], cells[at], grid[at])
                at = (slice(first, None), moment)
                rgb_memory = rgb_memory.write(pictures, depth[at], camera[at])
            view = self._views(latent_memory, rgb_memory, camera[:, 4])
        condition = self.model.condition(self._conditioning(view, preceding, camera[:, 3], camera[:, 4]))
        shown = view.resize(self.grid)
        true = shown.visible & (shown.source <= self._first_points()) if own else shown.visible
        return self._loss(clean[:, 4], frames[:, 4], condition, surrounded(true), generator)

    def _first_points(self) -> Tensor:
        """The last index that a point of the start frame can have in each sample's map, ``[B, 1, 1, 1]``."""
        cells, pixels = self.grid[0] * self.grid[1], self.data.size[0] * self.data.size[1]
        return torch.tensor([cells] * (self.batch - self.rgb) + [pixels] * self.rgb)[:, None, None, None]

    def _noise_levels(self, generator: torch.Generator) -> Tensor:
        """Noise levels ``[B]``: mostly where the sampler works, which draws from pure noise and polishes near none."""
        kind = torch.rand(self.batch, generator=generator)
        level = torch.rand(self.batch, generator=generator)
        polish = 0.02 + 0.13 * level
        return torch.where(kind < 0.6, 1.0, torch.where(kind < 0.8, polish, level.clamp(min=0.02)))

    def _loss(
        self,
        clean: Tensor,
        frames: Tensor,
        condition: PreparedCondition,
        remembered: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Distance of the prediction from the truth where it is determined, and of its texture from the true one.

        Determined is what is remembered of the truth, ``[B, 1, h, w]``. What the model itself invented before is not:
        drawn to a truth that has nothing to do with it, it would turn to fog, step by step.
        """
        sigma = self._noise_levels(generator)
        s = sigma[:, None, None, None]
        noisy = (1 - s) * clean + s * torch.randn(clean.shape, generator=generator)
        predicted = self.model.predict_clean(noisy, sigma, condition)
        determined = torch.maximum(remembered, 1 - s)

        # the weight of a velocity loss, capped where the noise is so small that copying x is the answer
        weight = (1 / s**2).clamp(max=8.0) * (UNDETERMINED + (1 - UNDETERMINED) * determined)
        latent = ((predicted - clean).square() * weight).mean()
        drawn = slice(0, None, 2)
        generated = self.codec.decode_frames(predicted[drawn])
        picture = picture_loss(generated, frames[drawn], determined[drawn])
        blind = (sigma == 1.0).float()[:, None, None, None]
        lacking = self.texture_of(clean) - self.texture_of(predicted)
        texture = (torch.where(lacking > 0, LACKING, LACKING - 1) * lacking * 2 * blind).mean()
        with torch.no_grad():
            energy = [gradient_energy(some * blind[drawn]) for some in (generated, frames[drawn])]
        return {
            "loss": latent + picture + self.texture * texture,
            "latent": latent,
            "picture": picture,
            "texture": texture,
            "sharpness": energy[0] / energy[1].clamp(min=1.0),
        }


class Texture(nn.Module):
    """What a texture looks like, whatever the place of each of its stones.

    Local standard deviation of the responses to fixed random filters, which look at 3x3 cells at a time: the energies
    of enough random projections tell all correlations within such a patch (compare Heitz et al. 2021, "A sliced
    Wasserstein loss for neural texture synthesis"). Fog has none of them.

    Args:
        channels: latent channels.
        filters: how many.
    """

    random: Tensor

    def __init__(self, channels: int, filters: int = 64):
        super().__init__()
        size = (filters, channels, 3, 3)
        random = torch.randn(size, generator=torch.Generator().manual_seed(0)) / (3 * channels**0.5)
        self.register_buffer("random", random)

    def forward(self, latents: Tensor) -> Tensor:
        """Of ``latents [N, C, h, w]``: ``[N, filters, about h/2, about w/2]``, in windows of 5x5 cells."""
        responses = nn.functional.conv2d(latents.contiguous(memory_format=torch.channels_last), self.random)
        mean, square = (nn.functional.avg_pool2d(some, 5, stride=2) for some in (responses, responses.square()))
        return ((square - mean.square()).clamp(min=0) + 1e-4).sqrt()


def gradient_energy(pictures: Tensor) -> Tensor:
    """Sum of squared horizontal and vertical differences of pictures ``[N, 3, H, W]``."""
    return pictures.diff(dim=-1).square().sum() + pictures.diff(dim=-2).square().sum()
