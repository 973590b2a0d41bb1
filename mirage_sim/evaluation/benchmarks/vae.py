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


def vae_marks() -> dict[str, float]:
    """One encoding and one decoding of 5 frames at 704 x 1280, in two windows and in a process of their own.

    About 120 Tflop (100 for decoding): half an hour on two cores.

    Returns:
        ``vae_5f_704x1280_encode_s`` and ``..._decode_s`` (one run each); ``..._peak_gib`` of resident memory, weights
        (float32) and libraries included; and ``vae_stream_gib``, computed, not measured: what streaming keeps of a
        world in bfloat16, the picture decoded whole.
    """
    # a new process, because the peak is that of a process's whole life
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        measured = process.submit(measure, published_config(), SIZE, FRAMES, TILE).result()
    prefix = f"vae_{FRAMES}f_{SIZE[0]}x{SIZE[1]}"
    marks = {f"{prefix}_{name}": value for name, value in measured.items()}
    return {**marks, "vae_stream_gib": round(stream_bytes(published_config(), SIZE) / 2 / GIB, 2)}


def measure(
    config: dict[str, Any], size: tuple[int, int], frames: int, tile: tuple[int, int] | None
) -> dict[str, float]:
    """Seconds of encoding and decoding noise, and the peak of this process's memory so far in GiB."""
    with torch.inference_mode():
        codec = WanCodec(AutoencoderKLWan(**config).eval(), tile)
        video = torch.rand(1, 3, frames, *size) * 2 - 1
        began = time.perf_counter()
        latents = codec.encode(video)
        encoded = time.perf_counter()
        codec.decode(latents)
        decoded = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB  # Linux counts in KiB
    return {
        "encode_s": round(encoded - began, 1),
        "decode_s": round(decoded - encoded, 1),
        "peak_gib": round(peak, 2),
    }


def stream_bytes(config: dict[str, Any], size: tuple[int, int]) -> int:
    """What the decoder keeps of one world between two latent frames, in float32; computed on shapes alone."""
    with torch.device("meta"), torch.inference_mode():
        codec = WanCodec(AutoencoderKLWan(**config))
        latents = torch.zeros(1, codec.channels, 1, size[0] // codec.stride[1], size[1] // codec.stride[2])
        _, stream = codec.decode_next(latents)
        for _ in range(2):  # later frames keep as much
            _, stream = codec.decode_next(latents, stream)
    return stream.nbytes
