"""Low-rank adapters (LoRA) of the Wan2.2 backbone: peft adds them; a world merges the file that training leaves."""

from pathlib import Path

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import save_file

from mirage_sim.io import atomic_write
from mirage_sim.models.pretrained import require

LAYERS = ("to_q", "to_k", "to_v", "to_out.0")  # of every attention


def add_lora(backbone: WanTransformer3DModel, rank: int) -> None:
    """Add fresh adapters to the attentions' q, k, v and o. Only they require gradients; the output does not change yet.

    Their scale is 1, so that merging is ``W + B @ A``.

    Args:
        backbone: the backbone, changed in place.
        rank: rank of each adapter, at least 1.

    Raises:
        ImportError: if peft is not installed.
        ValueError: if the rank is no positive integer.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank: expected a positive integer, got {rank!r}")
    peft = require("peft", "'mirage_sim[train]'")
    backbone.requires_grad_(False)
    backbone.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LAYERS)))
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def save_lora(backbone: WanTransformer3DModel, path: Path) -> None:
    """Write the adapters of a backbone in float32, as :func:`mirage_sim.models.wan.checkpoints.merge_lora` reads them.

    Args:
        backbone: a backbone with adapters of :func:`add_lora`.
        path: the file. The write is atomic.
    """
    peft = require("peft", "'mirage_sim[train]'")
    state = peft.get_peft_model_state_dict(backbone)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        save_file({name: tensor.float().cpu().contiguous() for name, tensor in state.items()}, partial)
