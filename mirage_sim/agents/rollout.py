"""``mirage rollout``: an agent walks through ``MirageWorld-v0``, and what it saw is kept for people to look at."""

import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from mirage_sim.agents.policies import Policy, RandomPolicy, ReplayPolicy, ScriptedPolicy
from mirage_sim.build import instantiate
from mirage_sim.data.clips import Clip, load_clip
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.evaluation.pictures import (
    contact_sheet,
    save_picture,
    save_video,
    side_by_side,
    tint_invented,
    top_down,
)
from mirage_sim.world import World
from mirage_sim.world.images import fit

POLICIES = ("scripted", "random", "replay")
WALKS = Path(__file__).parent.parent / "assets" / "mini" / "walks"
SHEET_COLUMNS = 9


@dataclass
class Episode:
    """What was seen and measured, one entry per frame; the first frame is the given one.

    Attributes:
        frames: uint8 ``[H, W, 3]``.
        remembered: bool ``[H, W]``.
        c2w: camera-to-world ``[4, 4]``.
        infos: the environment's.
        rewards: one fewer than frames.
        truth: true frames, uint8 ``[H, W, 3]``; empty where there is no truth.
        seconds: wall-clock time of all steps.
    """

    frames: list[np.ndarray] = field(default_factory=list)
    remembered: list[np.ndarray] = field(default_factory=list)
    c2w: list[np.ndarray] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    truth: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, observation: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        """Keep a frame and what is known about it."""
        self.frames.append(observation["rgb"])
        self.remembered.append(observation["remembered"].astype(bool))
        self.c2w.append(observation["pose"])
        self.infos.append(info)


def rollout(cfg: dict[str, Any]) -> dict[str, Any]:
    """Walk, and leave ``rollout.mp4``, ``sheet.png``, ``map.png`` and ``metrics.json`` in a folder.

    Args:
        cfg: as ``configs/rollout.yaml`` composes it.

    Returns:
        The figures of ``metrics.json`` without those per step, and ``output``, the folder.

    Raises:
        ValueError: for unusable settings.
        FileNotFoundError: for pictures, walks or weights that do not exist.
    """
    policy_name, steps = cfg["policy"], cfg["steps"]
    if policy_name not in POLICIES:
        raise ValueError(f"policy: expected one of {POLICIES}, got {policy_name!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected a positive integer, got {steps!r}")
    arguments = dict(cfg["env"])
    if policy_name == "scripted" and arguments["action_mode"] != "twist":
        raise ValueError(f"env.action_mode: expected 'twist' with policy=scripted, got {arguments['action_mode']!r}")
    clip = _walk(cfg["walk"]) if policy_name == "replay" else None
    if clip is not None:
        arguments["action_mode"] = "se3"
        steps = 2 * (len(clip) - 1)
    output = Path(cfg["output"])
    output.mkdir(parents=True, exist_ok=True)

    env = gymnasium.make("MirageWorld-v0", world=instantiate(cfg["world"]), observation="dict", **arguments)
    world: World = env.unwrapped.world  # type: ignore[attr-defined]
    policy = _policy(policy_name, env, steps, cfg["seed"], clip)
    options = _start(cfg) if clip is None else _start_of(clip)
    episode = _drive(env, policy, steps, cfg["seed"], options)
    if clip is not None:
        true = [fit(frame.numpy(), clip.cameras[0], world.model.size)[0] for frame in clip.frames]
        episode.truth = true + true[-2::-1]

    metrics = _metrics(episode) | {"policy": policy_name, "seed": cfg["seed"]}
    _save(episode, world, metrics, output, fps=env.metadata["render_fps"])
    env.close()
    return {key: value for key, value in metrics.items() if key != "per_step"} | {"output": str(output)}


def _walk(walk: int | str) -> Clip:
    """A shipped held-out walk by index, or a recorded clip by path."""
    if isinstance(walk, str):
        path = Path(walk)
        if not path.exists():
            raise FileNotFoundError(
                f"walk: expected an index or the path of a recorded clip, got {walk}, which does not exist"
            )
        return load_clip(path)
    shipped = sorted(WALKS.glob("*.safetensors"))
    if not 0 <= walk < len(shipped):
        raise ValueError(f"walk: expected an index in [0, {len(shipped)}) or a path, got {walk}")
    return load_clip(shipped[walk])


def _start(cfg: dict[str, Any]) -> dict[str, Any]:
    if cfg["image"] is not None:
        return {"image": cfg["image"], "fov_deg": cfg["fov_deg"]}
    return {} if cfg["start"] is None else {"start": cfg["start"]}


