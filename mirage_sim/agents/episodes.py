"""Episodes of ``MirageWorld-v0``: what an agent saw and did, how they are generated, and their metrics."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from mirage_sim.agents.policies import Policy, RandomPolicy, ReplayPolicy, ScriptedPolicy
from mirage_sim.agents.sb3_policy import LearnedPolicy
from mirage_sim.build import instantiate
from mirage_sim.data.clips import Clip, load_clip
from mirage_sim.envs.actions import ActionMode
from mirage_sim.envs.stepping import step_envs
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.geometry import VelocityLimits
from mirage_sim.memory.blocks import GENERATED
from mirage_sim.paths import ASSETS
from mirage_sim.settings import RolloutSettings
from mirage_sim.world import Horizon, Snapshot, WorldModel
from mirage_sim.world.images import fit

WALKS = ASSETS / "mini" / "walks"


@dataclass
class Episode:
    """The observations, actions and results of an episode: lists with one entry per frame or per step.

    The first frame is the start image, so there is one frame more than steps.

    Attributes:
        seed: of the episode.
        observations: of the environment, per frame.
        frames: uint8 ``[H, W, 3]``.
        shown: the frames as ``env.render`` returns them, with the goal drawn in.
        depths: float32 ``[H, W]``, metres, 0 where unknown.
        remembered: bool ``[H, W]``, per frame.
        infos: of the environment, without ``frames``.
        actions: per step.
        rewards: per step.
        terminations: per step.
        truncations: per step.
        truth: true frames of a replay, uint8 ``[H, W, 3]``; empty for other policies.
        K: intrinsics of all frames, float32 ``[3, 3]``; see :class:`~mirage_sim.geometry.Camera`.
        seconds: wall-clock time of all steps of all episodes in the batch.
        last: snapshot of the world after the last step.
        first_id: of the points that the episode generates; all others were in the world when it began.
        latents: latent frames per step.
        dt: simulated seconds per step.
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
    last: Snapshot = field(init=False)
    first_id: int = GENERATED
    latents: int = 1
    dt: float = 0.1

    def add(self, env: gymnasium.Env, observation: Any, info: dict[str, Any]) -> None:
        """Append a frame with its observation and info."""
        world = env.unwrapped.world  # type: ignore[attr-defined]
        self.last, self.latents, self.dt = world.snapshot(), world.model.horizon.keep, world.model.dt
        if not self.frames:
            self.first_id = self.last.state.map.next_id
        seen = self.last.observation
        self.observations.append(observation)
        self.frames.append(seen.frame)
        self.depths.append(seen.depth)
        self.K = seen.camera.K.numpy()
        self.shown.append(np.asarray(env.render()))
        self.remembered.append(info["remembered_mask"])
        self.infos.append({name: value for name, value in info.items() if name != "frames"})  # the largest entry

    def add_step(self, env: gymnasium.Env, action: Any, result: tuple[Any, Any, bool, bool, dict[str, Any]]) -> None:
        """Append an action and the `result` of ``env.step``."""
        observation, reward, terminated, truncated, info = result
        self.add(env, observation, info)
        self.actions.append(action)
        self.rewards.append(float(reward))
        self.terminations.append(terminated)
        self.truncations.append(truncated)

    @property
    def ended(self) -> bool:
        """Return whether the last step terminated or truncated the episode."""
        return bool(self.terminations) and (self.terminations[-1] or self.truncations[-1])

    @property
    def c2w(self) -> np.ndarray:
        """Return the camera-to-world poses ``[frames, 4, 4]``."""
        return np.stack([info["c2w"] for info in self.infos])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of an archive.

        ``observations`` (or ``observations/KEY``) and ``c2w`` have ``T + 1`` entries; ``actions``, ``rewards``,
        ``terminations`` and ``truncations`` have ``T``; ``seed`` is a scalar.
        """
        return {
            **_stacked("observations", self.observations),
            **_stacked("actions", self.actions),
            "rewards": np.array(self.rewards),
            "terminations": np.array(self.terminations),
            "truncations": np.array(self.truncations),
            "c2w": self.c2w,
            "K": self.K,
            "times": np.array([info["time"] for info in self.infos]),
            "seed": np.array(self.seed),
        }


def _stacked(name: str, values: list[Any]) -> dict[str, np.ndarray]:
    """Return values of equal shape as one array ``[steps, ...]``; those of dicts as one array per ``name/key``."""
    if isinstance(values[0], dict):
        return {f"{name}/{key}": np.stack([value[key] for value in values]) for key in values[0]}
    return {name: np.stack(values)}


class EpisodeMaker:
    """Generates the episodes of a rollout by their numbers.

    An episode depends on the settings, its number and, by rounding, on the other episodes of its batch. It does not
    depend on the process that generates it.

    Attributes:
        world: configuration of the world model.
        arguments: of the environment, as plain configuration.
        steps: maximum steps of an episode.
        dt: simulated seconds per step.

    Args:
        settings: of the rollout. Networks are loaded when the first episode is generated.

    Raises:
        ValueError: for an unusable walk or policy.
        FileNotFoundError: for walks and policies that do not exist.
        ImportError: if the library of a learned policy is not installed.
    """

    def __init__(self, settings: RolloutSettings):
        policy = settings.policy
        self.world, self.steps = settings.world, settings.steps
        horizon: Horizon = instantiate(settings.world["horizon"]) if "horizon" in settings.world else Horizon()
        self.dt = horizon.dt(settings.latent["stride"][0])
        self.arguments = {**settings.env, "observation": "dict", "render_mode": "rgb_array"}
        self._policy, self._seed = policy, settings.seed
        self._clip = _load_walk(settings.walk) if policy == "replay" else None
        self._learned = LearnedPolicy(policy, settings.trust_policy) if policy.endswith(".zip") else None
        if self._learned is not None:
            self.arguments["observation"] = self._learned.observation
        if self._clip is None:
            self._options = _start_options(settings)
            if isinstance(settings.start, str):
                self.arguments["starts"] = settings.start
        else:
            self._options = _start_of_walk(self._clip)
            self.arguments["action_mode"] = "se3"
            self.steps = 2 * (len(self._clip) - 1)

    @property
    def action_mode(self) -> ActionMode:
        """Return the action mode of the environment, which defines the meaning of actions."""
        return self.arguments["action_mode"]

    def make(self, numbers: Sequence[int]) -> list[Episode]:
        """Generate the episodes of these numbers as one batch.

        Raises:
            ValueError: for unusable settings.
            FileNotFoundError: for images or weights that do not exist.
        """
        envs = [MirageWorldEnv(self._model, **instantiate(self.arguments)) for _ in numbers]
        episodes = [Episode(self._seed + number) for number in numbers]
        policies = [self._policy_for(env, episode.seed) for env, episode in zip(envs, episodes, strict=True)]
        for env, episode in zip(envs, episodes, strict=True):
            episode.add(env, *env.reset(seed=episode.seed, options=self._options))
        began = time.perf_counter()
        walks = list(zip(envs, policies, episodes, strict=True))
        for step in tqdm(range(1, self.steps + 1), desc="steps", unit="step", leave=False):
            actions = [policy(episode.observations[-1]) for _, policy, episode in walks]
            transitions = step_envs([env for env, *_ in walks], actions)
            for (env, _, episode), action, transition in zip(walks, actions, transitions, strict=True):
                episode.add_step(env, action, transition)
                episode.truncations[-1] |= step == self.steps
            walks = [walk for walk in walks if not walk[-1].ended]
            if not walks:
                break
        for episode in episodes:
            episode.seconds = time.perf_counter() - began
            if self._clip is not None:
                episode.truth = _there_and_back(self._clip, self._model.size)
        return episodes

    @cached_property
    def _model(self) -> WorldModel:
        return instantiate(self.world)

    def _policy_for(self, env: gymnasium.Env, seed: int) -> Policy:
        if self._learned is not None:
            self._learned.check(env)
            return self._learned
        drive = VelocityLimits(dt=self._model.dt)
        if self._clip is not None:
            return ReplayPolicy(self._clip, drive)
        return ScriptedPolicy(self.steps, drive) if self._policy == "scripted" else RandomPolicy(env.action_space, seed)


def scores_of(episode: Episode) -> dict[str, Any]:
    """Return the metrics of an episode; ``per_step`` holds lists with one entry per frame."""
    last = episode.infos[-1]
    steps = len(episode.rewards)
    remembered = [float(mask.mean()) for mask in episode.remembered]
    metrics: dict[str, Any] = {
        "seed": episode.seed,
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


def _load_walk(walk: int | str) -> Clip:
    """Load a shipped held-out walk by index, or a recorded clip by path."""
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


def _start_options(settings: RolloutSettings) -> dict[str, Any]:
    """Return the options of ``env.reset``."""
    if settings.image is not None:
        return {"image": settings.image, "fov_deg": settings.fov_deg}
    return {"start": settings.start} if isinstance(settings.start, int) else {}


def _start_of_walk(clip: Clip) -> dict[str, Any]:
    height, focal = clip.frames.shape[1], clip.K[1, 1].item()
    return {"image": clip.frames[0].numpy(), "fov_deg": 2 * math.degrees(math.atan(height / 2 / focal))}


def _there_and_back(clip: Clip, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the true frames of a replay, which walks out and back."""
    true = [fit(frame.numpy(), clip.cameras[0], size)[0] for frame in clip.frames]
    return true + true[-2::-1]
