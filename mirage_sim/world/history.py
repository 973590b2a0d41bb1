"""The frames a world has generated, as far as a model with overlapping chunks needs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mirage_sim.memory.retrieval import Occupancy, overlaps

_DUPLICATE = 0.8  # overlap from which on a frame adds nothing to an earlier one


class Frame(NamedTuple):
    """A candidate reference frame: its latents ``[C, h, w]`` and the voxels that it shows."""

    latents: Tensor
    place: Occupancy


@dataclass(frozen=True)
class History:
    """What a model with overlapping chunks keeps of past frames. Immutable, as part of the world state.

    The latest latents themselves, ``[C, P, h, w]``, are ``WorldState.preceding``.

    Attributes:
        text: embedded prompt ``[L, channels]``, or None.
        readout: memory read-out at the cameras of ``preceding``, of its shape, zero in holes.
        places: voxels that each of the ``P`` frames shows.
        earlier: the frames before ``preceding``, oldest first, without duplicates: of frames that show the same place
            only the oldest.
        stream: the codec's stream after the last frame; None before the first.
    """

    text: Tensor | None
    readout: Tensor
    places: tuple[Occupancy, ...] = ()
    earlier: tuple[Frame, ...] = ()
    stream: Any = None

    def extend(
        self, latents: Tensor, readout: Tensor, places: Sequence[Occupancy], stream: Any, window: int
    ) -> "History":
        """Return the history after ``T`` more latent frames.

        Args:
            latents: the preceding and the new latents, ``[C, P + T, h, w]``.
            readout: memory read-out at the new cameras, ``[C, T, h, w]``.
            places: voxels of the ``T`` new frames.
            stream: the codec's stream after the new frames.
            window: number of latest frames that are not moved to ``earlier``, at least 1.
        """
        all_places, earlier = (*self.places, *places), list(self.earlier)
        for latent, place in zip(latents[:, :-window].unbind(1), all_places[:-window], strict=True):
            if not (overlaps(place, [frame.place for frame in earlier]) >= _DUPLICATE).any():
                earlier.append(Frame(latent.clone(), place))  # a view would keep the memory of its whole chunk
        readouts = torch.cat([self.readout, readout], dim=1)[:, -window:].clone()
        return History(self.text, readouts, all_places[-window:], tuple(earlier), stream)
