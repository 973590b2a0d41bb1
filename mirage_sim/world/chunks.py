"""How frames become chunks and steps: the ``stride * n + 1`` arithmetic, overlaps and horizons, only here.

A causal video codec makes its first latent frame from one picture and every further one from ``stride`` pictures.
Latent frame ``t`` ends at pixel frame ``t * stride``, and that is the picture whose camera and depth it is lifted with.
"""

from dataclasses import dataclass

import torch

from mirage_sim.geometry import Camera, interpolate, invert, se3_exp, se3_log


def frames_of(latents: int, stride: int) -> int:
    """Pixel frames of a video of ``latents`` latent frames, for a temporal ``stride``.

    Raises:
        ValueError: if either is below 1.
    """
    if latents < 1 or stride < 1:
        raise ValueError(f"latents, stride: expected at least 1, got {latents}, {stride}")
    return stride * (latents - 1) + 1


def latents_of(frames: int, stride: int) -> int:
    """Latent frames of a video of ``frames`` pixel frames, for a temporal ``stride``.

    Raises:
        ValueError: if ``frames`` is not ``stride * n + 1``.
    """
    if frames < 1 or stride < 1 or (frames - 1) % stride:
        raise ValueError(f"frames: expected {stride} * n + 1 for temporal stride {stride}, got {frames}")
    return (frames - 1) // stride + 1


@dataclass(frozen=True)
class Horizon:
    """What one denoising makes, and what of it becomes a step of the world.

    A chunk is ``latents`` latent frames that are denoised together and attend to each other both ways. The first
    ``overlap`` of them is the latent frame made last, known already. Of the new ones the first ``keep`` become a step;
    the rest was the horizon: how the motion would go on, which lets the kept frames look ahead. It is dropped, and the
    next chunk starts from the last frame kept. Hence one denoising per step, whatever ``keep``: a step of ``keep``
    latent frames takes ``keep`` times as long in the world, and costs the same to make.

    Attributes:
        latents: latent frames of a chunk.
        overlap: 0, or 1 where a chunk begins with the latent frame made last.
        keep: latent frames of a step, at most ``latents - overlap``.
        preceding: latent frames before the chunk that the denoiser is shown, at most.
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
            ("preceding", 1 - self.overlap, 1000),  # the camera moves from some frame
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name}: expected an integer in [{least}, {most}], got {value!r}")
        if isinstance(self.fps, bool) or not isinstance(self.fps, (int, float)) or not 0 < self.fps < float("inf"):
            raise ValueError(f"fps: expected a positive number, got {self.fps!r}")

    @property
    def window(self) -> int:
        """Latent frames that are looked back at, at most: ``preceding`` and ``overlap``."""
        return self.preceding + self.overlap

    def frames(self, stride: int) -> int:
        """Pixel frames of a step, for a temporal ``stride``.

        Raises:
            ValueError: if chunks do not overlap though latent frames depend on those before.
        """
        if stride > 1 and not self.overlap:
            raise ValueError(f"overlap: expected 1 for a codec with a temporal stride of {stride}, got 0")
        return self.keep * stride

    def dt(self, stride: int) -> float:
        """Simulated seconds of a step, for a temporal ``stride``."""
        return self.frames(stride) / self.fps

    def path(self, last: Camera, camera: Camera, stride: int) -> Camera:
        """The step's cameras, one per pixel frame, ``[frames]``: a constant twist from ``last`` to ``camera``.

        Args:
            last: where the frame before was seen from, batch shape ``()``.
            camera: where the last frame of the step shall be seen from, batch shape ``()``; the path ends there.
            stride: temporal stride of the codec.
        """
        frames = self.frames(stride)
        if frames == 1:
            return Camera(camera.c2w[None], camera.K[None], camera.size)
        share = torch.arange(1, frames + 1, device=camera.c2w.device) / frames
        K = torch.lerp(last.K, camera.K, share[:, None, None])
        return Camera(interpolate(last.c2w, camera.c2w, share), K, camera.size)

    def kept(self, path: Camera, stride: int) -> Camera:
        """Of a step's cameras ``[frames]`` those of its latent frames, ``[keep]``."""
        return path[stride - 1 :: stride]

    def ahead(self, last: Camera, path: Camera, stride: int) -> Camera:
        """The cameras of a chunk's latent frames, batch shape ``[latents]``.

        Where the path ends, the motion of its last latent frame goes on to the end of the chunk.

        Args:
            last: see :meth:`path`.
            path: the step's cameras, batch shape ``[frames]``.
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
