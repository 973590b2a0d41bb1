"""Self-rollouts: episodes along recorded walks in which the memory holds frames that the model itself generated."""

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

# fractions of the episodes that remember true frames to the end, that skip the first part, and that turn round
TRUE, SKIPPED, RETURN = 0.35, 0.35, 0.4

# attributes that change from step to step, besides the maps; they are keys of the state
PROGRESS = ("walk", "time", "direction", "left", "true_steps", "skipped", "turn", "true_points", "preceding")


class RolloutStep(NamedTuple):
    """The next step of every episode.

    Attributes:
        conditioning: input of the denoiser.
        true: recorded frame, depth and camera, one per sample.
        latents: latents of the recorded frame, ``[B, C, h, w]``.
        observed: cells that show points of true frames, bool ``[B, 1, h, w]``.
    """

    conditioning: Conditioning
    true: Moments
    latents: Tensor
    observed: Tensor


class Episodes:
    """A batch of episodes, each at its own step. A new episode replaces each that ends.

    An episode follows a recorded walk forwards or backwards. Its memory is written with the true start frame, then with
    the frames that the model generates, at the depth that the depth head estimates, as at run time. Three kinds of
    episodes add variety: some write true frames to the end, so that their read-out is always worth copying; some skip
    the first part of the walk, so that much must be generated at once; and some turn round half-way and come back
    through places that they remember.

    Args:
        data: recorded walks.
        latents: latents of all their frames, ``[walks, frames, C, h, w]``.
        codec: encodes renderings of the RGB memory.
        depth: estimates the depth of generated frames.
        batch: number of episodes.
        rgb: number of episodes, the last of the batch, with an RGB memory.
        empty: number of episodes, the first of the batch, without a memory.
        steps: shortest and longest episode.
        samples_per_cell: samples per cell and axis of a memory read.
        latent_noise: largest standard deviation of the noise on latents of true frames after the start.
        frames: capacity of a map in frames' worth of points; later points are dropped. None for no limit, which makes
            an accelerator wait for the host in every step.

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
        self.first_rgb, self.empty, self.steps = batch - rgb, empty, steps
        self.samples_per_cell, self.latent_noise = samples_per_cell, latent_noise
        self.grid = (latents.shape[-2], latents.shape[-1])
        self.device = data.device
        self.capacities = [frames and frames * height * width for height, width in (self.grid, data.size)]
        self.maps = BatchMap.empty(batch - rgb, codec.channels, self.device), BatchMap.empty(rgb, 3, self.device)
        zeros = torch.zeros(batch, dtype=torch.long, device=self.device)
        self.walk, self.time, self.direction = zeros, zeros, zeros
        self.left, self.true_steps = zeros, zeros  # remaining steps, and how many of them use true frames
        self.skipped = zeros.bool()  # whether true frames are not written
        self.turn = zeros  # number of remaining steps at which the episode turns round; -1: it never does
        self.true_points = zeros  # number of points of true frames, which are the first of a map
        self.preceding = torch.zeros(batch, codec.channels, *self.grid, device=self.device)

    def begin(self, generator: torch.Generator) -> None:
        """Replace the episodes that have ended."""
        over = self.left == 0
        if self.device.type == "cpu" and not over.any():  # elsewhere the check would take longer than the work
            return
        count, (least, most) = len(over), self.steps

        def uniform() -> Tensor:
            return torch.rand(count, generator=generator, device=self.device)

        left = torch.randint(least, most + 1, (count,), generator=generator, device=self.device)
        start = (uniform() * (self.data.length - left)).long()
        direction = 1 - 2 * torch.randint(2, (count,), generator=generator, device=self.device)
        kind = uniform()
        skipped_steps = (uniform() * left).long() + 1
        skipped = kind > 1 - SKIPPED
        fresh = {
            "walk": self.data.choose(count, generator),
            "time": torch.where(direction > 0, start, start + left),
            "direction": direction,
            "left": left,
            "true_steps": torch.where(kind < TRUE, left, torch.where(skipped, skipped_steps, 0)),
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

    def next(self) -> RolloutStep:
        """Return the next step of every episode."""
        last, true = self.data.cameras(self.walk, self.time[:, None]), self._moments(1)
        view = self._read(true.camera[:, 0])
        conditioning = build_conditioning(view, self.preceding[:, :, None], last[:, 0], true.camera)
        shown = view.resize(self.grid)
        observed = shown.visible & (shown.source < self.true_points[:, None, None, None])
        return RolloutStep(conditioning, true, self._latents(1), observed)

    @torch.no_grad()
    def advance(self, step: RolloutStep, latents: Tensor, frames: Tensor, generator: torch.Generator) -> None:
        """Advance all episodes by ``step``, for which the model generated frames.

        Args:
            step: the step of :meth:`next`.
            latents: generated latents ``[B, C, h, w]``.
            frames: frames ``[B, 3, H, W]`` decoded from them.
            generator: random source of the noise on latents of true frames.
        """
        frames, camera = frames.clamp(-1, 1), step.true.camera
        known = step.conditioning.view.surface(self.grid)
        estimate = self.depth(frames[:, :, None], camera, known)
        noised = self.latent_noise * torch.rand(len(latents), 1, 1, 1, generator=generator, device=self.device)
        noised = step.latents + noised * torch.randn(latents.shape, generator=generator, device=self.device)

        is_true = self.true_steps > 0
        mask = is_true[:, None, None, None]
        written = Moments(
            torch.where(mask[..., None], step.true.frames, frames[:, None]),
            torch.where(mask, step.true.depth, estimate),
            camera,
        )
        self.preceding = torch.where(mask, noised, latents)
        self._write(self.preceding, written, ~(is_true & self.skipped))
        self.true_points = torch.where(is_true, self._points(), self.true_points)
        self.time, self.left = self.time + self.direction, self.left - 1
        self.true_steps = (self.true_steps - 1).clamp(min=0)
        self.direction = torch.where(self.left == self.turn, -self.direction, self.direction)

    def state_dict(self) -> dict[str, Tensor]:
        """See :class:`mirage_sim.training.loop.Stateful`."""
        state = {name: getattr(self, name).clone() for name in PROGRESS}
        for number, map in enumerate(self.maps):
            state |= {f"maps.{number}.{part.name}": getattr(map, part.name).clone() for part in fields(map)}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See :class:`mirage_sim.training.loop.Stateful`.

        Raises:
            ValueError: if the state has other keys or another number of episodes.
        """
        current = self.state_dict()
        if current.keys() != state.keys() or any(state[name].shape != current[name].shape for name in PROGRESS):
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
        """Write one frame to the map of each sample where ``where [B]`` is True, and pack the maps."""
        first, camera = self.first_rgb, moments.camera[:, 0]
        depth = moments.depth[:, 0] * where[:, None, None]
        cells = resample_depth(depth[:first], self.grid)
        latent, rgb = self.capacities
        self.maps = (
            self.maps[0].write(latents[:first], cells, camera[:first].resize(self.grid)).packed(latent),
            self.maps[1].write(moments.frames[first:, 0], depth[first:], camera[first:]).packed(rgb),
        )

    def _read(self, camera: Camera) -> MemoryView:
        """Read the maps at cameras of batch shape ``[B]``; the first ``empty`` samples show nothing."""
        first, fine = self.first_rgb, (self.samples_per_cell * self.grid[0], self.samples_per_cell * self.grid[1])
        rendering = encode_rendering(self.codec, self.maps[1].read(camera[first:]), self.grid)
        parts = self.maps[0].read(camera[:first].resize(self.grid), self.samples_per_cell), rendering.resize(fine)
        shown = torch.arange(len(self.walk), device=self.device) >= self.empty
        fields = []
        for name, filler in zip(MemoryView.__dataclass_fields__, (0.0, False, 0.0, -1, 0.0, 0.0), strict=True):
            values = torch.cat([getattr(part, name) for part in parts])
            fields.append(torch.where(shown.view(-1, *[1] * (values.ndim - 1)), values, filler))
        return MemoryView(*fields)
