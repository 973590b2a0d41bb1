"""The denoiser's conditioning, built the same way in training and at run time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, invert, se3_log, unproject
from mirage_sim.memory.retrieval import Occupancy, choose_references, occupancy
from mirage_sim.protocols import Conditioning, MemoryView

_SAMPLES = 4  # points per latent cell and axis: a cell a few metres away is larger than a voxel


def build_conditioning(
    view: MemoryView,
    preceding: Tensor,
    last: Camera,
    cameras: Camera,
    *,
    first: Tensor | None = None,
    references: Tensor | None = None,
    preceding_readout: Tensor | None = None,
    text: Tensor | None = None,
) -> Conditioning:
    """Build the conditioning of ``B`` worlds from memory views and camera motion.

    The numbers ``P`` and ``R`` of latent frames must be equal for all worlds of a batch; they may be 0.

    Args:
        view: batched memory view ``[B, ...]`` at ``cameras``.
        preceding: the latest latents, ``[B, C, P, h, w]``, oldest first, without ``first``.
        last: camera of the latest frame, batch shape ``[B]``.
        cameras: of the chunk, one per latent frame, batch shape ``[B, T]``.
        first: first latent frame of an overlapping chunk, ``[B, C, 1, h, w]``: the latest one generated.
        references: latents of earlier frames of the same place, ``[B, C, R, h, w]``, best first; see
            :class:`References`.
        preceding_readout: memory read-out at the cameras of ``preceding``, same shape, zero in holes.
        text: embedded prompts ``[B, L, channels]``.

    Returns:
        A :class:`~mirage_sim.protocols.Conditioning` with ``motion = log(w2c_last @ c2w_t)``, ``[B, T, 6]``.

    Raises:
        ValueError: if the batch shapes of views, latents and cameras do not match. The denoiser checks the rest.
    """
    batch, latents = view.visible.shape[:2]
    if tuple(cameras.batch_shape) != (batch, latents) or tuple(last.batch_shape) != (batch,):
        raise ValueError(
            f"cameras, last: expected batch shapes [{batch}, {latents}] and [{batch}] like the view, "
            f"got {list(cameras.batch_shape)} and {list(last.batch_shape)}"
        )
    if preceding.ndim != 5 or preceding.shape[0] != batch:
        raise ValueError(f"preceding: expected [{batch}, C, P, h, w], got {list(preceding.shape)}")
    return Conditioning(
        view=view,
        preceding=preceding,
        motion=se3_log(invert(last.c2w)[:, None] @ cameras.c2w),
        camera=cameras,
        first=first,
        references=references,
        preceding_readout=preceding_readout,
        text=text,
    )


@dataclass(frozen=True)
class References:
    """Chooses reference frames: the earlier frames that overlap most with the coming view.

    Overlap is the intersection over union of voxel sets; see :mod:`mirage_sim.memory.retrieval`.

    Attributes:
        most: maximum number of reference frames.
        threshold: minimum overlap, in [0, 1].
        voxel: edge length in metres.
    """

    most: int = 4
    threshold: float = 0.04
    voxel: float = 0.1

    def place(self, depth: Tensor, camera: Camera) -> Occupancy:
        """Return the voxels that frames show together.

        Args:
            depth: z-depth on the latent grid, ``[T, h, w]`` metres, 0 where unknown. Of generated frames, or of the
                memory at coming cameras (:meth:`~mirage_sim.protocols.MemoryView.surface`).
            camera: batch shape ``[T]``, any size.
        """
        fine = depth.float().repeat_interleave(_SAMPLES, -2).repeat_interleave(_SAMPLES, -1)
        points = unproject(fine, camera.resize((fine.shape[-2], fine.shape[-1])))
        return occupancy(points[fine > 0], self.voxel)

    def places(self, depth: Tensor, camera: Camera) -> list[Occupancy]:
        """Return the voxels that each frame shows; arguments as for :meth:`place`."""
        return [self.place(depth[t : t + 1], camera[t : t + 1]) for t in range(len(depth))]

    def choose(self, place: Occupancy, frames: Sequence[Occupancy]) -> list[int]:
        """Return the indices of the frames that overlap most with a place, best first; ties go to the older frame.

        Args:
            place: what the memory shows at the chunk's cameras.
            frames: voxels of each earlier frame, oldest first, without the preceding frames.
        """
        return choose_references(place, frames, self.threshold, self.most)


def stack_references(latents: Sequence[Tensor], like: Tensor) -> Tensor:
    """Stack the reference latents ``[C, h, w]`` of one world to ``[C, R, h, w]``.

    Args:
        latents: of the reference frames, in order; may be empty.
        like: any latents of that world, ``[C, P, h, w]``; determines shape and device of an empty result.
    """
    return torch.stack(list(latents), dim=1).to(like) if latents else like[:, :0]
