"""What a memory would show, computed for a whole training batch at once and differentiable in the latents.

The map of every sample is a dense array of candidate points with a mask: the writes of an episode, in order, each
keeping only the cells that the map lacked. It follows the rules of :class:`mirage_sim.memory.PointMemory`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, Splat, lift, splat
from mirage_sim.geometry.projection import is_coarse
from mirage_sim.protocols import MemoryView

TOLERANCE, REFINE = 0.1, 2.0  # the defaults of PointMemory


@dataclass(frozen=True)
class BatchMap:
    """Points of ``B`` maps: ``points [B, N, 3]``, ``features [B, C, N]``, ``footprint`` and ``kept`` ``[B, N]``."""

    points: Tensor
    features: Tensor
    footprint: Tensor
    kept: Tensor

    @classmethod
    def empty(cls, batch: int, channels: int) -> "BatchMap":
        """Maps that remember nothing: one point each that is not kept, so that shapes need no special case."""
        return cls(
            torch.zeros(batch, 1, 3),
            torch.zeros(batch, channels, 1),
            torch.ones(batch, 1),
            torch.zeros(batch, 1, dtype=torch.bool),
        )

    def _show(self, camera: Camera) -> Splat:
        ids = torch.arange(self.points.shape[1]).expand(len(self.points), -1)
        return splat(self.points, ids, self.footprint, camera, tolerance=TOLERANCE, refine=REFINE, valid=self.kept)

    def _gather(self, values: Tensor, seen: Splat) -> Tensor:
        """``values [B, K, N]`` of the winning points, ``[B, K, h, w]``; zero in holes."""
        index = seen.index.clamp(min=0).flatten(1)[:, None].expand(-1, values.shape[1], -1)
        return torch.gather(values, 2, index).unflatten(2, seen.index.shape[1:]) * (seen.index >= 0)[:, None]

    def read(self, camera: Camera) -> MemoryView:
        """View at cameras of batch shape ``[B]`` on the latent grid; shapes ``[B, ..., 1, h, w]``."""
        seen = self._show(camera)
        return MemoryView(
            latents=self._gather(self.features, seen)[:, :, None],
            visible=(seen.index >= 0)[:, None],
            depth=seen.depth[:, None],
            source=seen.index[:, None],
            offset=seen.offset.movedim(-1, 1)[:, :, None],
            zoom=seen.zoom[:, None],
        )

    def write(self, latents: Tensor, depth: Tensor, camera: Camera) -> "BatchMap":
        """Maps that also hold what they lacked of ``latents [B, C, h, w]`` at ``depth [B, h, w]``.

        Args:
            latents: of one frame per sample.
            depth: on the latent grid; 0 is unknown.
            camera: batch shape ``[B]``, latent grid.
        """
        seen = self._show(camera)
        focal = camera.K[:, None, None, 0, 0]
        coarse = is_coarse(self._gather(self.footprint[:, None], seen)[:, 0], seen.depth, focal, REFINE)
        same_surface = depth <= seen.surface * (1.0 + TOLERANCE)
        lacking = ((seen.index < 0) | (coarse & same_surface)) & (depth > 0)
        return BatchMap(
            torch.cat([self.points, lift(depth, camera).flatten(1, 2)], dim=1),
            torch.cat([self.features, latents.flatten(2)], dim=2),
            torch.cat([self.footprint, (depth / focal).flatten(1)], dim=1),
            torch.cat([self.kept, lacking.flatten(1)], dim=1),
        )
