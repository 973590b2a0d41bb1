"""Speed of the mini world's steps and of its memory, on the device and on the CPU."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from report import Part
from timing import seconds

from benchmarks.scenes import hall
from mirage_sim.build import build_world_model
from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.world import WorldModel

CHANNELS, GRID = 48, (44, 80)  # of the real backbone's latents
WARM_UP = 3  # steps, unless there are many worlds


def main() -> None:
    """Measure everything."""
    part = Part("speed", __doc__)
    devices = list(dict.fromkeys([part.device, "cpu"]))
    most = part.seconds_left / 50  # for the repeats of one measurement, of which there are about twenty
    environments(part, devices[0], most)
    for size, count in {"3k": 3_000}.items() if part.toy else {"300k": 300_000, "3m": 3_000_000}.items():
        map = hall(count, CHANNELS)
        for device in devices:
            part.measure(f"memory_{size}_{device}", partial(memory, map, device, most))
    for device in devices[1:]:  # last, because many worlds on the CPU take longest
        environments(part, device, most)
    part.end()


def environments(part: Part, device: str, most: float) -> None:
    """Measure :func:`environment` for one world and for several."""
    model = build_world_model("mini", [f"world.device={device}"])
    for worlds in (1, 2) if part.toy else (1, 8, 64, 256):
        part.measure(f"environment_{worlds}_{device}", partial(environment, model, worlds, most))


def environment(model: WorldModel, worlds: int, most: float) -> dict[str, Any]:
    """Total steps per second of all worlds, including collisions and rewards, and the time of each phase.

    Args:
        model: of the worlds.
        worlds: stepped as one batch.
        most: seconds after which no further step begins; there is at least one, after one or more to warm up.
    """
    env: Any = gymnasium.make_vec("MirageWorld-v0", num_envs=worlds, world=model)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (1000, worlds, 2)).astype(np.float32)
    following = iter(actions)
    for _ in range(WARM_UP if worlds < 64 else 0):
        env.step(next(following))
    # a step ends with its frames on the host, so there is no need to wait for the device
    step = seconds(lambda: env.step(next(following)), "cpu", most, repeats=100)
    phases = env.envs[0].unwrapped.world.snapshot().observation.info["seconds"]
    return {
        "steps_per_s": round(worlds / step, 2),
        "ms_per_batch": round(1e3 * step, 2),
        # of the last step; on a GPU a phase also waits for unfinished work of the one before
        "ms_per_phase": {name: round(1e3 * spent, 2) for name, spent in phases.items()},
    }


@torch.inference_mode()
def memory(map: LatentMap, device: str, most: float) -> dict[str, Any]:
    """Milliseconds to read a map, and to write one frame into it, at the real backbone's latent size."""
    points, map = PointMemory(CHANNELS, (1, 1, 1)), map.to(device)
    camera = Camera.from_fov(se3_exp(torch.tensor([[0.0, 0.0, 10.0, 0.0, 0.7, 0.0]])), 60.0, GRID).to(device)
    frame: dict[str, Any] = {
        "latents": torch.randn(CHANNELS, 1, *GRID, device=device),
        "frames": torch.zeros(3, 1, 1, 1, device=device),
        "depth": torch.full((1, *GRID), 1.0, device=device),  # nearer than most points, so that many cells are written
        "static": torch.ones(1, *GRID, dtype=torch.bool, device=device),
        "camera": camera,
    }
    return {
        "read_ms": round(1e3 * seconds(lambda: points.read(map, camera), device, most), 3),
        "write_ms": round(1e3 * seconds(lambda: points.write(map, **frame), device, most), 3),
        "points_written": points.write(map, **frame).points - map.points,
        "blocks": len(map.blocks),
    }


if __name__ == "__main__":
    main()