def _start_of(clip: Clip) -> dict[str, Any]:
    height, focal = clip.frames.shape[1], clip.K[1, 1].item()
    return {"image": clip.frames[0].numpy(), "fov_deg": 2 * math.degrees(math.atan(height / 2 / focal))}


def _policy(name: str, env: gymnasium.Env, steps: int, seed: int, clip: Clip | None) -> Policy:
    if clip is not None:
        return ReplayPolicy(clip)
    return ScriptedPolicy(steps) if name == "scripted" else RandomPolicy(env.action_space, seed)


def _drive(env: gymnasium.Env, policy: Policy, steps: int, seed: int, options: dict[str, Any]) -> Episode:
    episode = Episode()
    observation, info = env.reset(seed=seed, options=options)
    episode.add(observation, info)
    began = time.perf_counter()
    for _ in tqdm(range(steps), desc="rollout", unit="step"):
        observation, reward, terminated, truncated, info = env.step(policy(observation))
        episode.add(observation, info)
        episode.rewards.append(float(reward))
        if terminated or truncated:
            break
    episode.seconds = time.perf_counter() - began
    return episode


def _metrics(episode: Episode) -> dict[str, Any]:
    """The figures; ``per_step`` holds lists with one entry per frame."""
    last = episode.infos[-1]
    steps = len(episode.rewards)
    remembered = [float(mask.mean()) for mask in episode.remembered]
    metrics: dict[str, Any] = {
        "steps": steps,
        "steps_per_s": round(steps / episode.seconds, 2),
        "reward": sum(episode.rewards),
        "remembered": float(np.mean(remembered[1:])),
        "memory_points": last["memory_points"],
        "memory_bytes": last["memory_bytes"],
    }
    per_step = {"remembered": remembered, "memory_points": [info["memory_points"] for info in episode.infos]}
    if episode.truth:
        frames, true = np.stack(episode.frames), np.stack(episode.truth)
        generated, repeated = psnr(frames, true), psnr(np.broadcast_to(true[0], true.shape), true)
        turn = steps // 2  # the replay is a walk out and back
        metrics |= {
            "psnr_out": float(generated[1 : turn + 1].mean()),
            "psnr_out_first_frame_repeated": float(repeated[1 : turn + 1].mean()),
            "psnr_back": float(generated[turn + 1 :].mean()),
            "psnr_back_at_start": float(generated[-1]),
        }
        per_step["psnr"] = generated.tolist()
    return metrics | {"per_step": per_step}


def _save(episode: Episode, world: World, metrics: dict[str, Any], output: Path, fps: int) -> None:
    truth = {"truth": episode.truth} if episode.truth else {}
    tinted = [tint_invented(*pair) for pair in zip(episode.frames, episode.remembered, strict=True)]
    rows = truth | {"generated": episode.frames, "remembered": tinted}
    titles = {"remembered": "remembered (orange: invented)"}
    moments = (
        dict(zip((titles.get(row, row) for row in rows), column, strict=True))
        for column in zip(*rows.values(), strict=True)
    )
    save_video(map(side_by_side, moments), output / "rollout.mp4", fps)

    shown = sorted({round(step) for step in np.linspace(0, len(episode.frames) - 1, SHEET_COLUMNS)})
    sheet = contact_sheet({row: [frames[step] for step in shown] for row, frames in rows.items()}, shown)
    save_picture(sheet, output / "sheet.png")

    points, colours = coloured_points(world, episode.frames)
    c2w = np.stack(episode.c2w)
    save_picture(top_down(points, colours, c2w[:, :3, 3], c2w[:, :3, 2]), output / "map.png")

    partial = output / f".metrics.partial{os.getpid()}.json"
    partial.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    partial.replace(output / "metrics.json")


def coloured_points(world: World, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The memory's points and the colour that each had in the frame it was written from.

    A point's id says where it came from: (frame written x cells of the grid) + cell, frames counted from 0, one latent
    frame per chunk.

    Args:
        world: whose memory was empty before the first frame.
        frames: all frames since, uint8 ``[H, W, 3]``, the last of each chunk.

    Returns:
        ``[N, 3]`` metres and uint8 ``[N, 3]``.
    """
    map, (height, width) = world.state.map, world.model.size
    points, ids = map.xyz().cpu().numpy(), map.ids().cpu().numpy()
    if not len(ids):
        return points, np.zeros((0, 3), dtype=np.uint8)
    cells = map.next_id // len(frames)  # of one frame
    side = round(math.sqrt(height * width / cells))  # pixels of a cell
    rows, columns = np.divmod(ids % cells, width // side)
    pictures = np.stack(frames)
    means = pictures.reshape(len(frames), height // side, side, width // side, side, 3).mean((2, 4))
    return points, means[ids // cells, rows, columns].astype(np.uint8)
