"""Keyframes: observed images that are shown again, pixel by pixel, wherever a new frame sees their surfaces.

A codec loses some detail of every image, and denoising it again at every step loses more. Observed images are still
there, with the depth of what they show; reprojected, their own pixels are closer to the truth than anything that went
through latents. Generated frames are never kept this way: that would be the RGB cache that latents replace.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from mirage_sim.geometry import NEAR, Camera, project, render_depth, unproject

MAX_BYTES = 64 * 2**20  # images and depth maps of a world's keyframes
_CACHED = 64  # keyframes whose image and detail are kept in float32: some per world of a batch
_CANDIDATES = 4  # keyframes that a frame looks at
_MOST = 0.5  # share of pixels from which on a keyframe's colours are interpolated for the whole frame
_SAMPLE = 16  # every so many pixels, and rows, of a keyframe decide how much of it a camera sees
_BEHIND = 1.25  # a sample that is farther than the remembered surface by more than this factor is hidden
_BLUR = 1.0  # pixels, standard deviation: what such a blur removes is detail
_AMPLIFIED = 0.5  # share of the detail that is added where the image is magnified
_MAGNIFIED = 4 / 3  # all of that share from this magnification on, none of it at 1


@dataclass(frozen=True, eq=False)
class Keyframe:
    """An observed image and its depth.

    Attributes:
        image: uint8 ``[3, H, W]``.
        depth: z-depth ``[H, W]`` in metres, 0 where unknown.
        camera: camera of the image, batch shape ``()``, size ``(H, W)``.
        measured: whether the depth was measured; False where the world model estimated it.
    """

    image: Tensor
    depth: Tensor
    camera: Camera
    measured: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of image and depth."""
        return self.image.nbytes + self.depth.nbytes

    @cached_property
    def samples(self) -> Tensor:
        """Points ``[n, 3]`` on a coarse grid of pixels, metres, world frame; NaN where the depth is unknown."""
        start = _SAMPLE // 2
        depth = self.depth[start::_SAMPLE, start::_SAMPLE]
        points = unproject(self.depth, self.camera)[start::_SAMPLE, start::_SAMPLE]
        return torch.where(depth[..., None] > 0, points, torch.nan).reshape(-1, 3)

    def locate(self, points: Tensor, depth: Tensor, camera: Camera, tolerance: float) -> tuple[Tensor, Tensor]:
        """Find the pixels of other frames in this image.

        A pixel sees a surface of this image if the way back agrees: what the image shows where the pixel's point
        falls, at the image's own depth, is seen from the pixel's camera within ``tolerance`` of that pixel. So depth
        must be exact where it matters, near by and after a long way, and may err where it does not.

        Args:
            points: that the pixels show, ``[T, H, W, 3]`` metres, world frame.
            depth: z-depth of the frames ``[T, H, W]`` in metres, 0 where unknown.
            camera: their cameras, batch shape ``[T]``, size ``(H, W)``.
            tolerance: pixels.

        Returns:
            Places ``[T, H, W, 2]`` in this image, as :func:`_sample` takes them; and ``[T, H, W]``, how many times
            larger this image's pixels are there than the frame's, infinite where the frame does not see a surface of
            this image.
        """
        height, width = camera.size
        u, v, z = _project_grid(points, self.camera)
        place = torch.stack([u * (2 / width) - 1, v * (2 / height) - 1], dim=-1)
        there = _sample(self.depth[None], place, "nearest")[:, 0]
        known = (depth > 0) & (there > 0) & (z > NEAR) & (u >= 0) & (u < width) & (v >= 0) & (v < height)

        centre, share = self.camera.c2w[:3, 3], torch.where(known, there / z, 1.0)
        back_u, back_v, _ = _project_grid(centre + (points - centre) * share[..., None], camera)
        off_u, off_v = back_u - _centres(width, depth), back_v - _centres(height, depth)[:, None]
        same = known & (off_u**2 + off_v**2 <= tolerance**2)

        focal = camera.K[:, None, None, 0, 0] / self.camera.K[0, 0]
        return place, torch.where(same, focal * z / depth.clamp(min=NEAR), torch.inf)

    def colours(self, place: Tensor, magnification: Tensor) -> Tensor:
        """Return colours ``[T, 3, H, W]`` in [-1, 1] at places in this image, interpolated bicubically.

        Interpolation blurs what is seen nearer than the image showed it; there its detail is amplified, which keeps the
        gradient energy.

        Args:
            place: ``[T, H, W, 2]``.
            magnification: ``[T, H, W]``; see :meth:`locate`.
        """
        colours, detail = _sample(_image_and_detail(self), place, "bicubic").split(3, dim=1)
        amplified = _AMPLIFIED * ((magnification - 1) / (_MAGNIFIED - 1)).clamp(0, 1)
        return (colours + amplified[:, None] * detail).clamp(-1, 1)


