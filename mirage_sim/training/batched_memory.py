"""A memory for a whole training batch at once, differentiable in the latents.

It follows the rules of :class:`mirage_sim.memory.PointMemory`. The map of each sample is a dense array of candidate
points, in the order of the writes, with a mask of those that the map keeps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, Splat, coverage, masked_coverage, masked_splat, splat, unproject
from mirage_sim.protocols import MemoryView

TOLERANCE, REFINE = 0.25, 2.0  # the defaults of PointMemory


@dataclass(frozen=True)
class BatchMap:
    """The maps of ``B`` samples.

    Attributes:
        points: positions ``[B, N, 3]`` in the world, metres.
        features: latents ``[B, C, N]``.
        footprint: width ``[B, N]`` of the points' cells when they were written, metres.
        kept: bool ``[B, N]``, False for points that are not part of the map.
    """

    points: Tensor
    features: Tensor
    footprint: Tensor
    kept: Tensor

    @classmethod
    def empty(cls, batch: int, channels: int, device: torch.device | str = "cpu") -> "BatchMap":
        """Make empty maps. Each has one point that is not kept, so that no shape is zero."""
        return cls(
            torch.zeros(batch, 1, 3, device=device),
            torch.zeros(batch, channels, 1, device=device),
            torch.ones(batch, 1, device=device),
            torch.zeros(batch, 1, dtype=torch.bool, device=device),
        )

    def read(self, camera: Camera, samples_per_cell: int = 1) -> MemoryView:
        """Read the maps at cameras of batch shape ``[B]`` on the latent grid.

        Returns:
            A view of shape ``[B, ..., 1, samples_per_cell * h, samples_per_cell * w]``.
        """
        seen = self._splat(camera, samples_per_cell)
        visible = seen.index >= 0
        index = seen.index.clamp(min=0).flatten(1)[:, None].expand(-1, self.features.shape[1], -1)
        latents = torch.gather(self.features, 2, index).unflatten(2, visible.shape[1:]) * visible[:, None]
        return MemoryView(
            latents=latents[:, :, None],
            visible=visible[:, None],
            depth=seen.depth[:, None],
            source=seen.index[:, None],
            offset=seen.offset.movedim(-1, 1)[:, :, None],
            log_scale=seen.log_scale[:, None],
        )

    def write(self, latents: Tensor, depth: Tensor, camera: Camera) -> "BatchMap":
        """Return maps that also hold the cells of one frame per sample that they lacked.

        Args:
            latents: latents ``[B, C, h, w]``.
            depth: z-depth ``[B, h, w]`` in metres on the latent grid; 0 is unknown.
            camera: cameras of batch shape ``[B]`` on the latent grid.
        """
        surface, fine = self._coverage(camera)
        same_surface = depth <= surface * (1.0 + TOLERANCE)
        lacking = ((surface == 0) | (~fine & same_surface)) & (depth > 0)
        focal = camera.K[:, None, None, 0, 0]
        return BatchMap(
            torch.cat([self.points, unproject(depth, camera).flatten(1, 2)], dim=1),
            torch.cat([self.features, latents.flatten(2)], dim=2),
            torch.cat([self.footprint, (depth / focal).flatten(1)], dim=1),
            torch.cat([self.kept, lacking.flatten(1)], dim=1),
        )

    def packed(self, capacity: int | None = None) -> "BatchMap":
        """Return the same maps with kept points first, in the order they were written, and the rest cut off.

        Args:
            capacity: points per map; a map that keeps more loses the last ones. None for as many as the largest map
                keeps, at least one; an accelerator must wait for the host then.
        """
        if capacity is None:
            capacity = max(int(self.kept.sum(1).max()), 1) if len(self.kept) else 1
        # points that are not kept go to an extra place at the end, which is cut off
        place = torch.where(self.kept, self.kept.cumsum(1) - 1, capacity).clamp(max=capacity)

        def move(values: Tensor) -> Tensor:
            index = place.view(len(place), *[1] * (values.ndim - 2), -1).expand_as(values)
            return values.new_zeros(*values.shape[:-1], capacity + 1).scatter_(-1, index, values)[..., :capacity]

        points = move(self.points.transpose(1, 2)).transpose(1, 2)
        return BatchMap(points, move(self.features), move(self.footprint), move(self.kept))

    def _splat(self, camera: Camera, samples_per_cell: int) -> Splat:
        options = {"tolerance": TOLERANCE, "refine": REFINE}
        if self._masked:
            return masked_splat(
                self.points, self.footprint, camera, self.kept, samples_per_cell=samples_per_cell, **options
            )
        ids = torch.arange(self.points.shape[1]).expand(len(self.points), -1)
        return splat(
            self.points, ids, self.footprint, camera, samples_per_cell=samples_per_cell, valid=self.kept, **options
        )

    def _coverage(self, camera: Camera) -> tuple[Tensor, Tensor]:
        options = {"tolerance": TOLERANCE, "refine": REFINE}
        if self._masked:
            return masked_coverage(self.points, self.footprint, camera, self.kept, **options)
        covered = coverage(self.points, self.footprint, camera, valid=self.kept, **options)
        return covered.surface, covered.fine

    @property
    def _masked(self) -> bool:
        """Whether to mask points that are not kept. Dropping them is faster on a CPU, but makes other devices wait."""
        return self.points.device.type != "cpu"
