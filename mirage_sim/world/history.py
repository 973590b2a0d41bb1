"""What a backbone that looks back is shown besides the memory: a part of the world's state, and as immutable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mirage_sim.memory.retrieval import Occupancy, overlaps

_SAME = 0.8  # overlap with an earlier frame from which on a frame is no news


class Frame(NamedTuple):
    """A latent frame that may be a reference: its latents ``[C, h, w]``, and the place that it shows."""

    latents: Tensor
    place: Occupancy


@dataclass(frozen=True)
class History:
    """What is known about the latent frames made last, ``WorldState.preceding [C, P, h, w]``, and those before.

    Attributes:
        text: embedded prompt ``[L, channels]``, or None.
        readout: what the memory showed when the last ones were made, of their shape, zero in holes.
        places: that they show, ``P`` of them.
        earlier: frames before these, oldest first; of those that show the same place only the oldest.
        stream: the codec's, after the last frame; None before the first.
    """

    text: Tensor | None
    readout: Tensor
    places: tuple[Occupancy, ...] = ()
    earlier: tuple[Frame, ...] = ()
    stream: Any = None

    def on(self, latents: Tensor, readout: Tensor, places: Sequence[Occupancy], stream: Any, window: int) -> "History":
        """The past, some frames later.

        Args:
            latents: those made last before and those made now, ``[C, P + T, h, w]``.
            readout: what the memory showed when those now were made, ``[C, T, h, w]``.
            places: that those now show, ``T`` of them.
            stream: the codec's, after them.
            window: how many of the latest frames to keep apart from ``earlier``, at least 1.
        """
        all_places, earlier = (*self.places, *places), list(self.earlier)
        for latent, place in zip(latents[:, :-window].unbind(1), all_places[:-window], strict=True):
            if not (overlaps(place, [frame.place for frame in earlier]) >= _SAME).any():
                earlier.append(Frame(latent.clone(), place))  # a view would keep its whole chunk alive
        readouts = torch.cat([self.readout, readout], dim=1)[:, -window:].clone()
        return History(self.text, readouts, all_places[-window:], tuple(earlier), stream)
