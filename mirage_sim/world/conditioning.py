"""What the denoiser is told about a chunk, assembled the same way in training and in a rollout."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.geometry import Camera, invert, se3_log, unproject
from mirage_sim.memory.retrieval import Occupancy, choose_references, occupancy
from mirage_sim.protocols import Conditioning, MemoryView

_SAMPLES = 4  # per cell and axis that a frame's voxels are told by: cells a few metres away are larger than voxels


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
    """Conditioning of ``B`` worlds from what their memories show and how their cameras move.

    What is None the denoiser is not told. How many latent frames there are of each is the same in all worlds of a
    batch; a number may be 0.

    Args:
        view: batched read-out ``[B, ...]`` at ``cameras``.
        preceding: the latents made last, ``[B, C, P, h, w]``, oldest first; those before ``first``, where it is given.
        last: the camera of the frame made last, batch shape ``[B]``.
        cameras: the chunk's cameras, one per latent frame, batch shape ``[B, T]``.
        first: the chunk's first latent frame ``[B, C, 1, h, w]``, where it is the one made last.
        references: latents of earlier frames of the place, ``[B, C, R, h, w]``, best first: see :class:`References`.
        preceding_readout: what the memory showed when ``preceding`` were made, of their shape, zero in holes.
        text: embedded prompts ``[B, L, channels]``.

    Returns:
        A :class:`~mirage_sim.protocols.Conditioning` with ``motion = log(w2c_last @ c2w_t)``, ``[B, T, 6]``.

    Raises:
        ValueError: if the batch shapes of views, latents and cameras do not agree. Whether all else fits its network,
            the denoiser says.
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
    """Which earlier frames the denoiser is shown: those that saw most of the place that is about to be seen.

    Places are sets of voxels; their overlap is intersection over union. See :mod:`mirage_sim.memory.retrieval`.

    Attributes:
        most: reference frames, at most.
        threshold: smallest overlap with the place, in [0, 1].
        voxel: edge in metres.
    """

    most: int = 4
    threshold: float = 0.04
    voxel: float = 0.1

    def place(self, depth: Tensor, camera: Camera) -> Occupancy:
        """The voxels that frames show.

        Args:
            depth: z-depth on the latent grid ``[T, h, w]`` in metres, 0 where unknown: of a frame that was made, or
                what the memory shows where one is about to be made (:meth:`~mirage_sim.protocols.MemoryView.surface`).
            camera: batch shape ``[T]``, of any size.
        """
        fine = depth.float().repeat_interleave(_SAMPLES, -2).repeat_interleave(_SAMPLES, -1)
        points = unproject(fine, camera.resize((fine.shape[-2], fine.shape[-1])))
        return occupancy(points[fine > 0], self.voxel)

    def choose(self, place: Occupancy, frames: Sequence[Occupancy]) -> list[int]:
        """Indices of the frames that saw most of a place, best first; among equals the older ones.

        Args:
            place: what the memory shows where the chunk will be seen from.
            frames: what each frame showed, oldest first; not those that the denoiser is shown anyway.
        """
        return choose_references(place, frames, self.threshold, self.most)


def stack_references(latents: Sequence[Tensor], like: Tensor) -> Tensor:
    """Latents ``[C, h, w]`` of the frames chosen for one world as ``[C, R, h, w]``; R = 0 where none is.

    Args:
        latents: of the frames, in their order.
        like: any latents of that world, ``[C, P, h, w]``, which tell shape and device where there are none.
    """
    return torch.stack(list(latents), dim=1).to(like) if latents else like[:, :0]
