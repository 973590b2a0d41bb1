"""``mirage rollout``: an agent walks through ``MirageWorld-v0``, and what it saw is kept for people to look at."""

import json
import math
import os
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from mirage_sim.agents.learned import LearnedPolicy
from mirage_sim.agents.policies import Policy, RandomPolicy, ReplayPolicy, ScriptedPolicy
from mirage_sim.agents.recording import (
    EpisodeWriter,
    check_no_dataset,
    check_no_episodes,
    episode_name,
    minari_collector,
    save_npz,
    specification,
    stacked,
)
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
from mirage_sim.geometry import Drive
from mirage_sim.world import World
from mirage_sim.world.images import fit

POLICIES = ("scripted", "random", "replay")
FORMATS = ("mp4", "npz", "minari", "mcap")
WALKS = Path(__file__).parent.parent / "assets" / "mini" / "walks"
SHEET_COLUMNS = 9


@dataclass
class Episode:
    """What was seen, done and measured, one entry per frame or step; the first frame is the given one.

    Attributes:
        seed: of the episode.
        observations: the environment's.
        frames: uint8 ``[H, W, 3]``.
        shown: the same as people are to see them, with a goal drawn into them.
        depths: float32 ``[H, W]``, metres, 0 where unknown.
        remembered: bool ``[H, W]``.
        infos: the environment's, without ``frames``.
        actions: one fewer than frames, as all that follow.
        rewards: of the steps.
        terminations: of the steps.
        truncations: of the steps.
        truth: true frames, uint8 ``[H, W, 3]``; empty where there is no truth.
        K: intrinsics ``[3, 3]``, float32, of all frames; see :class:`~mirage_sim.geometry.Camera`.
        seconds: wall-clock time of all steps.
    """

    seed: int
    observations: list[Any] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    shown: list[np.ndarray] = field(default_factory=list)
    depths: list[np.ndarray] = field(default_factory=list)
    remembered: list[np.ndarray] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminations: list[bool] = field(default_factory=list)
    truncations: list[bool] = field(default_factory=list)
    truth: list[np.ndarray] = field(default_factory=list)
    K: np.ndarray = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    seconds: float = 0.0

    def add(self, env: gymnasium.Env, observation: Any, info: dict[str, Any]) -> None:
        """Keep a frame and what is known about it."""
        seen = world_of(env).snapshot().observation
        self.observations.append(observation)
        self.frames.append(seen.frame)
        self.depths.append(seen.depth)
        self.K = seen.camera.K.numpy()
        self.shown.append(np.asarray(env.render()))
        self.remembered.append(info["remembered_mask"])
        self.infos.append({name: value for name, value in info.items() if name != "frames"})  # they weigh the most

    @property
    def c2w(self) -> np.ndarray:
        """Camera-to-world motions ``[frames, 4, 4]``."""
        return np.stack([info["c2w"] for info in self.infos])

    def arrays(self) -> dict[str, np.ndarray]:
        """What a learner needs, by name; see ``configs/rollout.yaml``."""
        return {
            **stacked("observations", self.observations),
            **stacked("actions", self.actions),
            "rewards": np.array(self.rewards),
            "terminations": np.array(self.terminations),
            "truncations": np.array(self.truncations),
            "c2w": self.c2w,
            "seed": np.array(self.seed),
        }


def world_of(env: gymnasium.Env) -> World:
    """The session inside an environment."""
    return env.unwrapped.world  # type: ignore[attr-defined]


