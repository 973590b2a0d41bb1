"""Memory, environment and batched environment on the device, compared with the CPU.

From one state both must read the same points and, after one step, draw the same frame but for rounding. On a longer
walk rounding tips single cells to other points, so that there the frames are scored: against each other, and against
the truth of the package's recorded walks.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from report import Part
from torch import Tensor

from benchmarks.scenes import circuit, furnished_room, ray_cast
from benchmarks.vector import compare
from mirage_sim.build import build_world_model
from mirage_sim.data.clips import load_clip
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.evaluation.rollout import drive
from mirage_sim.evaluation.scores import walk_row
from mirage_sim.geometry import VelocityLimits
from mirage_sim.memory import PointMemory
from mirage_sim.paths import ASSETS
from mirage_sim.world import World, WorldModel

CHANNELS, STRIDE = 48, (4, 16, 16)  # of the real backbone's latents
BEFORE = 4  # steps on the CPU before the state from which both continue
SCORED = ("psnr_whole", "ssim_whole", "sharpness", "abs_rel")


def main() -> None:
    """Measure everything, in float32."""
    part = Part("exactness", __doc__)
    allow_tf32(False)
    part.measure("memory", partial(memory, part, False))
    part.measure("memory_compact", partial(memory, part, True))
    here, there = (build_world_model("mini", [f"world.device={device}"]) for device in ("cpu", part.device))
    part.measure("one_step", partial(one_step, here, there, part))
    if part.device == "cpu":
        part.report.missing("one_step_tf32", "the CPU has no TF32")
    else:
        allow_tf32(True)
        part.measure("one_step_tf32", partial(one_step, here, there, part))
        allow_tf32(False)
    part.measure("batch", partial(batch, here, there, 2 if part.toy else 8))
    part.measure("walk", partial(walk, here, there, 3 if part.toy else 24))
    part.measure("truth", partial(truth, here, there, 2 if part.toy else 24))
    part.end()


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32: products and convolutions that round their factors to 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@torch.inference_mode()
def memory(part: Part, compact: bool) -> dict[str, Any]:
    """Write views of a furnished room, and read them from other cameras, on both devices."""
    views, size = (2, (192, 320)) if part.toy else (8, (704, 1280))
    cameras, elsewhere = circuit(views, size), circuit(4 * views, size)[1::4]
    generator = torch.Generator().manual_seed(0)
    grid = (size[0] // STRIDE[1], size[1] // STRIDE[2])
    latents = torch.randn(CHANNELS, views, *grid, generator=generator)
    depth, static = ray_cast(cameras, *furnished_room()), torch.ones(views, *size, dtype=torch.bool)
    points = PointMemory(CHANNELS, STRIDE, compact=compact)
    maps, reads = [], []
    for device in ("cpu", part.device):
        map = points.write(
            points.empty(),
            latents=latents.to(device),
            frames=torch.zeros(3, views, 1, 1, device=device),
            depth=depth.to(device),
            static=static.to(device),
            camera=cameras.to(device),
        )
        maps.append({name: tensor.cpu() for name, tensor in map.tensors().items()})
        reads.append(points.read(map, elsewhere.to(device)))
    mine, its = reads
    return {
        "points": len(maps[0]["ids"]),
        "maps_identical": all(torch.equal(tensor, maps[1][name]) for name, tensor in maps[0].items()),
        "winners_identical": share(mine.source == its.source.cpu()),
        "latents_max_difference": apart(mine.latents, its.latents),
        "depth_max_difference_m": apart(mine.depth, its.depth),
    }


def one_step(here: WorldModel, there: WorldModel, part: Part) -> dict[str, Any]:
    """Compare one step from the same state on both devices, for several starts: memory reads and frames."""
    motions = VelocityLimits(dt=here.dt).motion(torch.tensor([[1.0, 0.4], [0.6, -0.8], [1.0, 0.0]]))
    winners, levels = [], []
    for start in range(2 if part.toy else 12):
        world, other = World(here), World(there)
        world.reset(start=start, seed=start)
        for step in range(BEFORE):
            world.step(replace(world.camera, c2w=world.camera.c2w @ motions[step % len(motions)]))
        world.save(part.work / "state.safetensors")
        other.load(part.work / "state.safetensors")
        goal = replace(world.camera, c2w=world.camera.c2w @ motions[start % len(motions)])
        chunks = []
        for each in (world, other):
            path = each.model.horizon.path(each.camera, goal, each.model.codec.stride[0])
            chunks.append(each.model.advance([each.state], [path.to(each.model.device)])[1][0])
        mine, its = chunks
        winners.append(mine.view.source == its.view.source.cpu())
        levels.append((mine.frames - its.frames.cpu()).abs() * 127.5)
    return {"winners_identical": share(torch.stack(winners))} | grey_levels(torch.stack(levels))


def batch(here: WorldModel, there: WorldModel, worlds: int) -> dict[str, Any]:
    """Compare a batched environment on the device with single ones, with a second run, and with the CPU's batch."""
    actions = np.random.default_rng(0).uniform(-1, 1, (4, worlds, 2)).astype(np.float32)
    levels, same = compare(there, actions, seed=0)
    frames = []
    for model in (here, there):
        env = gymnasium.make_vec("MirageWorld-v0", num_envs=worlds, world=model)
        env.reset(seed=0)
        frames.append(torch.from_numpy(env.step(actions[0])[0]).float())
    return {
        "grey_levels_from_single": levels,
        "repeats_bit_for_bit": same,
        "against_cpu": grey_levels((frames[0] - frames[1]).abs()),
    }


