"""``mirage bench ros``: what the node costs and delivers, measured from another process over the real middleware."""

import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
import numpy as np

from mirage_sim.geometry import VelocityLimits
from mirage_sim.ros import conversions
from mirage_sim.ros.client import Driver
from mirage_sim.ros.launching import node_command
from mirage_sim.ros.node_process import ANSWER_S, NodeProcess, private_domain
from mirage_sim.ros.settings import Settings

BLOCK = 10  # steps between two changes of sides
TURN = 60  # steps of a full turn on the spot, after which all of it is remembered
WIDE: dict[str, Any] = {"image_width": 640, "image_height": 480}
FULL_RATE: dict[str, Any] = {"real_time_factor": 0.0}


def bench_ros(cfg: dict[str, Any]) -> dict[str, Any]:
    """Measure the node that ``python -m mirage_sim.ros.node`` runs, in the mini world.

    Args:
        cfg: ``steps``, ``frames``, ``seconds`` and ``seed``; ``configs/bench/ros.yaml`` explains them.

    Returns:
        ``{"metrics": ...}``: ``images_per_s`` received while driving at full rate; ``overhead`` of a step in lockstep,
        command to image, over a step of the plain environment with the same arguments and actions (median over blocks
        that take turns); ``latency_ms_p50`` and ``_p95`` from command to image in lockstep; ``lockstep_identical``,
        whether all images of both were the same; ``publish_ms_640x480``, what the node says it spends on publishing;
        ``delivered_best_effort`` and ``delivered_reliable``, fractions of frames of that size; ``rss_growth``, the
        fraction by which the node's resident memory grew.

    Raises:
        ImportError: if there is no ROS 2.
        RuntimeError: if the node ends or falls silent.
        ValueError: for unusable settings.
    """
    for name in ("steps", "frames"):
        if isinstance(cfg[name], bool) or not isinstance(cfg[name], int) or cfg[name] < 1:
            raise ValueError(f"{name}: expected a positive integer, got {cfg[name]!r}")
    if isinstance(cfg["seconds"], bool) or not isinstance(cfg["seconds"], (int, float)) or not cfg["seconds"] > 0:
        raise ValueError(f"seconds: expected a positive number, got {cfg['seconds']!r}")
    if isinstance(cfg["seed"], bool) or not isinstance(cfg["seed"], int) or cfg["seed"] < 0:
        raise ValueError(f"seed: expected an integer from 0, got {cfg['seed']!r}")
    domain = private_domain()
    metrics = at_full_rate(domain, cfg["steps"], cfg["seconds"], cfg["seed"])
    metrics |= in_lockstep(domain, cfg["steps"], cfg["seed"])
    metrics |= wide_images(domain, cfg["frames"], cfg["seed"])
    return {"marks": metrics}


def wandering(step: int) -> np.ndarray:
    """A drive that never stops, as an action: forward mostly, turns swelling and ebbing to both sides."""
    forward = 0.6 + 0.4 * math.cos(step / 13)
    return np.array([forward, 0.8 * math.sin(step / 17) * math.cos(step / 41)], dtype=np.float32)


def velocities(action: np.ndarray, drive: VelocityLimits) -> tuple[float, float]:
    """What an action of the environment is in m/s and rad/s, such that the node makes the same action of it."""
    return float(action[0]) * drive.max_speed, float(action[1]) * drive.max_turn_rate


def in_lockstep(domain: int, steps: int, seed: int) -> dict[str, float]:
    """One command, one image; taking turns with the plain environment.

    That runs in a thread as the node's does: on a busy machine OpenMP makes the main thread wait for its helpers, which
    would make the node look many times faster than what it wraps.
    """
    env = gymnasium.make(
        "MirageWorld-v0",
        disable_env_checker=True,
        observation="dict",
        task="none",
        scan=Settings().scan_rays,
    )
    env.reset(seed=seed)
    drive, ratios, latencies, identical = VelocityLimits(), [], [], True
    with (
        ThreadPoolExecutor(1) as thread,
        NodeProcess(domain, node_command(mode="lockstep", seed=seed)) as process,
        Driver(domain) as client,
    ):
        client.connect(process)
        for first in range(0, steps, BLOCK):
            actions = [wandering(step) for step in range(first, min(first + BLOCK, steps))]
            began = time.perf_counter()
            frames = list(thread.map(lambda action: env.step(action)[0]["rgb"], actions))
            plain = time.perf_counter() - began
            seen = []
            for action in actions:
                sent = time.perf_counter()
                seen.append(client.answer(*velocities(action, drive)))
                latencies.append(seen[-1].arrived - sent)
            ratios.append(sum(latencies[-len(actions) :]) / plain)
            identical &= all(map(np.array_equal, frames, (conversions.frame_of(image.message) for image in seen)))
    env.close()
    return {
        "overhead": statistics.median(ratios) - 1,
        "latency_ms_p50": 1e3 * float(np.percentile(latencies, 50)),
        "latency_ms_p95": 1e3 * float(np.percentile(latencies, 95)),
        "lockstep_identical": identical,
    }


