"""Episodes under way: what a memory shows along a walk on which the model, not the recorder, draws the pictures."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mirage_sim.data.dataset import Moments, WalkDataset
from mirage_sim.geometry import Camera
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.memory.rgb_memory import encode_rendering
from mirage_sim.models.codec import MiniCodec
from mirage_sim.models.depth import MiniDepth
from mirage_sim.protocols import Conditioning, MemoryView
from mirage_sim.training.batched_memory import BatchMap
from mirage_sim.world.conditioning import build_conditioning

# of the episodes: those that remember true frames to the end; that do not remember the first part; that turn round
TRUE, SKIPPED, RETURN = 0.35, 0.35, 0.4


# what changes from step to step, besides the maps
PROGRESS = ("walk", "time", "direction", "left", "true_steps", "skipped", "turn", "true_points", "preceding")


class Moment(NamedTuple):
    """The next step of every episode.

    Attributes:
        conditioning: what the model is told.
        true: what the recorder saw; one moment per sample.
        latents: of it, ``[B, C, h, w]``.
        remembered: cells that show points of true frames, bool ``[B, 1, h, w]``.
    """

    conditioning: Conditioning
    true: Moments
    latents: Tensor
    remembered: Tensor


class Episodes:
    """One episode per sample of a batch, each at its own step; one that is over makes room for another.

    An episode follows a recorded walk, forwards or backwards. Its memory is written at the true start frame; from there
    on it holds the model's own pictures at the depths that the depth head estimates of them, as at run time. In some
    episodes it goes on with true frames to the end, so that what it shows is always worth copying; in some the first
    part of the walk is not remembered, so that much must be invented at once. Some turn round half-way and come back,
    through the very places that they remember.

    Args:
        data: recorded walks.
        latents: of all their frames, ``[walks, frames, C, h, w]``.
        codec: makes pictures of the model's latents.
        depth: estimates their depth.
        batch: episodes.
        rgb: how many, the last ones, have an RGB memory.
        empty: how many, the first ones, have none.
        steps: least and greatest length of an episode.
        samples_per_cell: samples per cell and axis of a read.
        latent_noise: largest standard deviation of noise on latents of true frames after the start.
        frames: how many frames' worth of points a map holds at most; later ones are dropped. None: all, for which an
            accelerator would wait for the host in every step.

    Raises:
        ValueError: if the walks are too short for such episodes.
    """

    def __init__(
        self,
        data: WalkDataset,
        latents: Tensor,
        codec: MiniCodec,
        depth: MiniDepth,
        *,
        batch: int,
        rgb: int,
        empty: int,
        steps: tuple[int, int],
        samples_per_cell: int,
        latent_noise: float,
        frames: int | None = None,
    ):
        if not 0 < steps[0] <= steps[1] < data.length:
            raise ValueError(
                f"steps: expected least and greatest length of an episode, 1 to {data.length - 1} "
                f"on walks of {data.length} frames, got {list(steps)}"
            )
        self.data, self.latents, self.codec, self.depth = data, latents, codec, depth
        self.first_rgb, self.empty, self.steps, self.samples_per_cell, self.latent_noise = (
            batch - rgb,
            empty,
            steps,
            samples_per_cell,
            latent_noise,
        )
        self.grid = (latents.shape[-2], latents.shape[-1])
        self.device = data.device
        self.capacities = [frames and frames * height * width for height, width in (self.grid, data.size)]
        self.maps = BatchMap.empty(batch - rgb, codec.channels, self.device), BatchMap.empty(rgb, 3, self.device)
        nothing = torch.zeros(batch, dtype=torch.long, device=self.device)
        self.walk, self.time, self.direction = nothing, nothing, nothing
        self.left, self.true_steps = nothing, nothing  # steps to go, and how many of them the recorder draws
        self.skipped = nothing.bool()  # whether what the recorder draws is not remembered
        self.turn = nothing  # with so many steps to go it turns round; -1 is never
        self.true_points = nothing  # the first so many points of a map are of true frames
        self.preceding = torch.zeros(batch, codec.channels, *self.grid, device=self.device)

    def begin(self, generator: torch.Generator) -> None:
        """Replace the episodes that are over."""
        over = self.left == 0
        if self.device.type == "cpu" and not over.any():  # elsewhere the question would take longer than the work
            return
        count, (least, most) = len(over), self.steps

        def uniform() -> Tensor:
            return torch.rand(count, generator=generator, device=self.device)

        left = torch.randint(least, most + 1, (count,), generator=generator, device=self.device)
        start = (uniform() * (self.data.length - left)).long()
        direction = 1 - 2 * torch.randint(2, (count,), generator=generator, device=self.device)
        kind = uniform()
        some = (uniform() * left).long() + 1
        skipped = kind > 1 - SKIPPED
        fresh = {
            "walk": self.data.choose(count, generator),
            "time": torch.where(direction > 0, start, start + left),
            "direction": direction,
            "left": left,
            "true_steps": torch.where(kind < TRUE, left, torch.where(skipped, some, 0)),
            "skipped": skipped,
            "turn": torch.where(uniform() < RETURN, left // 2, -1),
        }
        for name, value in fresh.items():
            setattr(self, name, torch.where(over, value, getattr(self, name)))
        at = over.split([self.first_rgb, len(over) - self.first_rgb])
        latent, rgb = (replace(map, kept=map.kept & ~ended[:, None]) for map, ended in zip(self.maps, at, strict=True))
        self.maps = latent, rgb
        self._write(self._latents(), self._moments(0), over)
        self.true_points = torch.where(over, self._points(), self.true_points)
        self.preceding = torch.where(over[:, None, None, None], self._latents(), self.preceding)

    def next(self) -> Moment:
        """What comes next in every episode."""
        last, true = self.data.cameras(self.walk, self.time[:, None]), self._moments(1)
        view = self._read(true.camera[:, 0])
        conditioning = build_conditioning(view, self.preceding[:, :, None], last[:, 0], true.camera)
        shown = view.resize(self.grid)
        remembered = shown.visible & (shown.source < self.true_points[:, None, None, None])
        return Moment(conditioning, true, self._latents(1), remembered)

    @torch.no_grad()
    def advance(self, moment: Moment, drawn: Tensor, frames: Tensor, generator: torch.Generator) -> None:
        """Go on to ``moment``, of which the model has drawn latents ``[B, C, h, w]``: frames ``[B, 3, H, W]``."""
        frames, camera = frames.clamp(-1, 1), moment.true.camera
        known = moment.conditioning.view.surface(self.grid)
        estimate = self.depth(frames[:, :, None], camera, known)
        noised = self.latent_noise * torch.rand(len(drawn), 1, 1, 1, generator=generator, device=self.device)
        noised = moment.latents + noised * torch.randn(drawn.shape, generator=generator, device=self.device)

        true_steps = self.true_steps > 0
        at = true_steps[:, None, None, None]
        made = Moments(
            torch.where(at[..., None], moment.true.frames, frames[:, None]),
            torch.where(at, moment.true.depth, estimate),
            camera,
        )
        self.preceding = torch.where(at, noised, drawn)
        self._write(self.preceding, made, ~(true_steps & self.skipped))
        self.true_points = torch.where(true_steps, self._points(), self.true_points)
        self.time, self.left, self.true_steps = (
            self.time + self.direction,
            self.left - 1,
            (self.true_steps - 1).clamp(min=0),
        )
        self.direction = torch.where(self.left == self.turn, -self.direction, self.direction)

    def state_dict(self) -> dict[str, Tensor]:
        """Where all episodes are: what :meth:`load_state_dict` takes to go on from here."""
        state = {name: getattr(self, name).clone() for name in PROGRESS}
        for number, map in enumerate(self.maps):
            state |= {f"maps.{number}.{part.name}": getattr(map, part.name).clone() for part in fields(map)}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there.

        Raises:
            ValueError: if it is the state of another number of episodes, or of none.
        """
        mine = self.state_dict()
        if mine.keys() != state.keys() or any(state[name].shape != mine[name].shape for name in PROGRESS):
            raise ValueError(f"state: expected that of {len(self.walk)} episodes on a grid of {self.grid}")
        for name in PROGRESS:
            setattr(self, name, state[name].to(self.device))
        latent, rgb = (
            BatchMap(**{part.name: state[f"maps.{number}.{part.name}"].to(self.device) for part in fields(BatchMap)})
            for number in range(2)
        )
        self.maps = latent, rgb

    def _moments(self, ahead: int) -> Moments:
        return self.data.draw(self.walk, (self.time + ahead * self.direction)[:, None])

    def _latents(self, ahead: int = 0) -> Tensor:
        return self.latents[self.walk, self.time + ahead * self.direction].float()

    def _points(self) -> Tensor:
        return torch.cat([each.kept.sum(1) for each in self.maps])

    def _write(self, latents: Tensor, moments: Moments, where: Tensor) -> None:
        """Write one frame of each sample ``where [B]`` says so; keep only points that maps hold."""
        first, camera = self.first_rgb, moments.camera[:, 0]
        depth = moments.depth[:, 0] * where[:, None, None]
        cells = resample_depth(depth[:first], self.grid)
        latent, rgb = self.capacities
        self.maps = (
            self.maps[0].write(latents[:first], cells, camera[:first].resize(self.grid)).packed(latent),
            self.maps[1].write(moments.frames[first:, 0], depth[first:], camera[first:]).packed(rgb),
        )

    def _read(self, camera: Camera) -> MemoryView:
        """What the maps show to cameras of batch shape ``[B]``; nothing to the first few samples."""
        first, fine = self.first_rgb, (self.samples_per_cell * self.grid[0], self.samples_per_cell * self.grid[1])
        rendering = encode_rendering(self.codec, self.maps[1].read(camera[first:]), self.grid)
        parts = self.maps[0].read(camera[:first].resize(self.grid), self.samples_per_cell), rendering.resize(fine)
        shown = torch.arange(len(self.walk), device=self.device) >= self.empty
        fields = []
        for name, filler in zip(MemoryView.__dataclass_fields__, (0.0, False, 0.0, -1, 0.0, 0.0), strict=True):
            values = torch.cat([getattr(part, name) for part in parts])
            fields.append(torch.where(shown.view(-1, *[1] * (values.ndim - 1)), values, filler))
        return MemoryView(*fields)
