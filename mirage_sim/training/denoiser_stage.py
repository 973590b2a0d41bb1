"""The denoiser stage: flow matching on latents, conditioned on what a memory would show."""

import logging

import torch
from torch import Tensor, nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser
from mirage_sim.models.depth import MiniDepth
from mirage_sim.training.codec_stage import picture_loss, surrounded
from mirage_sim.training.episodes import Episodes, Moment

logger = logging.getLogger(__name__)

# weight of the mean over a few cells where the truth is one of many pictures: its colour is less free than its stones
TONE = 5.0
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


WINDOW_SHOWN = 0.4  # weight of the texture of what the memory shows, against that of what must be invented now
# texture is drawn to this quantile of what may be there: energies are skewed, and their median lies below their mean
LACKING = 0.72


class DenoiserStage:
    """The loss of the denoiser stage.

    Each sample is one step of an episode that the model itself has drawn so far (:class:`Episodes`): what its memory
    shows at the next camera, and the true picture there. In most batches every sample is drawn from pure noise, as the
    sampler does it in one step, and what was drawn goes into the memory: the next batch goes on from there. A share of
    the episodes fills an RGB memory and some none, so that one network serves the baselines too.

    Where the memory shows points of true frames, the network is drawn to the truth. Elsewhere the truth is one of many
    pictures that would do, and their mean is fog: what can be asked for there is the texture of the truth, not its
    every stone (:class:`Texture`).

    Episodes are not part of a checkpoint: a run that is resumed begins new ones.

    Args:
        data: recorded walks.
        codec, depth: frozen.
        model: what is trained.
        batch: episodes, and samples per step.
        rgb_share, empty_share: of the batch; the rest reads latent memory.
        steps_of_episode: least and greatest length of an episode.
        wear: largest standard deviation of noise on latents of true frames after the start.
        drawn_share: of the batches that draw from pure noise and go on; the others train all noise levels.
        texture: weight of the difference of textures, where the network draws from nothing but what it is told.
    """

    def __init__(
        self,
        data: WalkDataset,
        codec: MiniCodec,
        depth: MiniDepth,
        model: MiniDenoiser,
        *,
        batch: int = 12,
        rgb_share: float = 0.42,
        empty_share: float = 0.16,
        steps_of_episode: tuple[int, int] = (14, 28),
        wear: float = 0.25,
        drawn_share: float = 0.8,
        texture: float = 13.0,
    ):
        self.codec, self.model, self.drawn_share = codec, model, drawn_share
        self.texture, self.texture_of = texture, Texture(codec.channels)
        self.episodes = Episodes(
            data,
            encode_walks(data, codec),
            codec,
            depth,
            batch=batch,
            rgb=round(batch * rgb_share),
            empty=round(batch * empty_share),
            steps=steps_of_episode,
            detail=model.aligner.detail,
            wear=wear,
        )

    def __call__(self, generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        """One batch."""
        self.episodes.begin(generator)
        moment = self.episodes.next()
        clean = moment.latents
        drawn = torch.rand(1, generator=generator).item() < self.drawn_share
        sigma = torch.ones(len(clean)) if drawn else self._noise_levels(len(clean), generator)
        s = sigma[:, None, None, None]
        noisy = (1 - s) * clean + s * torch.randn(clean.shape, generator=generator)
        predicted = self.model.predict_clean(noisy, sigma, self.model.condition(moment.conditioning))
        generated = self.codec.decode_frames(predicted)
        if drawn:
            self.episodes.advance(moment, predicted.detach(), generated.detach(), generator)
        return self._loss(predicted, generated, sigma, moment)

    def _noise_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels ``[count]``, half of them near none, where a sampler of several steps polishes."""
        level = torch.rand(count, generator=generator).clamp(min=0.02)
        polish = torch.rand(count, generator=generator) < 0.5
        return torch.where(polish, 0.02 + 0.13 * level, level)

    def _loss(self, predicted: Tensor, generated: Tensor, sigma: Tensor, moment: Moment) -> dict[str, Tensor]:
        """Distance of the prediction from the truth where it is determined, and of its texture from the true one.

        Determined is what is remembered of the truth. What the model itself invented before is not: drawn to a truth
        that has nothing to do with it, it would turn to fog, step by step.
        """
        clean, frames = moment.latents, moment.true.frames[:, 0]
        s = sigma[:, None, None, None]
        determined = torch.maximum(surrounded(moment.remembered), 1 - s)

        # the weight of a velocity loss, capped where the noise is so small that copying x is the answer
        weight = (1 / s**2).clamp(max=8.0) * (UNDETERMINED + (1 - UNDETERMINED) * determined)
        latent = ((predicted - clean).square() * weight).mean()
        picture = picture_loss(generated, frames, determined)
        blind = (s == 1.0).float()
        lacking = self.texture_of(clean) - self.texture_of(predicted)
        shown = nn.functional.adaptive_max_pool2d(moment.conditioning.view.visible.float()[:, 0], clean.shape[-2:])
        of_windows = self.texture_of.windows
        say = blind * (WINDOW_SHOWN + (1 - WINDOW_SHOWN) * of_windows(1 - shown[:, None]))
        texture = (torch.where(lacking > 0, LACKING, LACKING - 1) * lacking * 2 * say).mean()
        tone = ((of_windows(predicted) - of_windows(clean)).square() * of_windows(1 - determined)).mean()
        with torch.no_grad():
            energy = [gradient_energy(some * blind) for some in (generated, frames)]
        return {
            "loss": latent + picture + self.texture * texture + TONE * tone,
            "latent": latent,
            "picture": picture,
            "texture": texture,
            "tone": tone,
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
        """Of ``latents [N, C, h, w]``: ``[N, filters, h/2, w/2]``, in windows of 5x5 cells."""
        responses = nn.functional.conv2d(latents.contiguous(memory_format=torch.channels_last), self.random, padding=1)
        mean, square = self.windows(responses), self.windows(responses.square())
        return ((square - mean.square()).clamp(min=0) + 1e-4).sqrt()

    def windows(self, values: Tensor) -> Tensor:
        """Means of ``values [N, ?, h, w]`` over the windows; at the border over the part of them that there is.

        What is new comes in at the border, a few cells at a time.
        """
        return nn.functional.avg_pool2d(values, 5, stride=2, padding=2, count_include_pad=False)


def gradient_energy(pictures: Tensor) -> Tensor:
    """Sum of squared horizontal and vertical differences of pictures ``[N, 3, H, W]``."""
    return pictures.diff(dim=-1).square().sum() + pictures.diff(dim=-2).square().sum()
