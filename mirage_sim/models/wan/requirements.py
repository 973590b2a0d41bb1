"""What the real backbone takes of a machine, and whether it is there: asked before anything is loaded."""

import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from mirage_sim.models.wan import download, published
from mirage_sim.models.wan.codec import published_config

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
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


@dataclass(frozen=True)
class Setting:
    """How the real backbone shall run.

    Attributes:
        device: as torch names it.
        dtype: of the backbone's weights.
        codec_dtype: of the codec's.
        branch: whether with a side branch.
        offload: whether the backbone waits in the host's memory, and visits the GPU layer by layer.
        quantize: whether the backbone's weights are kept in 8 bits.
    """

    device: str = "cuda"
    dtype: str = "bfloat16"
    codec_dtype: str = "bfloat16"
    branch: bool = False
    offload: bool = False
    quantize: bool = False

    def gib(self) -> tuple[float, float]:
        """Memory for weights alone, computed: on the GPU, and on the host at the time when it takes most."""
        parts = parameters()
        width, codec = BYTES[self.dtype], parts["codec"] * BYTES[self.codec_dtype] / GIB
        loaded = parts["backbone"] * width / GIB
        backbone = loaded / width if self.quantize else loaded
        if self.branch:
            backbone += parts["side branch"] * width / GIB
        text = parts["text encoder"] * 2 / GIB  # in bfloat16, only while prompts are new
        if torch.device(self.device).type == "cpu":
            return 0.0, backbone + codec + text
        waiting = backbone if self.offload else 0.0
        return codec + backbone - waiting, max(loaded, waiting + text)


@cache
def parameters() -> dict[str, int]:
    """Numbers in the weights of each part, from published names and shapes."""

    def count(part: str) -> int:
        return sum(torch.Size(shape).numel() for shape in published.shapes(part).values())

    with torch.device("meta"):
        codec = sum(parameter.numel() for parameter in AutoencoderKLWan(**published_config()).parameters())
    text = umt5_parameters(**UMT5_XXL)
    return {"backbone": count("backbone"), "side branch": count("branch"), "codec": codec, "text encoder": text}


def umt5_parameters(vocab_size: int, d_model: int, d_kv: int, d_ff: int, layers: int, heads: int, buckets: int) -> int:
    """Parameters of a UMT5 encoder: tokens, and per layer attention, its positions, a gated feed-forward, two norms."""
    layer = 4 * d_model * heads * d_kv + buckets * heads + 3 * d_model * d_ff + 2 * d_model
    return vocab_size * d_model + layers * layer + d_model


def missing_requirements(here: Machine, folder: Path, setting: Setting) -> list[str]:
    """What keeps the real backbone from running so, and what to do about it; none if nothing does."""
    found = []
    missing = [name for name in ("transformers", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        found.append(f"{' and '.join(missing)} missing: pip install 'mirage_sim[wan]'")
    if faults := download.faults(folder):
        found.append(f"weights missing ({faults[0]}): mirage download wan5b")
    gpu, ram = setting.gib()
    if gpu and not here.gpu:
        found.append("no GPU: it takes one with CUDA or ROCm, and the torch that is made for it")
    elif here.gpu_gib < gpu:
        found.append(
            f"{here.gpu_gib:.1f} GiB free on the GPU are too few for weights of {gpu:.1f} GiB: free some, or offload"
        )
    if here.ram_gib < ram:
        found.append(f"{here.ram_gib:.1f} GiB of memory free are too few to load weights, {ram:.1f} GiB at a time")
    return found


def require_device(
    device: str = "cuda",
    folder: str | Path | None = None,
    dtype: str = "bfloat16",
    codec_dtype: str = "bfloat16",
    branch: str | Path | None = None,
    offload: bool = False,
    quantize: bool = False,
) -> str:
    """The device, once it is clear that the real backbone can run there; nothing has been loaded then.

    Args:
        device: as torch names it.
        folder: of the published weights; None for where ``mirage download wan5b`` puts them.
        dtype: of the backbone's weights.
        codec_dtype: of the codec's.
        branch: file of a side branch, or None.
        offload: see :class:`Setting`.
        quantize: see :class:`Setting`.

    Raises:
        ValueError: naming the first thing that is missing, and what to do about it.
    """
    for name, value in (("dtype", dtype), ("codec_dtype", codec_dtype)):
        if value not in BYTES:
            raise ValueError(f"{name}: expected one of {sorted(BYTES)}, got {value!r}")
    try:
        setting = Setting(str(torch.device(device)), dtype, codec_dtype, branch is not None, offload, quantize)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: expected one that torch knows, got {device!r}: {reason}") from error
    folder = download.default_folder() if folder is None else Path(folder)
    if found := missing_requirements(machine(), folder, setting):
        more = f" ({len(found)} things are missing, see mirage doctor)" if len(found) > 1 else ""
        raise ValueError(f"world: expected a machine that can run wan5b on {device}: {found[0]}{more}")
    return setting.device
