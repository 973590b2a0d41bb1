"""Requirements of the Wan2.2 backbone, which are checked before anything is loaded."""

import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from mirage_sim.models.checkpoints import DTYPES, parse_dtype
from mirage_sim.models.wan import download, published
from mirage_sim.models.wan.codec import published_config

GIB = 2**30
# the encoder of google/umt5-xxl, the text encoder of Wan 2.2
UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "layers": 24, "heads": 64, "buckets": 32}


@dataclass(frozen=True)
class Machine:
    """Hardware of a machine.

    Attributes:
        gpu: name of the GPU, empty if there is none.
        gpu_gib: free memory of the GPU in GiB.
        ram_gib: free memory of the host in GiB.
    """

    gpu: str
    gpu_gib: float
    ram_gib: float


def machine() -> Machine:
    """Inspect this machine."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    info = Path("/proc/meminfo")
    if info.exists():  # includes memory that the page cache would release
        lines = (line.split() for line in info.read_text().splitlines())
        free = next((int(line[1]) * 1024 / GIB for line in lines if line[0] == "MemAvailable:"), free)
    if not torch.cuda.is_available():
        return Machine("", 0.0, free)
    return Machine(torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0] / GIB, free)


@dataclass(frozen=True)
class Setting:
    """Settings of the backbone that determine its requirements.

    Attributes:
        device: torch's name of the device.
        dtype: type of the backbone's weights.
        codec_dtype: type of the codec's weights.
        branch: whether there is a side branch.
        offload: whether the backbone stays in host memory and is copied to the GPU layer by layer.
        quantize: whether the backbone's weights are stored in 8 bits.
    """

    device: str = "cuda"
    dtype: str = "bfloat16"
    codec_dtype: str = "bfloat16"
    branch: bool = False
    offload: bool = False
    quantize: bool = False

    def gib(self) -> tuple[float, float]:
        """Compute the memory of the weights in GiB: on the GPU, and the peak on the host."""
        parts = parameters()
        width, codec = DTYPES[self.dtype].itemsize, parts["codec"] * DTYPES[self.codec_dtype].itemsize / GIB
        loaded = parts["backbone"] * width / GIB
        backbone = loaded / width if self.quantize else loaded
        if self.branch:
            backbone += parts["side branch"] * width / GIB
        text = parts["text encoder"] * 2 / GIB  # in bfloat16, only while new prompts are embedded
        if torch.device(self.device).type == "cpu":
            return 0.0, backbone + codec + text
        offloaded = backbone if self.offload else 0.0
        return codec + backbone - offloaded, max(loaded, offloaded + text)


@cache
def parameters() -> dict[str, int]:
    """Count the parameters of each part from published names and shapes."""

    def count(part: str) -> int:
        return sum(torch.Size(shape).numel() for shape in published.shapes(part).values())

    with torch.device("meta"):
        codec = sum(parameter.numel() for parameter in AutoencoderKLWan(**published_config()).parameters())
    text = umt5_parameters(**UMT5_XXL)
    return {"backbone": count("backbone"), "side branch": count("branch"), "codec": codec, "text encoder": text}


def umt5_parameters(vocab_size: int, d_model: int, d_kv: int, d_ff: int, layers: int, heads: int, buckets: int) -> int:
    """Count the parameters of a UMT5 encoder.

    Besides the token embedding, each layer has attention, its relative positions, a gated feed-forward and two norms.
    """
    layer = 4 * d_model * heads * d_kv + buckets * heads + 3 * d_model * d_ff + 2 * d_model
    return vocab_size * d_model + layers * layer + d_model


def missing_requirements(here: Machine, folder: Path, setting: Setting) -> list[str]:
    """List the requirements that a machine does not meet, each with what to do about it."""
    found = []
    missing = [name for name in ("transformers", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        found.append(f"{' and '.join(missing)} missing: pip install 'mirage_sim[wan]'")
    if faults := download.faults(folder):
        found.append(f"weights missing ({faults[0]}): mirage download wan5b")
    gpu, ram = setting.gib()
    if gpu and not here.gpu:
        found.append("no GPU: expected one with CUDA or ROCm, and a torch built for it")
    elif here.gpu_gib < gpu:
        found.append(
            f"{here.gpu_gib:.1f} GiB free on the GPU are too few for weights of {gpu:.1f} GiB: free some, or offload"
        )
    if here.ram_gib < ram:
        found.append(
            f"{here.ram_gib:.1f} GiB of free memory are too few to load the weights, which takes {ram:.1f} GiB"
        )
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
    """Return the device after checking that the backbone can run there, before anything is loaded.

    Args:
        device: torch's name of the device.
        folder: folder of the published weights; None for the default of ``mirage download wan5b``.
        dtype: type of the backbone's weights.
        codec_dtype: type of the codec's weights.
        branch: file of a side branch, or None.
        offload: see :class:`Setting`.
        quantize: see :class:`Setting`.

    Raises:
        ValueError: with the first requirement that is not met, and what to do about it.
    """
    parse_dtype("dtype", dtype)
    parse_dtype("codec_dtype", codec_dtype)
    try:
        setting = Setting(str(torch.device(device)), dtype, codec_dtype, branch is not None, offload, quantize)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: expected one that torch knows, got {device!r}: {reason}") from error
    folder = download.default_folder() if folder is None else Path(folder)
    if found := missing_requirements(machine(), folder, setting):
        more = f" ({len(found)} requirements are not met, see mirage doctor)" if len(found) > 1 else ""
        raise ValueError(f"world: expected a machine that can run wan5b on {device}: {found[0]}{more}")
    return setting.device
