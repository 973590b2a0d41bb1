"""What the codec of the real backbone costs on a CPU: its real architecture, at its real size, with random weights."""

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from mirage_sim.models.wan.codec import AutoencoderKLWan, WanCodec, published_config

SIZE = (704, 1280)
FRAMES = 5
TILE = (44, 46)  # two windows, side by side: a sixth more work than the whole picture at once, for less memory
GIB = 2**30


def vae_marks(decode: bool = False) -> dict[str, float]:
    """One encoding of 5 frames at 704 x 1280, in float32, in two windows and in a process of its own.

    19 Tflop; decoding takes 100 more.

    Args:
        decode: whether to decode them as well.

    Returns:
        ``vae_5f_704x1280_encode_s`` and, if wanted, ``..._decode_s`` (one run each); ``..._peak_gib`` of resident
        memory, weights (of the decoder, too) and libraries included; and ``vae_stream_gib``, computed, not measured:
        what streaming keeps of a world in bfloat16, the picture decoded whole.
    """
    # a new process, because the peak is that of a process's whole life
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        measured = process.submit(measure, published_config(), SIZE, FRAMES, TILE, decode).result()
    prefix = f"vae_{FRAMES}f_{SIZE[0]}x{SIZE[1]}"
    metrics = {f"{prefix}_{name}": value for name, value in measured.items()}
    return {**metrics, "vae_stream_gib": round(stream_bytes(published_config(), SIZE) / 2 / GIB, 2)}


def measure(
    config: dict[str, Any], size: tuple[int, int], frames: int, tile: tuple[int, int] | None, decode: bool
) -> dict[str, float]:
    """Seconds of encoding noise, and of decoding it again if wanted; and the peak of this process's memory in GiB."""
    seconds = {}
    with torch.inference_mode():
        codec = WanCodec(AutoencoderKLWan(**config).eval(), tile)
        video = torch.rand(1, 3, frames, *size) * 2 - 1
        began = time.perf_counter()
        latents = codec.encode(video)
        seconds["encode_s"] = time.perf_counter() - began
        if decode:
            began = time.perf_counter()
            codec.decode(latents)
            seconds["decode_s"] = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB  # Linux counts in KiB
    return {name: round(value, 3) for name, value in (seconds | {"peak_gib": peak}).items()}


def stream_bytes(config: dict[str, Any], size: tuple[int, int]) -> int:
    """What the decoder keeps of one world between two latent frames, in float32; computed on shapes alone."""
    with torch.device("meta"), torch.inference_mode():
        codec = WanCodec(AutoencoderKLWan(**config))
        latents = torch.zeros(1, codec.channels, 1, size[0] // codec.stride[1], size[1] // codec.stride[2])
        _, stream = codec.decode_next(latents)
        for _ in range(2):  # later frames keep as much
            _, stream = codec.decode_next(latents, stream)
    return stream.nbytes