@dataclass(frozen=True)
class Keyframes:
    """The keyframes of a world, oldest first. A value: adding one returns another collection.

    Attributes:
        entries: the keyframes.
        seen: for each, the number of the observation or step that added or showed it last.
    """

    entries: tuple[Keyframe, ...] = ()
    seen: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all images and depth maps."""
        return sum(entry.nbytes for entry in self.entries)

    def add(self, keyframe: Keyframe, now: int, max_bytes: int = MAX_BYTES) -> "Keyframes":
        """Keep another keyframe; beyond ``max_bytes`` forget whole ones, those shown longest ago first.

        Args:
            keyframe: to add; it stays, whatever its size.
            now: number of the present step.
            max_bytes: bytes of all of them.
        """
        entries, seen = [*self.entries, keyframe], [*self.seen, now]
        excess = sum(entry.nbytes for entry in entries) - max_bytes
        while excess > 0 and len(entries) > 1:
            oldest = min(range(len(entries) - 1), key=lambda i: seen[i])
            excess -= entries.pop(oldest).nbytes
            seen.pop(oldest)
        return Keyframes(tuple(entries), tuple(seen))

    def choose(self, surface: Tensor, camera: Camera) -> list[int]:
        """Choose the few keyframes that show most of what a camera sees.

        Args:
            surface: remembered depth ``[h, w]`` in metres on any grid over the camera's image, 0 where unknown; what
                lies behind it is hidden.
            camera: batch shape ``()``.

        Returns:
            Indices, those with measured depth first, then those that show most; a single keyframe is always chosen.
        """
        if len(self) <= 1:
            return list(range(len(self)))
        grid = camera.resize((surface.shape[0], surface.shape[1]))
        samples = torch.stack([entry.samples for entry in self.entries])
        u, v, z = (part.view(len(self), -1) for part in project(samples.flatten(0, 1), grid))
        height, width = grid.size
        inside = (z > NEAR) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        row, column = v.long().clamp(0, height - 1), u.long().clamp(0, width - 1)
        nearest = surface[row, column]
        inside &= (nearest == 0) | (z <= nearest * _BEHIND)
        counts = inside.sum(1)
        order = counts.argsort(descending=True, stable=True)[:_CANDIDATES].tolist()
        return sorted((i for i in order if counts[i] > 0), key=lambda i: not self.entries[i].measured)

    def measured_depth(self, chosen: Sequence[int], camera: Camera) -> Tensor | None:
        """Render the measured depth of some keyframes from another camera.

        Args:
            chosen: indices of keyframes.
            camera: batch shape ``()``.

        Returns:
            ``[H, W]`` metres, 0 where none of them measured anything; None if the depth of all of them was estimated.
        """
        measured = [self.entries[i] for i in chosen if self.entries[i].measured]
        if not measured:
            return None
        depth = torch.stack([entry.depth for entry in measured])
        return render_depth(depth, Camera.stack([entry.camera for entry in measured]), camera)

    def reproject(
        self, chosen: Sequence[int], frames: Tensor, depth: Tensor, camera: Camera, tolerance: float, now: int
    ) -> "tuple[Tensor, Keyframes]":
        """Put the pixels of some keyframes into new frames wherever these see the keyframes' surfaces.

        Each pixel shows the keyframe whose own pixels are finest there, down to the frame's resolution; among equally
        fine ones the first chosen.

        Args:
            chosen: indices of keyframes.
            frames: ``[3, T, H, W]`` in [-1, 1].
            depth: their z-depth ``[T, H, W]`` in metres, 0 where unknown.
            camera: their cameras, batch shape ``[T]``, size ``(H, W)``.
            tolerance: distance in pixels within which the way back agrees (:meth:`Keyframe.locate`).
            now: number of the present step.

        Returns:
            The frames, and these keyframes with :attr:`seen` brought up to date.
        """
        best, points = torch.full_like(depth, torch.inf), unproject(depth, camera)
        shown, seen = frames.transpose(0, 1), list(self.seen)
        for i in chosen:
            place, magnification = self.entries[i].locate(points, depth, camera, tolerance)
            coarseness = magnification.clamp(min=1.0)
            finer = coarseness < best
            if not finer.any():
                continue
            seen[i] = now
            if finer.float().mean() > _MOST:
                shown = torch.where(finer[:, None], self.entries[i].colours(place, magnification), shown)
            else:  # the few pixels that it adds, as one row
                colours = self.entries[i].colours(place[finer][None, None], magnification[finer][None, None])
                shown = shown.permute(0, 2, 3, 1).index_put((finer,), colours[0, :, 0].T).permute(0, 3, 1, 2)
            best = torch.where(finer, coarseness, best)
            if bool((best <= 1.0).all()):
                break  # no keyframe is finer
        return shown.transpose(0, 1), replace(self, seen=tuple(seen))


@lru_cache(maxsize=_CACHED)
def _image_and_detail(keyframe: Keyframe) -> Tensor:
    """``[6, H, W]``: the image in [-1, 1], and what a Gaussian blur removes from it."""
    frame = keyframe.image.float() / 127.5 - 1.0
    reach = round(3 * _BLUR)
    window = torch.exp(-((torch.arange(-reach, reach + 1, device=frame.device) / _BLUR) ** 2) / 2)
    window = (window / window.sum()).expand(3, 1, 1, -1)
    blurred = torch.nn.functional.pad(frame[None], (reach,) * 4, mode="replicate")
    for along in (window, window.transpose(-1, -2)):
        blurred = torch.nn.functional.conv2d(blurred, along, groups=3)
    return torch.cat([frame, frame - blurred[0]])


def _project_grid(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`project` of ``points [T, H, W, 3]``: u, v and z ``[T, H, W]``."""
    u, v, z = (part.unflatten(1, points.shape[1:3]) for part in project(points.flatten(1, 2), camera))
    return u, v, z


def _centres(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device) + 0.5


def _sample(image: Tensor, place: Tensor, mode: str) -> Tensor:
    """``[T, C, H, W]`` of ``[C, H, W]`` at ``place [T, H, W, 2]``, from -1 at the left and upper border to 1."""
    many = image.expand(len(place), *image.shape)
    return torch.nn.functional.grid_sample(many, place, mode=mode, padding_mode="border", align_corners=False)
