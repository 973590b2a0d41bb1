"""Termination conditions: functions of ``info`` that end an episode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Returns True if the episode ends. A condition with a true attribute ``truncates`` truncates instead of terminating.
TerminationCondition = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Flag:
    """Terminates when an entry of ``info`` is true; a missing entry counts as false.

    Attributes:
        key: of ``info``.
    """

    key: str

    def __call__(self, info: Mapping[str, Any]) -> bool:
        """Return whether the episode ends."""
        return bool(info.get(self.key, False))


@dataclass(frozen=True)
class Time:
    """Truncates after some simulated time. Unlike the counter of a wrapper, the time is part of snapshots and forks.

    Attributes:
        seconds: simulated seconds, positive.

    Raises:
        ValueError: if ``seconds`` is not positive and finite.
    """

    seconds: float
    truncates = True

    def __post_init__(self) -> None:
        number = isinstance(self.seconds, (int, float)) and not isinstance(self.seconds, bool)
        if not number or not 0.0 < self.seconds < float("inf"):
            raise ValueError(f"seconds: expected a positive number, got {self.seconds!r}")

    def __call__(self, info: Mapping[str, Any]) -> bool:
        """Return whether the time has passed, with a tolerance of 1e-6 s for rounding."""
        return info["time"] >= self.seconds - 1e-6


ENDS: dict[str, TerminationCondition] = {"success": Flag("is_success"), "collision": Flag("collision")}


def make_conditions(terminate_on: "Sequence[str | TerminationCondition]") -> tuple[TerminationCondition, ...]:
    """Return the conditions, with names replaced by the built-in ones.

    Raises:
        ValueError: if ``terminate_on`` is not a sequence of names and functions.
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
    """Return whether the episode terminates and whether it is truncated.

    Raises:
        ValueError: if a condition does not return a bool.
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