def at_full_rate(domain: int, steps: int, seconds: float, seed: int) -> dict[str, float]:
    """As fast as it goes: images while wandering, then memory while turning on the spot."""
    drive = VelocityLimits()
    with NodeProcess(domain, node_command(seed=seed, **FULL_RATE)) as process, Driver(domain) as client:
        client.connect(process)
        first, before = client.next_image(), client.count
        for step in range(steps):
            last = client.answer(*velocities(wandering(step), drive))
        rate = (client.count - before) / (last.arrived - first.arrived)
        for _ in range(TURN):
            client.answer(0.0, drive.max_turn_rate)
        resident = watch(client, process, seconds)
    return {"images_per_s": rate, "rss_growth": growth(resident)}


def watch(
    client: Driver, process: NodeProcess, seconds: float, every_second: Callable[[list[int]], None] = lambda _: None
) -> list[int]:
    """Turn on the spot at full rate, and note the resident bytes of the node about every second.

    Args:
        client: who commands.
        process: the node's.
        seconds: of wall clock.
        every_second: called with what has been noted so far whenever something was.
    """
    resident, turn = [process.resident_bytes()], VelocityLimits().max_turn_rate
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        client.answer(0.0, turn)
        if elapsed >= len(resident):
            resident.append(process.resident_bytes())
            every_second(resident)
    return [*resident, process.resident_bytes()]


def growth(resident: list[int]) -> float:
    """By which fraction memory grew: the median of the last tenth against that of the first."""
    tenth = max(len(resident) // 10, 1)
    return statistics.median(resident[-tenth:]) / statistics.median(resident[:tenth]) - 1


def wide_images(domain: int, frames: int, seed: int) -> dict[str, float]:
    """Who gets how many of the frames of 640 x 480, and what publishing them costs.

    At the default rate, so that the subscribers' own work does not slow what is timed.
    """
    reliable: list[float] = []
    best_effort: list[float] = []
    costs: list[float] = []
    with (
        NodeProcess(domain, node_command(seed=seed, **WIDE)) as process,
        Driver(domain, on_image=lambda seen: reliable.append(seen.seconds)) as one,
        Driver(domain, reliable=False, on_image=lambda seen: best_effort.append(seen.seconds)) as other,
    ):
        for client in (one, other):
            client.connect(process)

        def receive(enough: Callable[[], Any]) -> None:
            end = time.perf_counter() + ANSWER_S + frames
            report = one.health
            while not enough():
                if time.perf_counter() > end:
                    raise RuntimeError(f"images: expected {frames} within {ANSWER_S + frames:g} s")
                for client in (one, other):
                    client.spin(0.005)
                if reliable and one.health is not report:
                    report = one.health
                    costs.append(float(report["publish_ms"]))

        receive(lambda: reliable and best_effort)
        first = max(reliable[-1], best_effort[-1])
        costs.clear()
        receive(lambda: max(reliable) >= first + frames / Settings().frame_rate)
        last = max(reliable)
        on_the_way = time.perf_counter() + 1.0
        receive(lambda: costs and time.perf_counter() > on_the_way)
    published = round((last - first) * Settings().frame_rate)
    return {
        "publish_ms_640x480": statistics.median(costs),
        "delivered_best_effort": sum(first < seconds <= last for seconds in best_effort) / published,
        "delivered_reliable": sum(first < seconds <= last for seconds in reliable) / published,
    }
