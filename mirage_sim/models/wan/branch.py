"""The memory side branch: blocks parallel to the backbone's that turn the read-out into hints."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel, WanTransformerBlock
from torch import Tensor, nn

SHARED = ("patch_size", "num_attention_heads", "attention_head_dim", "ffn_dim", "cross_attn_norm", "qk_norm", "eps")


def in_precision(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert a module's weights to ``dtype``, except those that diffusers keeps in float32 in the backbone, too."""
    for name, parameter in module.named_parameters():
        in_float32 = set(name.split(".")) & set(WanTransformer3DModel._keep_in_fp32_modules)
        parameter.data = parameter.data.to(torch.float32 if in_float32 else dtype)
    return module


class HintBlock(WanTransformerBlock):
    """A block of the backbone with two more projections: diffusers' VACE block, but with one timestep per token.

    Args:
        first: whether this is the first block of the chain, which also takes the backbone's tokens.
        dim: channels of a token.
        block: further arguments of :class:`WanTransformerBlock`.
    """

    def __init__(self, first: bool, dim: int, **block: Any):
        super().__init__(dim, **block)
        self.proj_in = nn.Linear(dim, dim) if first else None
        self.proj_out = nn.Linear(dim, dim)
        self.reset_projections()

    def reset_projections(self) -> None:
        """Initialise the projections so that the hint is zero."""
        if self.proj_in is not None:
            self.proj_in.reset_parameters()
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)


class MemoryBranch(nn.Module):
    """Hint blocks for blocks 0, ``every``, 2 ``every``, ... of the backbone.

    Parameters have the same names as in diffusers' ``WanVACETransformer3DModel``. From ``patch_size`` on, all arguments
    must equal the backbone's.

    Args:
        in_channels: channels of the input: those of the read-out plus as many of the control latent.
        num_layers: number of blocks of the backbone.
        every: distance between blocks of the backbone that get a hint.
        patch_size: latent cells of a token (t, y, x).
        num_attention_heads: number of attention heads.
        attention_head_dim: channels of a head.
        ffn_dim: channels of the feed-forward layers.
        cross_attn_norm: whether to normalise the input of the cross-attention.
        qk_norm: normalisation of queries and keys.
        eps: epsilon of the normalisation.
    """

    def __init__(
        self,
        in_channels: int = 96,
        num_layers: int = 30,
        every: int = 2,
        patch_size: Sequence[int] = (1, 2, 2),
        num_attention_heads: int = 24,
        attention_head_dim: int = 128,
        ffn_dim: int = 14336,
        cross_attn_norm: bool = True,
        qk_norm: str = "rms_norm_across_heads",
        eps: float = 1e-6,
    ):
        super().__init__()
        block = {"ffn_dim": ffn_dim, "cross_attn_norm": cross_attn_norm, "qk_norm": qk_norm, "eps": eps}
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "num_layers": num_layers,
            "every": every,
            "patch_size": tuple(patch_size),
            "num_attention_heads": num_attention_heads,
            "attention_head_dim": attention_head_dim,
            **block,
        }
        dim = num_attention_heads * attention_head_dim
        patch: Any = tuple(patch_size)
        self.vace_patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch, stride=patch)
        self.vace_blocks = nn.ModuleList(
            HintBlock(layer == 0, dim, num_heads=num_attention_heads, **block) for layer in range(0, num_layers, every)
        )

    @staticmethod
    def config_for(backbone: WanTransformer3DModel, every: int = 2) -> dict[str, Any]:
        """Return the ``config`` of a branch for a backbone."""
        config: Any = backbone.config
        shared = {name: config[name] for name in SHARED} | {"patch_size": tuple(config.patch_size)}
        return {"in_channels": 2 * config.in_channels, "num_layers": config.num_layers, "every": every, **shared}

    @classmethod
    def beside(cls, backbone: WanTransformer3DModel, every: int = 2) -> "MemoryBranch":
        """Make a fresh branch for a backbone, on its device and in its precision.

        Its blocks are copies of the corresponding blocks of the backbone. Its hints are zero, so the backbone's output
        does not change.

        Raises:
            ValueError: if the backbone has adapters that are not merged.
        """
        blocks: Any = backbone.blocks
        with torch.device("meta"):  # the copies replace all initial values
            branch = cls(**cls.config_for(backbone, every))
        weight: Any = backbone.patch_embedding.weight
        in_precision(branch, weight.dtype).to_empty(device=weight.device)
        branch.vace_patch_embedding.reset_parameters()
        copies: Any = branch.vace_blocks
        for copy, block in zip(copies, blocks[::every], strict=True):
            copy.reset_projections()
            unexpected = copy.load_state_dict(block.state_dict(), strict=False).unexpected_keys
            if unexpected:
                raise ValueError(f"backbone: expected blocks without adapters, got {unexpected[0]!r}; merge them first")
        return branch

    def enter(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Compute the input of the first hint block, ``[B, N, D]``.

        Args:
            latents: read-out and control latent ``[B, in_channels, T, h, w]``.
            tokens: input tokens of the backbone, ``[B, N, D]``.
        """
        first: Any = self.vace_blocks[0]
        return first.proj_in(self.vace_patch_embedding(latents).flatten(2).transpose(1, 2)) + tokens

    def hint(
        self, layer: int, control: Tensor, text: Tensor, modulation: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the hint for a block of the backbone.

        Args:
            layer: number of the block, a multiple of ``every``.
            control: result of :meth:`enter` or of the previous call, ``[B, N, D]``.
            text: embedded prompt ``[B, L, D]``.
            modulation: modulation by the timesteps, ``[B, N, 6, D]``.
            rotary: cosines and sines of the positions, ``[1, N, 1, channels of a head]`` each.

        Returns:
            The hint to add to the backbone's tokens, and ``control`` for the next call; both ``[B, N, D]``.
        """
        block: Any = self.vace_blocks[layer // self.config["every"]]
        control = block(control, text, modulation, rotary)
        return block.proj_out(control), control
