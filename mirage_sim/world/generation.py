"""Generate the latents of a step and decode them: the networks' part of :meth:`WorldModel.advance`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.protocols import Conditioning, MemoryView
from mirage_sim.world.conditioning import build_conditioning, stack_references
from mirage_sim.world.noise import noise
from mirage_sim.world.state import WorldState

if TYPE_CHECKING:
    from mirage_sim.world.world_model import WorldModel


def denoise(
    model: "WorldModel", states: Sequence[WorldState], views: Sequence[MemoryView], ahead: Sequence[Camera]
) -> Tensor:
    """Generate the latents ``[B, C, T, h, w]`` of chunks at cameras ``[T]`` each.

    Worlds with equal numbers of preceding latents and reference frames are denoised as one batch.
    """
    references = [_references(model, *world) for world in zip(states, views, ahead, strict=True)]
    batches: dict[tuple[int, int], list[int]] = {}
    for i, (state, chosen) in enumerate(zip(states, references, strict=True)):
        batches.setdefault((state.preceding.shape[1], chosen.shape[1]), []).append(i)
    shape = (model.codec.channels, model.horizon.latents, *model.grid)
    chunks: dict[int, Tensor] = {}
    for batch in batches.values():
        conditioning = _conditioning(
            model,
            [states[i] for i in batch],
            MemoryView.stack([views[i] for i in batch]),
            Camera.stack([ahead[i] for i in batch]),
            torch.stack([references[i] for i in batch]),
        )
        start = torch.stack([noise(states[i].seed, states[i].step + 1, shape) for i in batch])
        start = start.to(conditioning.preceding.device)
        latents = model.sampler.sample(model.denoiser, model.denoiser.condition(conditioning), start)
        chunks |= zip(batch, latents, strict=True)
    return torch.stack([chunks[i] for i in range(len(states))])


def _references(model: "WorldModel", state: WorldState, view: MemoryView, ahead: Camera) -> Tensor:
    """Latents ``[C, R, h, w]`` of the earlier frames that overlap most with the coming view."""
    if state.history is None or not state.history.earlier:
        return state.preceding[:, :0]
    new = slice(model.horizon.overlap, None)
    place = model.references.place(view.at(new).surface(model.grid), ahead[new])
    chosen = model.references.choose(place, [frame.place for frame in state.history.earlier])
    return stack_references([state.history.earlier[i].latents for i in chosen], state.preceding)


def _conditioning(
    model: "WorldModel", states: Sequence[WorldState], view: MemoryView, ahead: Camera, references: Tensor
) -> Conditioning:
    latents, context = torch.stack([state.preceding for state in states]), {}
    histories = [state.history for state in states if state.history]
    if histories:
        texts = [history.text for history in histories if history.text is not None]
        context = {
            "first": latents[:, :, -1:],
            "references": references,
            "preceding_readout": torch.stack([history.readout[:, :-1] for history in histories]),
            "text": torch.stack(texts) if texts else None,
        }
        latents = latents[:, :, :-1]
    return build_conditioning(view, latents, Camera.stack([state.camera for state in states]), ahead, **context)


def decode(model: "WorldModel", states: Sequence[WorldState], latents: Tensor) -> tuple[Tensor, list[Any]]:
    """Decode latents ``[B, C, T, h, w]`` to frames ``[B, 3, F, H, W]`` and the codec's streams after them."""
    if not model.horizon.overlap:
        return model.codec.decode(latents), [None] * len(states)
    codec: Any = model.codec
    frames, streams = [], []
    for state, chunk in zip(states, latents, strict=True):
        stream, parts = state.history and state.history.stream, []
        for latent in chunk.split(1, dim=1):
            part, stream = codec.decode_next(latent[None], stream)
            parts.append(part)
        frames.append(torch.cat(parts, dim=2))
        streams.append(stream)
    return torch.cat(frames), streams
