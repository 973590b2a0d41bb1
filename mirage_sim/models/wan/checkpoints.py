"""Loading of the Wan2.2 weights: published folders, files in the layout of the method's authors, and exported files.

Files that do not fit are rejected before any weight changes. Each tensor of a file is used exactly once.
"""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.quantizers.quantization_config import TorchAoConfig
from torch import Tensor

from mirage_sim.models.checkpoints import parse_dtype, read_weights
from mirage_sim.models.pretrained import load_pretrained, require
from mirage_sim.models.wan.branch import MemoryBranch, in_precision
from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.protocols import Codec

# names of the method's authors and of diffusers; no pattern matches a name of diffusers, so renaming twice is harmless
RENAMED = (
    (r"\bself_attn\.", "attn1."),
    (r"\bcross_attn\.", "attn2."),
    (r"(?<=attn[12]\.)([qkv])\.", r"to_\1."),
    (r"(?<=attn[12]\.)o\.", "to_out.0."),
    (r"\bffn\.0\.", "ffn.net.0.proj."),
    (r"\bffn\.2\.", "ffn.net.2."),
    (r"\bnorm3\.", "norm2."),
    (r"\bmodulation$", "scale_shift_table"),
    (r"\bbefore_proj\.", "proj_in."),
    (r"\bafter_proj\.", "proj_out."),
)
PREFIXES = ("module.", "model.", "state_dict.", "generator.", "pipe.", "vace.", "dit.", "transformer.", "base_model.")


def diffusers_name(name: str) -> str:
    """Convert the name of a tensor of the backbone's or the side branch's blocks to diffusers' name.

    Args:
        name: name in the layout of the method's authors or of diffusers, with or without prefixes of wrapping modules.
    """
    stripped = ""
    while stripped != name:
        stripped = name
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"\.(lora_[AB])\.default\.", r".\1.", name)


def load_backbone(
    folder: str | Path, dtype: torch.dtype = torch.bfloat16, quantize: bool = False
) -> WanTransformer3DModel:
    """Load the backbone from a folder in diffusers' layout.

    Args:
        folder: ``transformer/`` of the published model: ``config.json`` and safetensors, in one file or in shards.
        dtype: type of most weights; diffusers keeps a few in float32.
        quantize: whether to store the weights of linear layers in 8 bits, with torchao.

    Raises:
        ImportError: if accelerate is missing, which diffusers needs to load the model, or torchao for ``quantize``.
        ValueError: if files are missing or truncated, or weights and configuration do not match.
    """
    require("accelerate", "'mirage_sim[wan]'")
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True}
    if quantize:
        torchao = require("torchao.quantization", "torchao")
        options["quantization_config"] = TorchAoConfig(torchao.Int8WeightOnlyConfig())
    return load_pretrained(WanTransformer3DModel, str(folder), **options)  # type: ignore[no-any-return]


def load_branch(path: str | Path, backbone: WanTransformer3DModel) -> MemoryBranch:
    """Load a side branch for a backbone, in its precision and on its device.

    Args:
        path: a file of :func:`~mirage_sim.models.save_model`, or one in the layout of the method's authors.
        backbone: the backbone.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, of another kind, or made for another backbone.
    """
    metadata, state = read_weights(path)
    config = MemoryBranch.config_for(backbone)
    if metadata.get("class") == MemoryBranch.__name__:
        config = _branch_config(path, metadata, backbone)
    with torch.device("meta"):
        branch = MemoryBranch(**config)
    shapes = {name: tuple(tensor.shape) for name, tensor in branch.state_dict().items()}
    weight: Any = backbone.patch_embedding.weight
    state = {name: tensor.to(weight.device) for name, tensor in _checked(path, state, shapes).items()}
    branch.load_state_dict(state, assign=True)
    in_precision(branch, weight.dtype)
    return branch.eval().requires_grad_(False)


def _branch_config(path: str | Path, metadata: Mapping[str, str], backbone: WanTransformer3DModel) -> dict[str, Any]:
    """Read the config of an exported file, in which only ``every`` may differ from the default for this backbone."""
    try:
        config = json.loads(metadata["config"])
        wanted = json.loads(json.dumps(MemoryBranch.config_for(backbone, int(config["every"]))))
    except (TypeError, ValueError, LookupError) as error:  # an arbitrary config
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"{path}: expected the configuration of a MemoryBranch: {reason}") from error
    if config != wanted or config["every"] < 1:
        raise ValueError(f"{path}: expected a side branch for this backbone, {wanted}, got one of {config}")
    return wanted


