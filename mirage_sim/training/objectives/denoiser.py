"""The denoiser stage: flow matching on latents, conditioned on what a memory would show."""

import logging
import random
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser
from mirage_sim.models.depth import MiniDepth
from mirage_sim.training.objectives.codec import picture_loss, surrounded
from mirage_sim.training.objectives.texture import texture_loss, windows
from mirage_sim.training.precision import Precision
from mirage_sim.training.self_rollout import Episodes, Moment

logger = logging.getLogger(__name__)

# weight of the mean over a few cells where the truth is one of many pictures: its colour is less free than its stones
LOCAL_MEAN = 5.0
MAP_FRAMES = 16  # frames' worth of points that a map holds on an accelerator: more than episodes were seen to need
UNDETERMINED = 0.03  # weight of the distance from the truth where the truth is one of many pictures that would do


@torch.inference_mode()
def encode_walks(data: WalkDataset, codec: MiniCodec) -> Tensor:
    """Latents of every recorded frame, float16 ``[walks, frames, C, h, w]`` where the data are."""
    (height, width), (_, y, x) = data.size, codec.stride
    shape = (len(data), data.length, codec.channels, height // y, width // x)
    latents = torch.empty(shape, dtype=torch.float16, device=data.device)
    for walk in range(len(data)):
        frames = data.frames[walk].permute(0, 3, 1, 2).float() / 127.5 - 1.0
        latents[walk] = codec.encode_frames(frames).half()
    logger.info("encoded %d frames", latents.shape[0] * latents.shape[1])
    return latents


class DenoiserStage:
    """The loss of the denoiser stage.

    Each sample is one step of an episode that the model itself has drawn so far (:class:`Episodes`): what its memory
    shows at the next camera, and the true picture there. In most batches every sample is drawn from pure noise, as the
    sampler does it in one step, and what was drawn goes into the memory: the next batch goes on from there. A share of
    the episodes fills an RGB memory and some none, so that one network serves the baselines too.

    Where the memory shows points of true frames, the network is drawn to the truth. Elsewhere the truth is one of many
    pictures that would do, and their mean is fog: what can be asked for there is the texture of the truth, not its
    every stone (:func:`texture_loss`).

    Episodes are part of a checkpoint, so that a run that is resumed goes on with them.

    Args:
        data: recorded walks.
        codec, depth: frozen.
        model: what is trained.
        batch: episodes, and samples per step.
        rgb_share, empty_share: of the batch; the rest reads latent memory.
        steps_of_episode: least and greatest length of an episode.
        latent_noise: largest standard deviation of noise on latents of true frames after the start.
        self_rollout_fraction: of the batches that draw from pure noise and go on; the others train all noise levels.
        texture: weight of the difference of textures, where the network draws from nothing but what it is told.
        precision: of the denoiser's and the decoder's arithmetic, see :class:`Precision`.

    Raises:
        ValueError: for an unknown precision.
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
        latent_noise: float = 0.25,
        self_rollout_fraction: float = 0.8,
        texture: float = 13.0,
        precision: str = "float32",
    ):
        self.codec, self.model, self.self_rollout_fraction = codec, model, self_rollout_fraction
        self.texture, self.precision = texture, Precision(precision, data.device)
        self.episodes = Episodes(
            data,
            encode_walks(data, codec),
            codec,
            depth,
            batch=batch,
            rgb=round(batch * rgb_share),
            empty=round(batch * empty_share),
            steps=steps_of_episode,
            samples_per_cell=model.aligner.samples_per_cell,
            latent_noise=latent_noise,
            frames=None if data.device.type == "cpu" else MAP_FRAMES,
        )

    def __call__(self, generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        """One batch."""
        self.episodes.begin(generator)
        moment = self.episodes.next()
        clean = moment.latents
        drawn = self._chance(generator) < self.self_rollout_fraction
        sigma = clean.new_ones(len(clean)) if drawn else self._noise_levels(len(clean), generator)
        s = sigma[:, None, None, None]
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        noisy = (1 - s) * clean + s * noise
        with self.precision():
            predicted = self.model.predict_clean(noisy, sigma, self.model.condition(moment.conditioning)).float()
            generated = self.codec.decode_frames(predicted).float()
        if drawn:
            self.episodes.advance(moment, predicted.detach(), generated.detach(), generator)
        return self._loss(predicted, generated, sigma, moment, generator)

    def _chance(self, generator: torch.Generator) -> float:
        """A number in [0, 1) for a decision of the host, which must not wait for an accelerator to draw it."""
        if self.episodes.device.type == "cpu":
            return torch.rand(1, generator=generator).item()
        return random.Random(generator.initial_seed()).random()

    def state_dict(self) -> dict[str, Tensor]:
        """See :class:`mirage_sim.training.loop.Stateful`."""
        return self.episodes.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See :class:`mirage_sim.training.loop.Stateful`."""
        self.episodes.load_state_dict(state)

    def _noise_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels ``[count]``, half of them near none, where a sampler of several steps polishes."""
        device = self.episodes.device
        level = torch.rand(count, generator=generator, device=device).clamp(min=0.02)
        polish = torch.rand(count, generator=generator, device=device) < 0.5
        return torch.where(polish, 0.02 + 0.13 * level, level)

    def _loss(
        self, predicted: Tensor, generated: Tensor, sigma: Tensor, moment: Moment, generator: torch.Generator
    ) -> dict[str, Tensor]:
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
        shown = nn.functional.adaptive_max_pool2d(moment.conditioning.view.visible.float()[:, 0], clean.shape[-2:])
        blind = (sigma == 1.0).float()
        texture = (blind * texture_loss(predicted, clean, shown[:, None], generator)).mean()
        local_mean = ((windows(predicted) - windows(clean)).square() * windows(1 - determined)).mean()
        with torch.no_grad():
            energy = [gradient_energy(some * blind[:, None, None, None]) for some in (generated, frames)]
        return {
            "loss": latent + picture + self.texture * texture + LOCAL_MEAN * local_mean,
            "latent": latent,
            "picture": picture,
            "texture": texture,
            "tone": local_mean,
            "sharpness": energy[0] / energy[1].clamp(min=1.0),
        }


def gradient_energy(pictures: Tensor) -> Tensor:
    """Sum of squared horizontal and vertical differences of pictures ``[N, 3, H, W]``."""
    return pictures.diff(dim=-1).square().sum() + pictures.diff(dim=-2).square().sum()
