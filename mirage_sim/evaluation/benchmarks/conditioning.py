"""What it takes to show the denoiser what is remembered: latents, read, or colours, drawn and encoded."""

from typing import Any

import torch

from mirage_sim.evaluation.benchmarks.measure import positive_integers, side_by_side, timed
from mirage_sim.evaluation.benchmarks.scenes import circuit, furnished_room, ray_cast
from mirage_sim.geometry import Camera
from mirage_sim.memory import PointMemory, RgbMemory
from mirage_sim.models.wan.codec import AutoencoderKLWan, WanCodec, published_config

STRIDE = 16  # pixels per latent cell and axis
READS = 9  # of the latent memory, before and after the one of colours


def bench_conditioning(cfg: dict[str, Any]) -> dict[str, Any]:
    """Remember some views of a furnished room in either memory, and look at it from elsewhere.

    The codec has the real architecture of Wan 2.2 and random weights.

    Args:
        cfg: ``size`` of the frames, height and width in pixels, multiples of 16; ``frames`` to remember.

    Returns:
        ``{"metrics": ...}``: ``ratio``, seconds per latent frame from coloured points (``rgb_s``: drawn and encoded,
        one
        run; of it ``rasterise_ms`` for drawing) over those from latent points (``latent_ms``, median); ``height`` and
        ``width``; ``latent_points`` and ``rgb_points`` remembered.

    Raises:
        ValueError: for unusable settings.
    """
    positive_integers(cfg, "frames")
    size = tuple(cfg["size"])
    if len(size) != 2 or any(not isinstance(n, int) or n < 1 or n % STRIDE for n in size):
        raise ValueError(f"size: expected height and width, multiples of {STRIDE}, got {list(size)}")
    with torch.inference_mode():
        return {"marks": _marks(size, cfg["frames"])}


def _marks(size: tuple[int, int], frames: int) -> dict[str, float]:
    codec = WanCodec(AutoencoderKLWan(**published_config()).eval())
    latent, rgb = PointMemory(codec.channels, codec.stride), RgbMemory(codec, codec.stride)
    colours = PointMemory(3, (codec.stride[0], 1, 1))  # what draws the pictures of the other
    cameras = circuit(frames, size)
    generator = torch.Generator().manual_seed(0)
    frame: dict[str, Any] = {
        "latents": torch.randn(codec.channels, frames, size[0] // STRIDE, size[1] // STRIDE, generator=generator),
        "frames": torch.rand(3, frames, *size, generator=generator) * 2 - 1,
        "depth": ray_cast(cameras, *furnished_room()),
        "static": torch.ones(frames, *size, dtype=torch.bool),
        "camera": cameras,
    }
    map, rgb_map = latent.write(latent.empty(), **frame), rgb.write(rgb.empty(), **frame)
    elsewhere: Camera = circuit(2 * frames, size)[1:2]
    (before,) = side_by_side(READS, lambda: latent.read(map, elsewhere))
    drawing = timed(lambda: colours.read(rgb_map, elsewhere))
    seconds = timed(lambda: rgb.read(rgb_map, elsewhere))
    (after,) = side_by_side(READS, lambda: latent.read(map, elsewhere))
    mine = (before + after) / 2
    return {
        "ratio": seconds / mine,
        "latent_ms": 1e3 * mine,
        "rgb_s": seconds,
        "rasterise_ms": 1e3 * drawing,
        "height": size[0],
        "width": size[1],
        "latent_points": map.points,
        "rgb_points": rgb_map.points,
    }
