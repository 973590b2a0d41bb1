"""What a memory would show, computed for a whole training batch at once and differentiable in the latents.

The map of every sample is a dense array of candidate points with a mask: the writes of an episode, in order, each
keeping only the cells that the map lacked. It follows the rules of :class:`mirage_sim.memory.PointMemory`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, cover, lift, splat
from mirage_sim.protocols import MemoryView

TOLERANCE, REFINE = 0.25, 2.0  # the defaults of PointMemory


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

    def read(self, camera: Camera, detail: int = 1) -> MemoryView:
        """View at cameras of batch shape ``[B]`` on the latent grid.

        Returns:
            Shapes ``[B, ..., 1, detail * h, detail * w]``.
        """
        ids = torch.arange(self.points.shape[1]).expand(len(self.points), -1)
        seen = splat(
            self.points,
            ids,
            self.footprint,
            camera,
            tolerance=TOLERANCE,
            refine=REFINE,
            detail=detail,
            valid=self.kept,
        )
        visible = seen.index >= 0
        index = seen.index.clamp(min=0).flatten(1)[:, None].expand(-1, self.features.shape[1], -1)
        latents = torch.gather(self.features, 2, index).unflatten(2, visible.shape[1:]) * visible[:, None]
        return MemoryView(
            latents=latents[:, :, None],
            visible=visible[:, None],
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
        covered = cover(self.points, self.footprint, camera, tolerance=TOLERANCE, refine=REFINE, valid=self.kept)
        same_surface = depth <= covered.surface * (1.0 + TOLERANCE)
        lacking = ((covered.surface == 0) | (~covered.fine & same_surface)) & (depth > 0)
        focal = camera.K[:, None, None, 0, 0]
        return BatchMap(
            torch.cat([self.points, lift(depth, camera).flatten(1, 2)], dim=1),
            torch.cat([self.features, latents.flatten(2)], dim=2),
            torch.cat([self.footprint, (depth / focal).flatten(1)], dim=1),
            torch.cat([self.kept, lacking.flatten(1)], dim=1),
        )

    def packed(self) -> "BatchMap":
        """The same maps without the points that none keeps, in the order they were written; one is left at least."""
        most = max(int(self.kept.sum(1).max()), 1) if len(self.kept) else 1
        order = self.kept.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :most]
        return BatchMap(
            self.points.gather(1, order[..., None].expand(-1, -1, 3)),
            self.features.gather(2, order[:, None].expand(-1, self.features.shape[1], -1)),
            self.footprint.gather(1, order),
            self.kept.gather(1, order),
        )
