"""The Wan2.2 denoiser: diffusers' Wan2.2-TI2V-5B with a memory side branch."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from mirage_sim.models.wan.branch import MemoryBranch
from mirage_sim.protocols import Codec, Conditioning

TIMESTEPS = 1000  # timestep of pure noise in the backbone's training


@dataclass(frozen=True)
class WanCondition:
    """The conditioning as the network uses it.

    Attributes:
        references: clean latents of earlier frames of the same place, ``[B, C, R, h, w]``.
        preceding: clean latents of the frames before the chunk, ``[B, C, P, h, w]``.
        text: prompt embeddings ``[B, L, channels]``.
        rotary: cosines and sines of the positions of all tokens.
        control: read-out and control latent of the chunk and of the preceding frames, ``[B, 2 C, T + P, h, w]``; empty
            without a side branch.
        first: the chunk's first latent frame ``[B, C, 1, h, w]``, which a sampler keeps, or None if it is unknown.
        readout: read-out of the memory ``[B, C, T, h, w]``, zero in holes.
        visible: bool ``[B, T, h, w]``, False in holes.
    """

    references: Tensor
    preceding: Tensor
    text: Tensor
    rotary: tuple[Tensor, Tensor]
    control: Tensor
    first: Tensor | None
    readout: Tensor
    visible: Tensor


class WanDenoiser(nn.Module):
    """The Wan2.2 denoiser. Implements :class:`mirage_sim.protocols.Denoiser` for chunks of any length.

    The order of the tokens is [references | chunk | preceding frames]. References and preceding frames are clean, with
    timestep 0. The positions of references are outside those of the chunk: times -R ... -1, and rows below the image.
    Preceding frames follow the chunk. The side branch processes all tokens except those of references. Weights may be
    offloaded with diffusers' ``apply_group_offloading`` at leaf level.

    Args:
        backbone: a ``WanTransformer3DModel`` that takes one timestep per token: as many output as input channels, no
            image embedder.
        branch: the memory side branch. Without one, only the sampler uses the read-out.
        codec: encodes the control latent, a white video, once per shape; needed with a branch.

    Raises:
        ValueError: if the parts do not fit each other.
    """

    def __init__(self, backbone: WanTransformer3DModel, branch: MemoryBranch | None = None, codec: Codec | None = None):
        super().__init__()
        config: Any = backbone.config
        if config.patch_size[0] != 1 or config.in_channels != config.out_channels or config.image_dim is not None:
            raise ValueError(
                "backbone: expected one latent frame per token, as many channels out as in and no image embedder, got "
                f"patch_size {tuple(config.patch_size)}, {config.in_channels} channels in, {config.out_channels} out "
                f"and image_dim {config.image_dim}"
            )
        if branch is not None and branch.config != MemoryBranch.config_for(backbone, branch.config["every"]):
            wanted = MemoryBranch.config_for(backbone, branch.config["every"])
            raise ValueError(f"branch: expected one made for this backbone, {wanted}, got {branch.config}")
        if branch is not None and (codec is None or codec.channels != config.in_channels):
            got = codec and codec.channels
            raise ValueError(f"codec: expected one of {config.in_channels} channels beside a side branch, got {got}")
        self.backbone: Any = backbone
        self.branch = branch
        self._codec: Any = (codec,)  # a tuple, so that the codec is no submodule
        self._controls: dict[tuple[object, ...], Tensor] = {}

    def condition(self, conditioning: Conditioning) -> WanCondition:
        """See :meth:`mirage_sim.protocols.Denoiser.condition`.

        Raises:
            ValueError: if the text is missing, or if shapes do not match each other or the backbone.
        """
        config, dtype = self.backbone.config, self.backbone.patch_embedding.weight.dtype
        batch, channels, before, height, width = conditioning.preceding.shape
        _, high, wide = config.patch_size
        if channels != config.in_channels or height % high or width % wide:
            raise ValueError(
                f"preceding: expected [B, {config.in_channels}, P, h, w], h a multiple of {high} and w of {wide}, "
                f"got {list(conditioning.preceding.shape)}"
            )
        grid = (batch, channels, None, height, width)
        text = _check("text", conditioning.text, (batch, None, config.text_dim))
        if conditioning.first is not None:
            _check("first", conditioning.first, (batch, channels, 1, height, width))
        references = conditioning.references
        if references is None:
            references = conditioning.preceding[:, :, :0]
        _check("references", references, grid)
        view = conditioning.view.resize((height, width))
        _check("view.latents", view.latents, grid)
        frames = view.latents.shape[2] + before
        return WanCondition(
            references=references.to(dtype),
            preceding=conditioning.preceding.to(dtype),
            text=text.to(dtype),
            rotary=self._positions(references.shape[2], frames, height // high, width // wide, view.latents.device),
            control=self._control(view.latents, conditioning).to(dtype),
            first=conditioning.first,
            readout=view.latents,
            visible=view.visible,
        )

    def _control(self, readout: Tensor, conditioning: Conditioning) -> Tensor:
        """Input of the side branch: read-outs and control latent of the chunk and of the preceding frames."""
        if self.branch is None:
            return readout.new_empty(0)
        preceding = conditioning.preceding_readout
        if preceding is None:
            preceding = torch.zeros_like(conditioning.preceding)
        _check("preceding_readout", preceding, tuple(conditioning.preceding.shape))
        shown = torch.cat([readout, preceding.to(readout)], dim=2)
        return torch.cat([shown, self._white(shown)], dim=1)

    @torch.no_grad()
    def _white(self, like: Tensor) -> Tensor:
        """Latents of a white video in the shape of ``like``, encoded once per shape."""
        (codec,) = self._codec
        key = (*like.shape[2:], like.device)
        if key not in self._controls:
            t, y, x = codec.stride
            frames = t * (like.shape[2] - 1) + 1
            video = like.new_ones(1, 3, frames, like.shape[3] * y, like.shape[4] * x)
            self._controls[key] = codec.encode(video)
        return self._controls[key].to(like).expand_as(like)

    def _positions(
        self, references: int, frames: int, rows: int, columns: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Rotary embedding of all tokens: references first, each frame row by row."""
        time, row = torch.arange(-references, frames), torch.arange(2 * rows)
        of_references = self._rotary(time[:references], row[rows:], torch.arange(columns))
        of_frames = self._rotary(time[references:], row[:rows], torch.arange(columns))
        cosine, sine = (torch.cat(parts, dim=1).to(device) for parts in zip(of_references, of_frames, strict=True))
        return cosine, sine

    def _rotary(self, *positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[1, N, 1, channels of a head]`` on a grid of positions along time, rows and columns."""
        rope = self.backbone.rope  # its device may differ from that of the input under offloading
        widths = [rope.t_dim, rope.h_dim, rope.w_dim]
        shape = [len(position) for position in positions]
        cosines, sines = [], []
        tables = zip(positions, rope.freqs_cos.split(widths, dim=1), rope.freqs_sin.split(widths, dim=1), strict=True)
        for axis, (position, cosine, sine) in enumerate(tables):
            position = position.to(cosine.device)
            broadcast = [-1 if other == axis else 1 for other in range(3)]
            cosines.append(cosine[position.abs()].view(*broadcast, cosine.shape[1]).expand(*shape, -1))
            signed = sine[position.abs()] * position.sign()[:, None]  # sin(-x) = -sin(x)
            sines.append(signed.view(*broadcast, sine.shape[1]).expand(*shape, -1))
        cosine, sine = (torch.cat(parts, dim=-1).flatten(0, 2)[None, :, None] for parts in (cosines, sines))
        return cosine, sine

    def velocity(self, x: Tensor, sigma: Tensor, condition: WanCondition) -> Tensor:
        """See :meth:`mirage_sim.protocols.Denoiser.velocity`. The result has the precision of the backbone."""
        backbone = self.backbone
        frames = torch.cat([condition.references, x.to(condition.preceding), condition.preceding], dim=2)
        tokens = backbone.patch_embedding(frames)
        rows, columns = tokens.shape[-2:]
        tokens = tokens.flatten(2).transpose(1, 2).contiguous()
        offset, length = (part.shape[2] * rows * columns for part in (condition.references, x))
        timestep = torch.zeros(frames.shape[0], frames.shape[2], device=x.device)
        timestep[:, condition.references.shape[2] :][:, : x.shape[2]] = TIMESTEPS * sigma
        timestep = timestep.repeat_interleave(rows * columns, dim=1)
        time, modulation, text, _ = backbone.condition_embedder(
            timestep.flatten(), condition.text, timestep_seq_len=timestep.shape[1]
        )
        tokens = self._run_blocks(tokens, text, modulation.unflatten(2, (6, -1)), condition, offset)
        chunk = slice(offset, offset + length)
        return self._unpatch(tokens[:, chunk], time[:, chunk], x.shape, (rows, columns))

    def _run_blocks(
        self, tokens: Tensor, text: Tensor, modulation: Tensor, condition: WanCondition, references: int
    ) -> Tensor:
        """Run the blocks. After every block with a hint, all tokens except the first ``references`` get their hint."""
        hinted, branch = slice(references, None), self.branch
        rotary = (condition.rotary[0][:, hinted], condition.rotary[1][:, hinted])
        if branch is not None:
            control = branch.enter(condition.control, tokens[:, hinted])
        for layer, block in enumerate(self.backbone.blocks):
            tokens = block(tokens, text, modulation, condition.rotary)
            if branch is not None and layer % branch.config["every"] == 0:
                hint, control = branch.hint(layer, control, text, modulation[:, hinted], rotary)
                tokens = tokens + nn.functional.pad(hint, (0, 0, references, 0))
        return tokens

    def _unpatch(self, tokens: Tensor, time: Tensor, shape: torch.Size, grid: tuple[int, int]) -> Tensor:
        """Convert tokens ``[B, N, D]`` and the embedding of their timesteps to latents of ``shape``."""
        backbone = self.backbone
        table = backbone.scale_shift_table.to(time.device)  # offloading does not move it, because it is in no layer
        shift, scale = (table[:, None] + time[:, :, None]).unbind(dim=2)
        tokens = (backbone.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        patches = backbone.proj_out(tokens)
        patches = patches.unflatten(1, (shape[2], *grid)).unflatten(-1, (*backbone.config.patch_size[1:], -1))
        return patches.permute(0, 6, 1, 2, 4, 3, 5).reshape(shape)


def _check(name: str, tensor: Tensor | None, shape: tuple[int | None, ...]) -> Tensor:
    """Return the tensor after checking its shape, in which None stands for any length."""
    got = [] if tensor is None else list(tensor.shape)
    if tensor is None or len(got) != len(shape) or any(a not in (None, b) for a, b in zip(shape, got, strict=True)):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name}: expected [{wanted}], got {None if tensor is None else got}")
    return tensor
