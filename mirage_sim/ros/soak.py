"""A long run of the node at full rate: does its memory grow, and does it answer every call?"""

import itertools
import logging
from typing import Any

from mirage_sim.geometry import VelocityLimits
from mirage_sim.ros.benchmark import FULL_RATE, TURN, growth, watch
from mirage_sim.ros.client import Driver
from mirage_sim.ros.launching import node_command
from mirage_sim.ros.node_process import NodeProcess, private_domain

#: services to call, a row a second, and what they are called with: a pause ends in the row in which it began, because
#: there are no images to wait for meanwhile; a turn on the spot remembers all that a reset forgot
CALLS: tuple[tuple[tuple[str, bool | None], ...], ...] = (
    (("snapshot", None),),
    (("restore", None),),
    (("pause", True), ("step", None), ("pause", False)),
    (("reset", None),),
)
ALLOWED_GROWTH = 0.05
_EVERY = 10  # rows of calls a line of progress

log = logging.getLogger(__name__)


def soak(seconds: float, seed: int = 0) -> dict[str, float]:
    """Turn on the spot at full rate, calling services every second; progress goes to the log.

    Args:
        seconds: of wall clock, once a first turn has been seen.
        seed: of the world.

    Returns:
        ``rss_growth``, the fraction by which the node's resident memory grew (median of the last tenth of the time
        against that of the first), and ``rss_mb`` at the end; ``calls`` made and ``lost_calls``, which got no answer
        within a minute or were refused; ``images`` received in these ``seconds``.

    Raises:
        RuntimeError: if the node ends or falls silent.
    """
    domain, rows = private_domain(), itertools.cycle(CALLS)
    calls = lost = 0

    def call(client: Driver) -> None:
        nonlocal calls, lost
        for service, data in next(rows):
            answer = client.call(service, data)
            calls += 1
            if answer is None or not answer.success:
                lost += 1
                log.warning("%s: %s", service, "no answer" if answer is None else answer.message)

    with NodeProcess(domain, node_command(seed=seed, **FULL_RATE)) as process, Driver(domain) as client:
        client.connect(process)
        for _ in CALLS:  # all of what they need is loaded before memory is first looked at
            call(client)
        for _ in range(TURN):
            client.answer(0.0, VelocityLimits().max_turn_rate)
        before = client.count

        def every_second(resident: list[int]) -> None:
            call(client)
            if len(resident) % _EVERY == 0:
                log.info(
                    "after about %d of %g s: %d images, %.1f MB, grown by %.4f; %d calls, %d lost",
                    *(len(resident), seconds, client.count - before, resident[-1] / 1e6, growth(resident)),
                    *(calls, lost),
                )

        resident = watch(client, process, seconds, every_second)
        images = client.count - before
    return {
        "seconds": seconds,
        "images": images,
        "calls": calls,
        "lost_calls": lost,
        "rss_mb": resident[-1] / 1e6,
        "rss_growth": growth(resident),
    }


def failures(metrics: dict[str, Any]) -> list[str]:
    """What is wrong with the figures of :func:`soak`, one line each."""
    found = []
    if metrics["rss_growth"] > ALLOWED_GROWTH:
        found.append(f"rss_growth: expected at most {ALLOWED_GROWTH}, got {metrics['rss_growth']:.4f}")
    if metrics["lost_calls"]:
        found.append(f"lost_calls: expected none of {metrics['calls']}, got {metrics['lost_calls']}")
    return found