def rollout(cfg: dict[str, Any]) -> dict[str, Any]:
    """Walk, and leave what ``format`` says in a folder: pictures for people, or a data set; and ``metrics.json``.

    Args:
        cfg: as ``configs/rollout.yaml`` composes it.

    Returns:
        The figures of ``metrics.json`` without those per step, and ``output``, the folder.

    Raises:
        ValueError: for unusable settings.
        FileNotFoundError: for pictures, walks, policies or weights that do not exist.
        ImportError: if what a data set or a learned policy needs is not installed.
    """
    _check(cfg)
    arguments, steps, output = dict(cfg["env"]), cfg["steps"], Path(cfg["output"])
    clip = _walk(cfg["walk"]) if cfg["policy"] == "replay" else None
    if clip is not None:
        arguments["action_mode"] = "se3"
        steps = 2 * (len(clip) - 1)
    learned = LearnedPolicy(cfg["policy"], cfg["trust_policy"]) if cfg["policy"].endswith(".zip") else None
    arguments["observation"] = "dict" if learned is None else learned.observation

    bags: EpisodeWriter | None = instantiate(cfg["bag"]) if cfg["format"] == "mcap" else None
    env = gymnasium.make(specification(cfg["world"], steps, render_mode="rgb_array", **arguments))
    fps = env.metadata["render_fps"]
    if learned is not None:
        learned.check(env)
    output.mkdir(parents=True, exist_ok=True)
    recorded = minari_collector(env, output, cfg["policy"]) if cfg["format"] == "minari" else closing(env)
    options = _start(cfg) if clip is None else _start_of(clip)
    measured = []
    with recorded as env:
        for seed in range(cfg["seed"], cfg["seed"] + cfg["episodes"]):
            policy = learned or _policy(cfg["policy"], env, steps, seed, clip)
            episode = _drive(env, policy, steps, seed, options)
            if clip is not None:
                episode.truth = _there_and_back(clip, world_of(env).model.size)
            measured.append(_metrics(episode))
            name = episode_name(seed - cfg["seed"])
            if cfg["format"] == "npz":
                save_npz(output / f"{name}.npz", episode.arrays())
            if bags is not None:
                bags.write(output / name, episode, arguments["action_mode"])
        if cfg["format"] == "mp4":
            _save_pictures(episode, world_of(env), output, fps)
    metrics = _summary(measured) | {"policy": cfg["policy"], "seed": cfg["seed"]}
    _save_json(metrics, output / "metrics.json")
    return {key: value for key, value in metrics.items() if key != "per_step"} | {"output": str(output)}


def _check(cfg: dict[str, Any]) -> None:
    """Refuse settings that cannot work, before anything is loaded or written."""
    policy, form, output = cfg["policy"], cfg["format"], cfg["output"]
    if not isinstance(policy, str) or not (policy in POLICIES or policy.endswith(".zip")):
        raise ValueError(f"policy: expected one of {POLICIES} or a stable-baselines3 .zip, got {policy!r}")
    for name in ("steps", "episodes"):
        if isinstance(cfg[name], bool) or not isinstance(cfg[name], int) or cfg[name] < 1:
            raise ValueError(f"{name}: expected a positive integer, got {cfg[name]!r}")
    if isinstance(cfg["seed"], bool) or not isinstance(cfg["seed"], int) or cfg["seed"] < 0:
        raise ValueError(f"seed: expected an integer from 0, got {cfg['seed']!r}")
    if not isinstance(cfg["trust_policy"], bool):
        raise ValueError(f"trust_policy: expected true or false, got {cfg['trust_policy']!r}")
    if form not in FORMATS:
        raise ValueError(f"format: expected one of {FORMATS}, got {form!r}")
    if not isinstance(output, str) or output in FORMATS:
        raise ValueError(f"output: expected a folder, got {output!r}; what is written there is chosen by format=")
    if form == "mp4" and cfg["episodes"] > 1:
        raise ValueError(f"episodes: expected 1 with format=mp4, got {cfg['episodes']}")
    if form == "minari":
        check_no_dataset(Path(output))
    if form == "mcap":
        check_no_episodes(Path(output), cfg["episodes"])
    if policy == "scripted" and cfg["env"]["action_mode"] != "twist":
        got = cfg["env"]["action_mode"]
        raise ValueError(f"env.action_mode: expected 'twist' with policy=scripted, got {got!r}")


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
    drive = Drive(dt=world_of(env).model.dt)
    if clip is not None:
        return ReplayPolicy(clip, drive)
    return ScriptedPolicy(steps, drive) if name == "scripted" else RandomPolicy(env.action_space, seed)