def walk(here: WorldModel, there: WorldModel, steps: int) -> dict[str, Any]:
    """PSNR between frames of both devices along one drive, in dB, at most 50."""
    walks = []
    for model in (here, there):
        env = gymnasium.make("MirageWorld-v0", world=model, collisions="block")
        frames, collisions = [env.reset(seed=1)[0]], []
        for step in range(steps):
            frame, *_, info = env.step(np.array([0.8, np.sin(step / 4)], np.float32))
            frames.append(frame)
            collisions.append(info["collision"])
        walks.append((np.stack(frames), collisions))
    agreement = psnr(walks[0][0], walks[1][0])
    return {
        "psnr_db": {step: round(float(agreement[step]), 2) for step in (0, 1, 2, 4, 8, 16, 24) if step <= steps},
        "collisions_identical": walks[0][1] == walks[1][1],
    }


def truth(here: WorldModel, there: WorldModel, steps: int) -> dict[str, Any]:
    """Drive both worlds along recorded walks: means of the protocol's scores after the last step."""
    clips = [load_clip(path) for path in sorted(Path(ASSETS / "mini" / "walks").glob("*.safetensors"))]
    scores = {}
    for name, model in (("cpu", here), ("device", there)):
        rollouts = drive(model, clips, [steps] * len(clips))
        rows = [walk_row(clip, rollout) for clip, rollout in zip(clips, rollouts, strict=True)]
        last = max(int(key.rsplit("_", 1)[1]) for key in rows[0] if key.startswith("sharpness_"))
        scores[name] = {f"{key}_{last}": float(np.mean([row[f"{key}_{last}"] for row in rows])) for key in SCORED}
    return {"walks": len(clips), **scores}


def share(agree: Tensor) -> float:
    """Fraction of values that are True."""
    return float(agree.double().mean())


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference."""
    return float((a - b.cpu()).abs().max())


def grey_levels(difference: Tensor) -> dict[str, Any]:
    """Statistics of differences in grey levels, unrounded if the frames are."""
    return {
        "within_one_grey_level": share(difference <= 1.0),
        "largest_grey_level_difference": float(difference.max()),
    }


if __name__ == "__main__":
    main()
