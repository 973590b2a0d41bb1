"""What this machine has, which worlds it can run, and what to do about what is missing."""

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mirage_sim.build import CONFIGS
from mirage_sim.evaluation.provenance import cpu
from mirage_sim.models.checkpoints import ASSETS
from mirage_sim.models.wan import download, published

GIB = 2**30
# module, what to say to pip, what for
OPTIONAL = (
    ("transformers", "'mirage_sim[wan]'", "wan5b: prompts; depth; what moves"),
    ("accelerate", "'mirage_sim[wan]'", "wan5b: loading"),
    ("torchvision", "torchvision (the one made for your torch)", "SAM 3 and Qwen3-VL"),
    ("depth_anything_3", "--no-deps depth-anything-3, then what its import asks for", "Depth Anything 3"),
    ("mapanything", "git+https://github.com/facebookresearch/map-anything", "MapAnything"),
    ("unidepth", "git+https://github.com/lpiccinelli-eth/UniDepth", "UniDepth"),
    ("rclpy", "'mirage_sim[ros]'", "ROS 2"),
    ("miniworld", "'mirage_sim[twin]'", "the true simulator, for evaluation"),
    ("stable_baselines3", "'mirage_sim[learn]'", "learned policies"),
    ("rosbags", "'mirage_sim[data]'", "bags"),
    ("viser", "'mirage_sim[viewer]'", "the viewer"),
)
# google/umt5-xxl's encoder, the text encoder of Wan 2.2
UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "layers": 24, "heads": 64, "buckets": 32}


@dataclass(frozen=True)
class Machine:
    """What there is.

    Attributes:
        gpu: name, empty if there is none.
        gpu_gib: its memory, free at the moment.
        ram_gib: the host's memory, free at the moment.
    """

    gpu: str
    gpu_gib: float
    ram_gib: float


def machine() -> Machine:
    """This one."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    info = Path("/proc/meminfo")
    if info.exists():  # counts what the page cache would give back
        lines = (line.split() for line in info.read_text().splitlines())
        free = next((int(line[1]) * 1024 / GIB for line in lines if line[0] == "MemAvailable:"), free)
    if not torch.cuda.is_available():
        return Machine("", 0.0, free)
    return Machine(torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0] / GIB, free)


def doctor(config: dict[str, Any]) -> dict[str, str]:
    """Look around.

    Args:
        config: ``wan5b``, folder of the real backbone's weights or None.

    Returns:
        Lines to show, by what they are about.
    """
    here = machine()
    folder = Path(config["wan5b"]) if config["wan5b"] else download.default_folder()
    lines = {
        "host": f"{cpu()}; {here.ram_gib:.1f} GiB of memory free; Python {platform.python_version()}",
        "device": f"{here.gpu}, {here.gpu_gib:.1f} GiB free" if here.gpu else "no GPU that this torch can use",
    }
    for module in ("torch", "diffusers"):
        lines[module] = _version(module)
    for module, install, purpose in OPTIONAL:
        found = importlib.util.find_spec(module) is not None
        lines[module] = _version(module) if found else f"missing ({purpose}): pip install {install}"
    sizes = wan5b_gib()
    for name, needs, problems in (
        ("mini", f"{mini_gib():.2f}", []),
        ("wan5b", _needs(sizes), wan5b_problems(here, folder, sizes)),
    ):
        verdict = "cannot run yet" if problems else "can run"
        lines[f"world={name}"] = f"{verdict}; weights, in GiB (computed): {needs}"
        lines |= {f"world={name}, to do {number}": problem for number, problem in enumerate(problems, 1)}
    return lines


def wan5b_problems(here: Machine, folder: Path, sizes: dict[str, float]) -> list[str]:
    """What keeps the real backbone from running, and what to do about it; none if nothing does."""
    problems = []
    if not (CONFIGS / "world" / "wan5b.yaml").exists():
        problems.append("this version has no configuration for it")
    missing = [name for name in ("transformers", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        problems.append(f"{' and '.join(missing)} missing: pip install 'mirage_sim[wan]'")
    if faults := download.faults(folder):
        problems.append(f"weights missing ({faults[0]}): mirage download wan5b")
    resident, largest = sizes["backbone"] + sizes["codec"], max(sizes["backbone"], sizes["text encoder"])
    if not here.gpu:
        problems.append("no GPU: it takes one with CUDA or ROCm, and the torch that is made for it")
    elif here.gpu_gib < resident:
        problems.append(
            f"{here.gpu_gib:.1f} GiB free on the GPU are too few for backbone and codec: free some, or offload"
        )
    if here.ram_gib < largest:
        problems.append(
            f"{here.ram_gib:.1f} GiB of memory free are too few to load the largest part, {largest:.1f} GiB"
        )
    return problems


def _needs(sizes: dict[str, float]) -> str:
    parts = ", ".join(f"{name} {gib:.1f}" for name, gib in sizes.items())
    return f"{parts} (only while prompts are new)"


def mini_gib() -> float:
    """The built-in world's weights in float32; they are stored in half of it."""
    return 2 * sum(path.stat().st_size for path in (ASSETS / "mini").glob("*.safetensors")) / GIB


@cache
def wan5b_gib() -> dict[str, float]:
    """Weights of the real backbone's parts: bfloat16, the codec float32. From names and shapes, without the weights."""
    from mirage_sim.models.wan.codec import AutoencoderKLWan, published_config

    def count(part: str) -> int:
        return sum(torch.Size(shape).numel() for shape in published.shapes(part).values())

    with torch.device("meta"):
        codec = sum(parameter.numel() for parameter in AutoencoderKLWan(**published_config()).parameters())
    text = umt5_parameters(**UMT5_XXL)
    parts = {"backbone": (count("backbone"), 2), "side branch": (count("branch"), 2), "codec": (codec, 4)}
    return {name: n * size / GIB for name, (n, size) in (parts | {"text encoder": (text, 2)}).items()}


def umt5_parameters(vocab_size: int, d_model: int, d_kv: int, d_ff: int, layers: int, heads: int, buckets: int) -> int:
    """Parameters of a UMT5 encoder: tokens, and per layer attention, its positions, a gated feed-forward, two norms."""
    layer = 4 * d_model * heads * d_kv + buckets * heads + 3 * d_model * d_ff + 2 * d_model
    return vocab_size * d_model + layers * layer + d_model


def _version(module: str) -> str:
    names = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return "installed"