def _there_and_back(clip: Clip, size: tuple[int, int]) -> list[np.ndarray]:
    """The true frames of a replay."""
    true = [fit(frame.numpy(), clip.cameras[0], size)[0] for frame in clip.frames]
    return true + true[-2::-1]


def _drive(env: gymnasium.Env, policy: Policy, steps: int, seed: int, options: dict[str, Any]) -> Episode:
    episode = Episode(seed)
    observation, info = env.reset(seed=seed, options=options)
    episode.add(env, observation, info)
    began = time.perf_counter()
    for _ in tqdm(range(steps), desc="rollout", unit="step"):
        action = policy(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        episode.add(env, observation, info)
        episode.actions.append(action)
        episode.rewards.append(float(reward))
        episode.terminations.append(terminated)
        episode.truncations.append(truncated)
        if terminated or truncated:
            break
    episode.seconds = time.perf_counter() - began
    return episode


def _metrics(episode: Episode) -> dict[str, Any]:
    """The figures of an episode; ``per_step`` holds lists with one entry per frame."""
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
    if "is_success" in last:
        metrics["success"] = float(last["is_success"])
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


def _summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several episodes: the sum of their steps, means of all else."""
    if len(measured) == 1:
        return measured[0]
    names = [name for name in measured[0] if name != "per_step"]
    means = {name: float(np.mean([figures[name] for figures in measured])) for name in names}
    return means | {"steps": sum(figures["steps"] for figures in measured), "episodes": len(measured)}


def _save_pictures(episode: Episode, world: World, output: Path, fps: int) -> None:
    truth = {"truth": episode.truth} if episode.truth else {}
    tinted = [tint_invented(*pair) for pair in zip(episode.frames, episode.remembered, strict=True)]
    rows = truth | {"generated": episode.shown, "remembered": tinted}
    titles = {"remembered": "remembered (orange: invented)"}
    moments = (
        dict(zip((titles.get(row, row) for row in rows), column, strict=True))
        for column in zip(*rows.values(), strict=True)
    )
    save_video(map(side_by_side, moments), output / "rollout.mp4", fps)

    times = sorted({round(step) for step in np.linspace(0, len(episode.frames) - 1, SHEET_COLUMNS)})
    sheet = contact_sheet({row: [frames[step] for step in times] for row, frames in rows.items()}, times)
    save_picture(sheet, output / "sheet.png")

    points, colours = coloured_points(world, episode.frames)
    c2w = episode.c2w
    save_picture(top_down(points, colours, c2w[:, :3, 3], c2w[:, :3, 2]), output / "map.png")


def _save_json(metrics: dict[str, Any], path: Path) -> None:
    partial = path.with_name(f".metrics.partial{os.getpid()}.json")
    partial.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def coloured_points(world: World, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The memory's points and the colour that each had in the frame it was written from.

    A point's id says where it came from: (latent frame written x cells of the grid) + cell, latent frames counted from
    0. Where a step has several, they get the colours of its last frame.

    Args:
        world: whose memory was empty before the first frame.
        frames: all frames since, uint8 ``[H, W, 3]``, the last of each step.

    Returns:
        ``[N, 3]`` metres and uint8 ``[N, 3]``.
    """
    map, (height, width) = world.state.map, world.model.size
    points, ids = map.xyz().cpu().numpy(), map.ids().cpu().numpy()
    if not len(ids):
        return points, np.zeros((0, 3), dtype=np.uint8)
    keep = world.model.horizon.keep  # latent frames of a step
    cells = map.next_id // (1 + keep * (len(frames) - 1))  # of one latent frame
    side = round(math.sqrt(height * width / cells))  # pixels of a cell
    rows, columns = np.divmod(ids % cells, width // side)
    pictures = np.stack(frames)
    means = pictures.reshape(len(frames), height // side, side, width // side, side, 3).mean((2, 4))
    return points, means[-(-(ids // cells) // keep), rows, columns].astype(np.uint8)
