"""The cost of the denoiser's conditioning: from latent points (read) or from coloured points (drawn and encoded)."""

from typing import Any

import torch

from benchmarks.runner import side_by_side, timed
from benchmarks.scenes import circuit, furnished_room, ray_cast
from mirage_sim.geometry import Camera
from mirage_sim.memory import PointMemory, RgbMemory
from mirage_sim.models.wan.codec import AutoencoderKLWan, WanCodec, published_config
from mirage_sim.settings.benchmarks import ConditioningBenchSettings

STRIDE = 16  # pixels per latent cell and axis
READS = 9  # of the latent memory, before and after the read of coloured points


def bench_conditioning(settings: ConditioningBenchSettings) -> dict[str, Any]:
    """Write views of a furnished room into both memories, and read each from another camera.

    The codec has the real architecture of Wan 2.2 and random weights.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``ratio``, the time per latent frame from coloured points (``rgb_s``: drawn and encoded, one
        run, of which drawing takes ``rasterise_ms``) divided by the time from latent points (``latent_ms``, median);
        ``height`` and ``width``; ``latent_points`` and ``rgb_points`` in the memories.

    Raises:
        ValueError: for unusable settings.
    """
    size = tuple(settings.size)
    if len(size) != 2 or any(not isinstance(n, int) or n < 1 or n % STRIDE for n in size):
        raise ValueError(f"size: expected height and width, multiples of {STRIDE}, got {list(size)}")
    with torch.inference_mode():
        return {"marks": _measure(size, settings.frames)}


def _measure(size: tuple[int, int], frames: int) -> dict[str, float]:
    codec = WanCodec(AutoencoderKLWan(**published_config()).eval())
    latent, rgb = PointMemory(codec.channels, codec.stride), RgbMemory(codec, codec.stride)
    colours = PointMemory(3, (codec.stride[0], 1, 1))  # the same points without encoding, to time drawing
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
    target: Camera = circuit(2 * frames, size)[1:2]
    (before,) = side_by_side(READS, lambda: latent.read(map, target))
    drawing = timed(lambda: colours.read(rgb_map, target))
    rgb_s = timed(lambda: rgb.read(rgb_map, target))
    (after,) = side_by_side(READS, lambda: latent.read(map, target))
    latent_s = (before + after) / 2
    return {
        "ratio": rgb_s / latent_s,
        "latent_ms": 1e3 * latent_s,
        "rgb_s": rgb_s,
        "rasterise_ms": 1e3 * drawing,
        "height": size[0],
        "width": size[1],
        "latent_points": map.points,
        "rgb_points": rgb_map.points,
    }
