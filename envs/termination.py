"""What ends an episode, besides the task itself: conditions on ``info``, any number of which can be put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: True once the episode is over. One with an attribute ``truncates`` that is true cuts it short instead.
TerminationCondition = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Flag:
    """Over once an entry of ``info`` is true; an entry that is missing is not.

    Attributes:
        key: of ``info``.
    """

    key: str

    def __call__(self, info: Mapping[str, Any]) -> bool:
        """Whether it is over."""
        return bool(info.get(self.key, False))


@dataclass(frozen=True)
class Time:
    """Cut short once this much simulated time has passed. Snapshots and forks keep the time, as wrappers do not.

    Attributes:
        seconds: simulated, more than 0.

    Raises:
        ValueError: if they are not.
    """

    seconds: float
    truncates = True

    def __post_init__(self) -> None:
        number = isinstance(self.seconds, (int, float)) and not isinstance(self.seconds, bool)
        if not number or not 0.0 < self.seconds < float("inf"):
            raise ValueError(f"seconds: expected a positive number, got {self.seconds!r}")

    def __call__(self, info: Mapping[str, Any]) -> bool:
        """Whether it is over; a millionth of a second early counts, because times are sums."""
        return info["time"] >= self.seconds - 1e-6


ENDS: dict[str, TerminationCondition] = {"success": Flag("is_success"), "collision": Flag("collision")}


def make_conditions(terminate_on: "Sequence[str | TerminationCondition]") -> tuple[TerminationCondition, ...]:
    """The conditions of these names, and those given as they are.

    Raises:
        ValueError: if it is no sequence of such.
    """
    if isinstance(terminate_on, str) or not isinstance(terminate_on, Sequence):
        raise ValueError(
            f"terminate_on: expected a sequence, such as ('success', 'collision', Time(20.0)), got {terminate_on!r}"
        )
    made: list[TerminationCondition] = []
    for end in terminate_on:
        if isinstance(end, str) and end in ENDS:
            made.append(ENDS[end])
        elif callable(end):
            made.append(end)
        else:
            raise ValueError(f"terminate_on: expected {sorted(ENDS)}, Time(seconds) or functions of info, got {end!r}")
    return tuple(made)


def check_termination(terminate_on: Sequence[TerminationCondition], info: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the episode is over, and whether it is cut short.

    Raises:
        ValueError: if a condition returns something else than a bool.
    """
    terminated = truncated = False
    for end in terminate_on:
        over = end(info)
        if not isinstance(over, (bool, np.bool_)):
            raise ValueError(f"terminate_on: expected {end!r} to return a bool, got {over!r}")
        if getattr(end, "truncates", False):
            truncated |= bool(over)
        else:
            terminated |= bool(over)
    return terminated, truncated
