"""Part of ``mirage bench ros``: a walk through a furnished home, played as a robot to the node in shadow mode."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from sensor_msgs.msg import Image, LaserScan

from benchmarks.ros_client import Client
from benchmarks.ros_player import Player
from benchmarks.ros_process import ANSWER_S, START_S, NodeProcess
from mirage_sim.data.recordings import RecordedFrame
from mirage_sim.data.simulators.homes import HomesSimulator
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.evaluation.place import observed_mask
from mirage_sim.ros import conversions, memory_messages
from mirage_sim.ros.launching import node_command
from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.ros.simulation import Simulation

SIZE = (96, 128)
RATE = 10.0  # images per second of the walk
EVERY = 5  # every so many images are held out
_START = 1_700_000_000.0  # stamp of the first image, seconds
_REPEAT_S = 2.0  # after which an image without an answer is sent again
_SAME = 1e-3  # seconds between two stamps of one image
_GRIDS = 5  # maps that are timed


def homes_walk(count: int, seed: int) -> list[RecordedFrame]:
    """Walk through a home of the reference simulator at 10 images per second, in level axes at the first camera."""
    simulator, frames = HomesSimulator("procedural", SIZE), []
    simulator.reset(seed=seed)
    start = simulator.camera().c2w.inverse()
    for i in range(count):
        image, depth = simulator.render()
        camera = simulator.camera()
        camera = replace(camera, c2w=start @ camera.c2w)
        frames.append(RecordedFrame(image, np.asarray(depth, np.float32), camera, _START + i / RATE))
        simulator.step(np.array([0.6, 0.8 * np.sin(i / 9)]))
    return frames


def shadow(domain: int, count: int, seed: int) -> dict[str, float]:
    """Play a walk to the node, then ask for the images that were held out.

    Each image is sent when the scan of the previous one has arrived.

    Args:
        domain: ROS domain id.
        count: images of the walk, of which each fifth is held out.
        seed: of the home and of the node.

    Returns:
        ``shadow_images_per_s``; ``imagine_ms_per_pose``, time between two images along a path;
        ``imagine_observed_psnr``, mean over the held-out images of dB over pixels that the robot observed; ``grid_ms``,
        time to make a map of what was observed.

    Raises:
        RuntimeError: if the node ends or does not answer.
    """
    walk = homes_walk(count, seed)
    held_out = walk[EVERY - 1 :: EVERY]
    played = [frame for i, frame in enumerate(walk) if i % EVERY != EVERY - 1]
    scans: list[float] = []
    images: list[tuple[float, np.ndarray]] = []
    with (
        NodeProcess(domain, node_command(observe=True, mode="lockstep", seed=seed)) as process,
        Client(domain) as client,
    ):
        player = Player(client.node)

        def receive(message: Image) -> None:
            images.append((time.perf_counter(), conversions.frame_of(message)))

        client.node.create_subscription(
            LaserScan, "scan", lambda scan: scans.append(conversions.seconds_of(scan.header.stamp)), 10
        )
        client.node.create_subscription(Image, "imagine/image_raw", receive, 100)

        def ready() -> bool:
            process.check()
            return player.ready() and client.node.count_publishers("scan") > 0

        wait(client, ready, START_S)
        for frame in played:
            observe(client, player, frame, scans)
            if frame is played[0]:
                began = time.perf_counter()
        rate = (len(played) - 1) / (time.perf_counter() - began)
        player.imagine(held_out)
        wait(client, lambda: len(images) == len(held_out), ANSWER_S)
    arrivals = [arrived for arrived, _ in images]
    masks = (observed_mask(frame, played) for frame in held_out)
    scores = [
        float(psnr(image, frame.image, mask))
        for (_, image), frame, mask in zip(images, held_out, masks, strict=True)
        if mask is not None and mask.any()
    ]
    return {
        "shadow_images_per_s": rate,
        "imagine_ms_per_pose": 1e3 * (arrivals[-1] - arrivals[0]) / max(len(arrivals) - 1, 1),
        "imagine_observed_psnr": float(np.nanmean(scores)),
        "grid_ms": grid_ms(played, seed),
    }


def grid_ms(frames: list[RecordedFrame], seed: int) -> float:
    """Measure the time to make a map of some observed images, and its message: the median, in ms."""
    parameters, seconds = WorldParameters(observe=True, seed=seed), []
    simulation = Simulation(parameters)
    for frame in frames:
        simulation.observe(frame)
    for _ in range(_GRIDS):
        began = time.perf_counter()
        if grid := simulation.occupancy():
            memory_messages.occupancy_grid(grid, frames[-1].stamp, parameters.camera_height)
        seconds.append(time.perf_counter() - began)
    simulation.close()
    return 1e3 * statistics.median(seconds)


def observe(client: Client, player: Player, frame: RecordedFrame, scans: list[float]) -> None:
    """Play a frame until its scan arrives: a message is lost where discovery has not ended yet."""
    end = time.perf_counter() + ANSWER_S
    while time.perf_counter() < end:
        player.play(frame)
        if client.until(lambda: scans and abs(scans[-1] - frame.stamp) < _SAME, _REPEAT_S):
            return
    raise RuntimeError(f"scan: expected one of the image at {frame.stamp:.3f} s within {ANSWER_S:g} s")


def wait(client: Client, condition: Callable[[], object], seconds: float) -> None:
    """Handle messages until a condition holds.

    Raises:
        RuntimeError: if it does not within `seconds`.
    """
    if not client.until(condition, seconds):
        raise RuntimeError(f"the node: expected an answer within {seconds:g} s")
