"""``mirage bench ros``: cost and delivery of the ROS 2 node, measured from another process over the middleware."""

import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
import numpy as np

from benchmarks.ros_client import Driver
from benchmarks.ros_process import ANSWER_S, NodeProcess, private_domain
from benchmarks.ros_shadow import shadow
from mirage_sim.geometry import VelocityLimits
from mirage_sim.ros import conversions
from mirage_sim.ros.launching import node_command
from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.settings.benchmarks import RosBenchSettings

BLOCK = 10  # steps of the node, then as many of the plain environment
TURN = 60  # steps of a full turn on the spot, after which the memory holds all of it
WIDE: dict[str, Any] = {"image_width": 640, "image_height": 480}
FULL_RATE: dict[str, Any] = {"real_time_factor": 0.0}


def bench_ros(settings: RosBenchSettings) -> dict[str, Any]:
    """Measure the node `mirage_world` in the mini world.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}`` with

        * ``images_per_s``: images received per second while driving at full rate;
        * ``overhead``: time from command to image in lockstep over the time of a step of the plain environment with
          the same settings and actions, minus 1; the median over blocks that alternate;
        * ``latency_ms_p50``, ``latency_ms_p95``: time from command to image in lockstep;
        * ``lockstep_identical``: whether node and environment gave the same images;
        * ``publish_ms_640x480``: time that the node spends on publishing a frame, from its diagnostics;
        * ``delivered_best_effort``, ``delivered_reliable``: fractions of the published frames that arrived;
        * ``rss_growth``: growth of the node's resident memory, as a fraction;
        * ``shadow_images_per_s``, ``imagine_ms_per_pose``, ``imagine_observed_psnr``, ``grid_ms``: see
          :func:`benchmarks.ros_shadow.shadow`.

    Raises:
        ImportError: if ROS 2 is not installed.
        RuntimeError: if the node ends or stops publishing.
    """
    domain = private_domain()
    metrics = full_rate(domain, settings.steps, settings.seconds, settings.seed)
    metrics |= lockstep(domain, settings.steps, settings.seed)
    metrics |= wide_images(domain, settings.frames, settings.seed)
    metrics |= shadow(domain, settings.shadow_images, settings.seed)
    return {"marks": metrics}


def wandering(step: int) -> np.ndarray:
    """Return the action of a drive that never stops: mostly forward, with turns to both sides."""
    forward = 0.6 + 0.4 * math.cos(step / 13)
    return np.array([forward, 0.8 * math.sin(step / 17) * math.cos(step / 41)], dtype=np.float32)


def velocities(action: np.ndarray, limits: VelocityLimits) -> tuple[float, float]:
    """Convert an action of the environment to the m/s and rad/s that the node converts back to the same action."""
    return float(action[0]) * limits.max_speed, float(action[1]) * limits.max_turn_rate


def lockstep(domain: int, steps: int, seed: int) -> dict[str, float]:
    """Compare the node in lockstep with the plain environment, in alternating blocks of steps.

    The environment runs in a thread, like the node's. On a busy machine OpenMP makes the main thread wait for its
    helpers, which would make the plain environment look slower than it is.
    """
    env = gymnasium.make(
        "MirageWorld-v0",
        disable_env_checker=True,
        observation="dict",
        task="none",
        scan=WorldParameters().scan_rays,
    )
    env.reset(seed=seed)
    limits, ratios, latencies, identical = VelocityLimits(), [], [], True
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
            received = []
            for action in actions:
                sent = time.perf_counter()
                received.append(client.answer(*velocities(action, limits)))
                latencies.append(received[-1].arrived - sent)
            ratios.append(sum(latencies[-len(actions) :]) / plain)
            identical &= all(map(np.array_equal, frames, (conversions.frame_of(image.message) for image in received)))
    env.close()
    return {
        "overhead": statistics.median(ratios) - 1,
        "latency_ms_p50": 1e3 * float(np.percentile(latencies, 50)),
        "latency_ms_p95": 1e3 * float(np.percentile(latencies, 95)),
        "lockstep_identical": identical,
    }


def full_rate(domain: int, steps: int, seconds: float, seed: int) -> dict[str, float]:
    """Measure the rate of images while driving, then memory while turning on the spot, both at full rate."""
    limits = VelocityLimits()
    with NodeProcess(domain, node_command(seed=seed, **FULL_RATE)) as process, Driver(domain) as client:
        client.connect(process)
        first, before = client.next_image(), client.count
        for step in range(steps):
            last = client.answer(*velocities(wandering(step), limits))
        rate = (client.count - before) / (last.arrived - first.arrived)
        for _ in range(TURN):
            client.answer(0.0, limits.max_turn_rate)
        resident = watch_memory(client, process, seconds)
    return {"images_per_s": rate, "rss_growth": growth(resident)}


def watch_memory(
    client: Driver, process: NodeProcess, seconds: float, on_sample: Callable[[list[int]], None] = lambda _: None
) -> list[int]:
    """Turn on the spot at full rate and sample the node's resident memory about every second.

    Args:
        client: publishes the commands.
        process: runs the node.
        seconds: wall-clock duration.
        on_sample: called with all samples so far after each new one.

    Returns:
        The samples in bytes.
    """
    resident, turn = [process.resident_bytes()], VelocityLimits().max_turn_rate
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        client.answer(0.0, turn)
        if elapsed >= len(resident):
            resident.append(process.resident_bytes())
            on_sample(resident)
    return [*resident, process.resident_bytes()]


def growth(resident: list[int]) -> float:
    """Return the growth of memory as a fraction: the median of the last tenth over the median of the first, minus 1."""
    tenth = max(len(resident) // 10, 1)
    return statistics.median(resident[-tenth:]) / statistics.median(resident[:tenth]) - 1


def wide_images(domain: int, frames: int, seed: int) -> dict[str, float]:
    """Measure delivery and publishing time of images of 640 x 480.

    The node runs at its default rate, so that the work of the subscribers does not slow down what is measured.
    """
    reliable: list[float] = []
    best_effort: list[float] = []
    costs: list[float] = []
    with (
        NodeProcess(domain, node_command(seed=seed, **WIDE)) as process,
        Driver(domain, on_image=lambda image: reliable.append(image.seconds)) as one,
        Driver(domain, reliable=False, on_image=lambda image: best_effort.append(image.seconds)) as other,
    ):
        for client in (one, other):
            client.connect(process)

        def receive_until(condition: Callable[[], Any]) -> None:
            end = time.perf_counter() + ANSWER_S + frames
            report = one.diagnostics
            while not condition():
                if time.perf_counter() > end:
                    raise RuntimeError(f"images: expected {frames} within {ANSWER_S + frames:g} s")
                for client in (one, other):
                    client.spin(0.005)
                if reliable and one.diagnostics is not report:
                    report = one.diagnostics
                    costs.append(float(report["publish_ms"]))

        receive_until(lambda: reliable and best_effort)
        first = max(reliable[-1], best_effort[-1])
        costs.clear()
        receive_until(lambda: max(reliable) >= first + frames / WorldParameters().frame_rate)
        last = max(reliable)
        grace = time.perf_counter() + 1.0  # for images that are still on their way
        receive_until(lambda: costs and time.perf_counter() > grace)
    published = round((last - first) * WorldParameters().frame_rate)
    return {
        "publish_ms_640x480": statistics.median(costs),
        "delivered_best_effort": sum(first < seconds <= last for seconds in best_effort) / published,
        "delivered_reliable": sum(first < seconds <= last for seconds in reliable) / published,
    }
