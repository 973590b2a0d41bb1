"""What the denoiser is told about a chunk, assembled the same way in training and in a rollout."""

from torch import Tensor

from mirage_sim.geometry import Camera, invert, se3_log
from mirage_sim.protocols import Conditioning, MemoryView


def build_conditioning(view: MemoryView, preceding: Tensor, last: Camera, cameras: Camera) -> Conditioning:
    """Conditioning of ``B`` worlds from what their memories show and how their cameras move.

    Args:
        view: batched read-out ``[B, ...]`` at ``cameras``.
        preceding: the latents made last, ``[B, C, P, h, w]``.
        last: the camera of the last of ``preceding``, batch shape ``[B]``.
        cameras: the chunk's cameras, one per latent frame, batch shape ``[B, T]``.

    Returns:
        A :class:`~mirage_sim.protocols.Conditioning` with ``motion = log(w2c_last @ c2w_t)``, ``[B, T, 6]``.

    Raises:
        ValueError: if the batch shapes do not agree.
    """
    batch, latents = view.visible.shape[:2]
    if tuple(cameras.batch_shape) != (batch, latents) or tuple(last.batch_shape) != (batch,):
        raise ValueError(
            f"cameras, last: expected batch shapes [{batch}, {latents}] and [{batch}] like the view, "
            f"got {list(cameras.batch_shape)} and {list(last.batch_shape)}"
        )
    if preceding.ndim != 5 or preceding.shape[0] != batch:
        raise ValueError(f"preceding: expected [{batch}, C, P, h, w], got {list(preceding.shape)}")
    motion = se3_log(invert(last.c2w)[:, None] @ cameras.c2w)
    return Conditioning(view=view, preceding=preceding, motion=motion, camera=cameras)
