"""``make soak``: run the ROS 2 node at full rate for ten minutes. Fails if memory grew or a service call was lost."""

import argparse
import itertools
import json
import logging
import sys
from typing import Any

from benchmarks.ros import FULL_RATE, TURN, growth, watch_memory
from benchmarks.ros_client import Driver
from benchmarks.ros_process import NodeProcess, private_domain
from mirage_sim.geometry import VelocityLimits
from mirage_sim.ros.launching import node_command

# One row of service calls per second. A pause ends in the row in which it began, because no images arrive meanwhile.
CALLS: tuple[tuple[tuple[str, bool | None], ...], ...] = (
    (("snapshot", None),),
    (("restore", None),),
    (("pause", True), ("step", None), ("pause", False)),
    (("reset", None),),
)
ALLOWED_GROWTH = 0.05
_LOG_EVERY = 10  # rows of calls

log = logging.getLogger(__name__)


def soak(seconds: float, seed: int = 0) -> dict[str, float]:
    """Turn on the spot at full rate and call services every second. Progress goes to the log.

    Args:
        seconds: wall-clock duration, after a first full turn.
        seed: of the world.

    Returns:
        ``rss_growth``, see :func:`benchmarks.ros.growth`; ``rss_mb``, resident memory at the end; ``calls``;
        ``lost_calls``, the calls that were refused or not answered within a minute; ``images`` received; ``seconds``.

    Raises:
        RuntimeError: if the node ends or stops publishing.
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
        for _ in CALLS:  # load everything they need before memory is measured
            call(client)
        for _ in range(TURN):
            client.answer(0.0, VelocityLimits().max_turn_rate)
        before = client.count

        def every_second(resident: list[int]) -> None:
            call(client)
            if len(resident) % _LOG_EVERY == 0:
                log.info(
                    "after about %d of %g s: %d images, %.1f MB, growth %.4f; %d calls, %d lost",
                    *(len(resident), seconds, client.count - before, resident[-1] / 1e6, growth(resident)),
                    *(calls, lost),
                )

        resident = watch_memory(client, process, seconds, every_second)
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
    """Return one line for each metric of :func:`soak` that is out of bounds."""
    found = []
    if metrics["rss_growth"] > ALLOWED_GROWTH:
        found.append(f"rss_growth: expected at most {ALLOWED_GROWTH}, got {metrics['rss_growth']:.4f}")
    if metrics["lost_calls"]:
        found.append(f"lost_calls: expected 0 of {metrics['calls']}, got {metrics['lost_calls']}")
    return found


def main() -> int:
    """Run the soak; metrics go to stdout as JSON, progress and failures to stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="duration")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        metrics = soak(parser.parse_args().seconds)
    except RuntimeError as error:
        found = [str(error)]
    else:
        print(json.dumps(metrics))
        found = failures(metrics)
    for line in found:
        print(f"soak: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
