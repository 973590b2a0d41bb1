"""The depth stage's second half: depth of the frames that the world itself draws, beside what it remembers."""

import torch
from torch import Tensor, nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.geometry import Camera
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.denoiser import MiniDenoiser
from mirage_sim.models.depth import FARTHEST, NEAREST, MiniDepth
from mirage_sim.training.denoiser_stage import encode_walks
from mirage_sim.training.depth_stage import worn_frames
from mirage_sim.training.episodes import Episodes

INVENTED = 0.3  # weight of the truth where the picture is invented, and shows something else


class DepthEpisodesStage:
    """The loss of the depth head on episodes under way (:class:`Episodes`).

    A remembered depth is an estimate that was written earlier, and a read shows the nearest of what falls into a cell:
    a head that agrees with it is a little too near, remembers that, and is nearer still at the next step. Here it
    meets its own estimates as the memory shows them, and is drawn to the truth, so that it learns how far to trust
    them. The other samples are recorded frames of which nothing is known, as at the start of an episode.

    Args:
        data: recorded walks.
        codec, denoiser: frozen; they draw the frames.
        model: what is trained.
        batch: episodes, one sample of each per step.
        alone: samples of recorded frames per step.
        rgb_share, empty_share: of the episodes; the rest reads latent memory.
        steps_of_episode: least and greatest length of an episode.
        wear: largest standard deviation of noise on latents of true frames.
    """

    def __init__(
        self,
        data: WalkDataset,
        codec: MiniCodec,
        denoiser: MiniDenoiser,
        model: MiniDepth,
        *,
        batch: int = 10,
        alone: int = 6,
        rgb_share: float = 0.2,
        empty_share: float = 0.1,
        steps_of_episode: tuple[int, int] = (8, 32),
        wear: float = 0.25,
    ):
        self.data, self.codec, self.denoiser, self.model = data, codec, denoiser, model
        self.alone, self.wear = alone, wear
        self.episodes = Episodes(
            data,
            encode_walks(data, codec),
            codec,
            model,
            batch=batch,
            rgb=round(batch * rgb_share),
            empty=round(batch * empty_share),
            steps=steps_of_episode,
            detail=denoiser.aligner.detail,
            wear=wear,
        )

    def __call__(self, generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        """One batch."""
        self.episodes.begin(generator)
        moment = self.episodes.next()
        count = len(moment.latents)
        with torch.no_grad():
            noise = torch.randn(moment.latents.shape, generator=generator)
            condition = self.denoiser.condition(moment.conditioning)
            drawn = self.denoiser.predict_clean(noise, torch.ones(count), condition)
            drawn_frames = self.codec.decode_frames(drawn).clamp(-1, 1)
        walks = torch.randint(len(self.data), (self.alone,), generator=generator)
        times = torch.randint(self.data.length, (self.alone, 1), generator=generator)
        recorded = self.data.draw(walks, times)
        recorded_frames = worn_frames(self.codec, recorded.frames[:, 0], self.wear, generator)

        known = moment.conditioning.view.nearest(self.episodes.grid)[:, 0]
        camera = Camera.stack([*moment.true.camera[:, 0], *recorded.camera[:, 0]])
        log_depth = self.model.log_depth(
            torch.cat([drawn_frames, recorded_frames]),
            camera,
            torch.cat([known, known.new_zeros(self.alone, *known.shape[1:])]),
        )
        true = torch.cat([moment.true.depth[:, 0], recorded.depth[:, 0]])
        shown = nn.functional.interpolate(moment.remembered.float(), true.shape[-2:])[:, 0]
        shown = torch.cat([shown, torch.ones_like(recorded.depth[:, 0])])
        error = log_depth - torch.log(true.clamp(NEAREST, FARTHEST))
        down, right = error.diff(dim=-2).abs() * shown[..., 1:, :], error.diff(dim=-1).abs() * shown[..., 1:]
        distance = error.abs() * (INVENTED + (1 - INVENTED) * shown)

        depth = torch.exp(log_depth.detach()).clamp(NEAREST, FARTHEST)
        self.episodes.advance(moment, drawn, drawn_frames, generator, depth[:count, None])
        with torch.no_grad():
            relative = (torch.exp(error) - 1).abs()
            remembered = (relative * shown)[:count].sum() / shown[:count].sum().clamp(min=1.0)
        return {
            "loss": distance.mean() + down.mean() + right.mean(),
            "absrel": relative[count:].mean(),
            "absrel_remembered": remembered,
            "absrel_drawn": relative[:count].mean(),
        }