def merge_lora(backbone: WanTransformer3DModel, path: str | Path, scale: float = 1.0) -> None:
    """Add a low-rank adapter to the backbone's weights, ``W + scale * B @ A`` (Hu et al. 2021, "LoRA").

    Args:
        backbone: the backbone, changed in place.
        path: a safetensors file in the layout of peft, with names of diffusers or of the method's authors.
        scale: weight of the adapter; 1 as in training.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated or any of its tensors does not fit this backbone. Nothing is merged then.
    """
    weights = dict(backbone.named_parameters())
    merged = []
    for layer, down, up in _pairs(path, read_weights(path)[1]):
        weight = weights.get(f"{layer}.weight")
        if weight is None or weight.ndim != 2:
            raise ValueError(f"{path}: expected an adapter for this backbone, got one for {layer}, which it lacks")
        if (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise ValueError(
                f"{path}: expected an adapter for this backbone, {layer} {list(weight.shape)}, "
                f"got one for {[up.shape[0], down.shape[1]]}"
            )
        merged.append((weight, down, up))
    with torch.no_grad():
        for weight, down, up in merged:
            change = up.to(weight.device, torch.float32) @ down.to(weight.device, torch.float32)
            weight.copy_(weight.float() + scale * change)


def _pairs(path: str | Path, state: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    """List the adapters in a file: layer, A ``[r, in]`` and B ``[out, r]``."""
    state = _renamed(path, state)
    pairs = []
    for name, down in state.items():
        layer, found, _ = name.rpartition(".lora_A.weight")
        if found:
            up = state.get(f"{layer}.lora_B.weight")
            if up is None or down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
                raise ValueError(f"{path}: expected lora_A [r, in] and lora_B [out, r] of one rank for {layer}")
            pairs.append((layer, down, up))
    used = {f"{layer}.lora_{part}.weight" for layer, _, _ in pairs for part in "AB"}
    if not pairs:
        raise ValueError(f"{path}: expected pairs of lora_A and lora_B, got none")
    if used != set(state):
        raise ValueError(f"{path}: expected pairs of lora_A and lora_B alone, got also {_listed(set(state) - used)}")
    return pairs


def load_denoiser(
    folder: str | Path,
    codec: Codec | None = None,
    branch: str | Path | None = None,
    lora: str | Path | None = None,
    dtype: str = "bfloat16",
    device: str = "cpu",
    offload: bool = False,
    quantize: bool = False,
) -> WanDenoiser:
    """Load the denoiser from files, ready for inference.

    Args:
        folder: see :func:`load_backbone`.
        codec: codec of the world; needed with a side branch.
        branch: see :func:`load_branch`; None for the backbone alone.
        lora: see :func:`merge_lora`; None for none.
        dtype: type of the weights: ``"bfloat16"``, ``"float16"`` or ``"float32"``.
        device: device that the denoiser runs on.
        offload: whether to keep the weights in host memory and copy them to the device layer by layer.
        quantize: see :func:`load_backbone`; not together with ``lora``.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a setting is out of range or a file does not fit.
        ImportError: if a library is missing.
    """
    weight_dtype = parse_dtype("dtype", dtype)
    if quantize and lora is not None:
        raise ValueError(f"lora: expected none for weights that are quantized, got {lora}")
    backbone: Any = load_backbone(folder, weight_dtype, quantize)
    backbone.to("cpu" if offload else device)
    if lora is not None:
        merge_lora(backbone, lora)
    side_branch = None if branch is None else load_branch(branch, backbone)
    denoiser = WanDenoiser(backbone, side_branch, codec).eval()
    if offload:
        onload_device = torch.device(device)
        use_stream = onload_device.type == "cuda"
        apply_group_offloading(denoiser, onload_device, offload_type="leaf_level", use_stream=use_stream)
    return denoiser


def _renamed(path: str | Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with diffusers' names."""
    renamed = {diffusers_name(name): tensor for name, tensor in state.items()}
    if len(renamed) < len(state):
        raise ValueError(f"{path}: expected each tensor once, got {len(state)} names for {len(renamed)} tensors")
    return renamed


def _checked(path: str | Path, state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the state with diffusers' names after checking that names and shapes equal ``shapes``."""
    state = _renamed(path, state)
    faults = {
        "missing": shapes.keys() - state.keys(),
        "unexpected": state.keys() - shapes.keys(),
        "of another shape": {name for name in shapes.keys() & state.keys() if tuple(state[name].shape) != shapes[name]},
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault} {_listed(names)}" for fault, names in faults.items() if names)
        raise ValueError(f"{path}: expected the {len(shapes)} tensors of a side branch for this backbone: {listed}")
    return state


def _listed(names: Iterable[str]) -> str:
    """List the first three names and their total number."""
    names = sorted(names)
    return f"{', '.join(names[:3])} ({len(names)} in all)"
