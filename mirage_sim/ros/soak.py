"""A long run of the node at full rate: does its memory grow, and does it answer every call?"""

import itertools
import logging
from typing import Any

from mirage_sim.geometry import Drive
from mirage_sim.ros.benchmark import FULL_RATE, TURN, growth, watch
from mirage_sim.ros.client import Client, NodeProcess, private_domain
from mirage_sim.ros.launching import node_command

#: services to call, one a second, and what they are called with; a turn on the spot remembers all that a reset forgot
CALLS: tuple[tuple[str, bool | None], ...] = (
    ("snapshot", None),
    ("restore", None),
    ("pause", True),
    ("step", None),
    ("pause", False),
    ("reset", None),
)
ALLOWED_GROWTH = 0.05

log = logging.getLogger(__name__)


def soak(seconds: float, seed: int = 0) -> dict[str, float]:
    """Turn on the spot at full rate, calling a service every second.

    Args:
        seconds: of wall clock, once a first turn has been seen.
        seed: of the world.

    Returns:
        ``rss_growth``, the fraction by which the node's resident memory grew (median of the last tenth of the time
        against that of the first); ``calls`` made and ``lost_calls``, which got no answer within half a minute or were
        refused; ``images``.

    Raises:
        RuntimeError: if the node ends or falls silent.
    """
    domain, calls, lost = private_domain(), 0, 0
    upcoming = itertools.cycle(CALLS)
    with NodeProcess(domain, node_command(seed=seed, **FULL_RATE)) as process, Client(domain) as client:
        client.connect(process)

        def call() -> Any:
            nonlocal calls, lost
            service, data = next(upcoming)
            answer = client.call(service, data)
            calls += 1
            if answer is None or not answer.success:
                lost += 1
                log.warning("%s: %s", service, "no answer" if answer is None else answer.message)
            if (service, data) in (("pause", True), ("step", None)):
                call()  # as long as it is paused there are no images to wait for

        for service, data in CALLS:  # all of what they need is loaded before memory is first looked at
            client.call(service, data)
        for _ in range(TURN):
            client.answer(0.0, Drive().max_turn_rate)
        resident = watch(client, process, seconds, call)
        images = client.count
    return {"rss_growth": growth(resident), "calls": calls, "lost_calls": lost, "images": images}


def failures(marks: dict[str, float]) -> list[str]:
    """What is wrong with the figures of :func:`soak`, one line each."""
    found = []
    if marks["rss_growth"] > ALLOWED_GROWTH:
        found.append(f"rss_growth: expected at most {ALLOWED_GROWTH}, got {marks['rss_growth']:.4f}")
    if marks["lost_calls"]:
        found.append(f"lost_calls: expected none of {marks['calls']}, got {marks['lost_calls']}")
    return found
