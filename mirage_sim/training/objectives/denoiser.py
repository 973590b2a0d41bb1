"""The objective of the denoiser stage: flow matching on latents, conditioned on the read-out of a memory."""

import logging
import random
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser
from mirage_sim.models.depth import MiniDepth
from mirage_sim.training.objectives.codec import image_loss, mostly_visible, to_float_images
from mirage_sim.training.objectives.texture import texture_loss, window_means
from mirage_sim.training.precision import Precision
from mirage_sim.training.self_rollout import Episodes, RolloutStep

logger = logging.getLogger(__name__)

# where many images are plausible: weight of the window means (mean colour is less ambiguous than texture elements) ...
LOCAL_MEAN = 5.0
UNDETERMINED = 0.03  # ... and weight of the distance from the truth
MAP_FRAMES = 16  # capacity of a map on an accelerator in frames' worth of points: more than episodes needed so far


@torch.inference_mode()
def encode_walks(data: WalkDataset, codec: MiniCodec) -> Tensor:
    """Encode every recorded frame: latents float16 ``[walks, frames, C, h, w]`` on the device of the data."""
    (height, width), (_, y, x) = data.size, codec.stride
    shape = (len(data), data.length, codec.channels, height // y, width // x)
    latents = torch.empty(shape, dtype=torch.float16, device=data.device)
    for walk in range(len(data)):
        latents[walk] = codec.encode_frames(to_float_images(data.frames[walk])).half()
    logger.info("encoded %d frames", latents.shape[0] * latents.shape[1])
    return latents


class DenoiserObjective:
    """Distance from the true frame where the memory determines it, and difference of textures elsewhere.

    Each sample is the next step of an episode that the model itself has generated so far (:class:`Episodes`): the
    read-out of the episode's memory at the next camera, and the true frame there. In most batches the model generates
    from pure noise, as the sampler does in one step, and the result is written to the memory for the next batch. Some
    episodes use an RGB memory and some an empty one, so that one network serves the baselines too.

    Where the memory shows points of true frames, the loss is the distance from the truth. Elsewhere many images are
    plausible, and their mean is blurred. There the loss compares textures (:func:`texture_loss`).

    The episodes are part of a checkpoint, so that a resumed run continues them.

    Args:
        data: recorded walks.
        codec: frozen codec.
        depth: frozen depth head.
        model: the denoiser, trained.
        batch: number of episodes, one sample of each per step.
        rgb_share: fraction of the episodes with an RGB memory.
        empty_share: fraction of the episodes without a memory.
        steps_of_episode: shortest and longest episode.
        latent_noise: largest standard deviation of the noise on latents of true frames after the start.
        self_rollout_fraction: fraction of the batches that generate from pure noise and advance the episodes. The
            others train all noise levels.
        texture: weight of the texture loss, which applies to samples generated from pure noise.
        precision: precision of the denoiser's and the decoder's arithmetic, see :class:`Precision`.

    Raises:
        ValueError: if the walks are too short for ``steps_of_episode``, or the precision is unknown.
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

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See :class:`mirage_sim.training.loop.Objective`."""
        self.episodes.begin(generator)
        step = self.episodes.next()
        clean = step.latents
        advances = self._chance(generator) < self.self_rollout_fraction
        sigma = clean.new_ones(len(clean)) if advances else self._noise_levels(len(clean), generator)
        s = sigma[:, None, None, None]
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        noisy = (1 - s) * clean + s * noise
        with self.precision():
            predicted = self.model.predict_clean(noisy, sigma, self.model.condition(step.conditioning)).float()
            generated = self.codec.decode_frames(predicted).float()
        if advances:
            self.episodes.advance(step, predicted.detach(), generated.detach(), generator)
        return self._loss(predicted, generated, sigma, step, generator)

    def _chance(self, generator: torch.Generator) -> float:
        """Draw a number in [0, 1) for a decision of the host, which must not wait for an accelerator."""
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
        """Draw noise levels ``[count]``, half of them low, where the last steps of a multi-step sampler are."""
        device = self.episodes.device
        level = torch.rand(count, generator=generator, device=device).clamp(min=0.02)
        low = torch.rand(count, generator=generator, device=device) < 0.5
        return torch.where(low, 0.02 + 0.13 * level, level)

    def _loss(
        self, predicted: Tensor, generated: Tensor, sigma: Tensor, step: RolloutStep, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Compute the terms of the loss.

        Cells that show observed content are *determined*. Those that show content the model generated earlier are not:
        the truth is unrelated to that content, and a loss that compares both blurs it step by step.
        """
        clean, frames = step.latents, step.true.frames[:, 0]
        s = sigma[:, None, None, None]
        determined = torch.maximum(mostly_visible(step.observed), 1 - s)

        # the weight of a velocity loss, capped at low noise, where the network only has to copy x
        weight = (1 / s**2).clamp(max=8.0) * (UNDETERMINED + (1 - UNDETERMINED) * determined)
        latent = ((predicted - clean).square() * weight).mean()
        image = image_loss(generated, frames, determined)
        shown = nn.functional.adaptive_max_pool2d(step.conditioning.view.visible.float()[:, 0], clean.shape[-2:])
        from_noise = (sigma == 1.0).float()
        texture = (from_noise * texture_loss(predicted, clean, shown[:, None], generator)).mean()
        local_mean = ((window_means(predicted) - window_means(clean)).square() * window_means(1 - determined)).mean()
        with torch.no_grad():
            energy, true_energy = (
                gradient_energy(part * from_noise[:, None, None, None]) for part in (generated, frames)
            )
        return {
            "loss": latent + image + self.texture * texture + LOCAL_MEAN * local_mean,
            "latent": latent,
            "picture": image,
            "texture": texture,
            "tone": local_mean,
            "sharpness": energy / true_energy.clamp(min=1.0),
        }


def gradient_energy(images: Tensor) -> Tensor:
    """Sum of the squared horizontal and vertical differences of images ``[N, 3, H, W]``."""
    return images.diff(dim=-1).square().sum() + images.diff(dim=-2).square().sum()
