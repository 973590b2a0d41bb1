"""Frame arithmetic: how pixel frames, latent frames, chunks and steps relate.

A causal video codec encodes the first frame to one latent frame and every further ``stride`` frames to another one.
Latent frame ``t`` ends at pixel frame ``t * stride``; it is unprojected with the camera and depth of that frame.
"""

from dataclasses import dataclass

import torch

from mirage_sim.geometry import Camera, interpolate, invert, se3_exp, se3_log


def frames_of(latents: int, stride: int) -> int:
    """Return the number of pixel frames of a video of ``latents`` latent frames, for a temporal ``stride``.

    Raises:
        ValueError: if either is below 1.
    """
    if latents < 1 or stride < 1:
        raise ValueError(f"latents, stride: expected at least 1, got {latents}, {stride}")
    return stride * (latents - 1) + 1


def latents_of(frames: int, stride: int) -> int:
    """Return the number of latent frames of a video of ``frames`` pixel frames, for a temporal ``stride``.

    Raises:
        ValueError: if ``frames`` is not ``stride * n + 1``.
    """
    if frames < 1 or stride < 1 or (frames - 1) % stride:
        raise ValueError(f"frames: expected {stride} * n + 1 for temporal stride {stride}, got {frames}")
    return (frames - 1) // stride + 1


@dataclass(frozen=True)
class Horizon:
    """Length of the chunks that the denoiser generates, and of the steps that are kept of them.

    A chunk has ``latents`` latent frames, which are denoised together. The first ``overlap`` of them repeat the latest
    latent frame. The next ``keep`` become the step. The remaining ones continue the motion, so that the kept frames can
    attend to what comes next; they are discarded, and the next chunk starts after the last frame kept. Each step takes
    one denoising, for any ``keep``: a longer step covers more simulated time at the same cost.

    Attributes:
        latents: number of latent frames of a chunk.
        overlap: 1 if a chunk starts with the latest latent frame, else 0.
        keep: number of latent frames of a step, at most ``latents - overlap``.
        preceding: maximum number of latent frames before the chunk that condition the denoiser.
        fps: pixel frames per simulated second.

    Raises:
        ValueError: if a number is out of range.
    """

    latents: int = 1
    overlap: int = 0
    keep: int = 1
    preceding: int = 1
    fps: float = 10.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("latents", 1, 1000),
            ("overlap", 0, 1),
            ("keep", 1, self.latents - self.overlap),
            ("preceding", 1 - self.overlap, 1000),  # camera motion is relative to the latest frame
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name}: expected an integer in [{least}, {most}], got {value!r}")
        if isinstance(self.fps, bool) or not isinstance(self.fps, (int, float)) or not 0 < self.fps < float("inf"):
            raise ValueError(f"fps: expected a positive number, got {self.fps!r}")

    @property
    def window(self) -> int:
        """Maximum number of past latent frames that the denoiser receives: ``preceding + overlap``."""
        return self.preceding + self.overlap

    def frames(self, stride: int) -> int:
        """Return the number of pixel frames of a step, for a temporal ``stride``.

        Raises:
            ValueError: if the stride is above 1 and chunks do not overlap.
        """
        if stride > 1 and not self.overlap:
            raise ValueError(f"overlap: expected 1 for a codec with a temporal stride of {stride}, got 0")
        return self.keep * stride

    def dt(self, stride: int) -> float:
        """Return the simulated seconds of a step, for a temporal ``stride``."""
        return self.frames(stride) / self.fps

    def path(self, last: Camera, camera: Camera, stride: int) -> Camera:
        """Return the cameras of a step, one per pixel frame, at a constant twist from ``last`` to ``camera``.

        Args:
            last: camera of the frame before the step, batch shape ``()``.
            camera: of the last frame of the step, batch shape ``()``.
            stride: temporal stride of the codec.
        """
        frames = self.frames(stride)
        if frames == 1:
            return Camera(camera.c2w[None], camera.K[None], camera.size)
        share = torch.arange(1, frames + 1, device=camera.c2w.device) / frames
        K = torch.lerp(last.K, camera.K, share[:, None, None])
        return Camera(interpolate(last.c2w, camera.c2w, share), K, camera.size)

    def kept(self, path: Camera, stride: int) -> Camera:
        """Select from the cameras of a step, ``[frames]``, those of its latent frames, ``[keep]``."""
        return path[stride - 1 :: stride]

    def ahead(self, last: Camera, path: Camera, stride: int) -> Camera:
        """Return the cameras of a chunk's latent frames, batch shape ``[latents]``.

        After the end of the path, the motion of its last latent frame continues to the end of the chunk.

        Args:
            last: see :meth:`path`.
            path: cameras of the step, batch shape ``[frames]``.
            stride: temporal stride of the codec.
        """
        kept = self.kept(path, stride)
        missing = self.latents - self.overlap - self.keep
        before = Camera(last.c2w[None], last.K[None], last.size)[: self.overlap]
        c2w, K = torch.cat([before.c2w, kept.c2w]), torch.cat([before.K, kept.K])
        if missing:
            start = kept.c2w[-2] if self.keep > 1 else last.c2w
            twist = se3_log(invert(start) @ kept.c2w[-1])
            times = torch.arange(1, missing + 1, device=twist.device, dtype=twist.dtype)
            c2w = torch.cat([c2w, kept.c2w[-1] @ se3_exp(times[:, None] * twist)])
            K = torch.cat([K, kept.K[-1:].expand(missing, 3, 3)])
        return Camera(c2w, K, path.size)
