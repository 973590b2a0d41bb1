"""``MirageWorld-v0``: a learned world behind Gymnasium's interface."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled, ResetNeeded

from mirage_sim.build import build_world_model
from mirage_sim.envs.actions import ActionMode, Actions, moved
from mirage_sim.envs.tasks import Task, make_task
from mirage_sim.geometry import Drive
from mirage_sim.world import NotReset, Observation, Snapshot, World, WorldModel

WINDOW = "MirageWorld"
FAR = 1e6  # metres; a bound that no world reaches, because Gymnasium warns about infinite ones
_OPTIONS = {"image", "fov_deg", "start"}


class Seconds(float):
    """A measured duration. Two measurements never differ in kind, only in luck, so all of them count as equal.

    Otherwise the ``info`` of two equal steps would differ, and with it what the environment promises about its seed.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seconds) or float(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = float.__hash__


@dataclass(frozen=True)
class EnvSnapshot:
    """A moment of an episode: the world, the task's state and the random generator of later resets."""

    world: Snapshot
    task: Any
    rng: dict[str, Any]


@cache
def shared_model(world: str) -> WorldModel:
    """The world model of that name, loaded once per process: it has no state, so every environment can use it."""
    return build_world_model(world)


class MirageWorldEnv(gymnasium.Env[Any, Any]):
    """Walk a camera through a world that a latent spatial memory remembers and a generative model invents.

    ## Description
    An episode starts from one picture. Every action moves the camera; the memory shows what it holds of the new view,
    the denoiser draws the rest, and what is new is remembered. Coming back shows the same place again.

    ## Observation space
    With ``observation="rgb"`` (default) ``Box(0, 255, (H, W, 3), uint8)``, for ``world="mini"`` 96 x 128 pixels. With
    ``observation="dict"`` a ``Dict``:

    | key | space | meaning |
    |---|---|---|
    | ``rgb`` | ``Box(0, 255, (H, W, 3), uint8)`` | the frame |
    | ``depth`` | ``Box(0, 1e6, (H, W), float32)`` | estimated z-depth in metres, 0 where unknown |
    | ``pose`` | ``Box(-1e6, 1e6, (4, 4), float32)`` | camera-to-world motion; the world frame is the first camera's |
    | ``remembered`` | ``MultiBinary((H, W))`` | 1 where the frame was remembered, 0 where it was invented |

    Camera axes are OpenCV's: +x right, +y down, +z forward; metres and radians.

    ## Action space
    A step lasts 0.1 s. By ``action_mode``:

    | mode | space | meaning |
    |---|---|---|
    | ``twist`` (default) | ``Box(-1, 1, (2,), float32)`` | forward x 1.5 m/s, turn x pi/3 rad/s (positive: left) |
    | ``discrete`` | ``Discrete(4)`` | 0 forward 0.15 m, 1 left 6 degrees, 2 right 6 degrees, 3 back 0.15 m |
    | ``se3`` | ``Box(-1, 1, (6,), float32)`` | (x, y, z) x 0.15 m, then rotation vector x pi/30 rad, in camera axes |

    Values beyond the bounds, NaN and other types raise ``gymnasium.error.InvalidAction`` before anything changes.

    ## Rewards
    By ``task``: ``"explore"`` (default) gives the newly seen surface in square metres: over all pixels that the memory
    did not show and whose depth is below 50 m, the sum of depth / fx * depth / fy. ``"none"`` gives 0. A function
    ``(before, after) -> float`` of two :class:`~mirage_sim.world.Observation` or a :class:`~mirage_sim.envs.tasks.Task`
    gives its own.

    ## Starting state
    ``reset(seed)`` draws one of the built-in start frames (60 degrees vertical field of view) and the seed of all that
    is invented. ``reset(options=...)`` takes

    * ``image``: path, or uint8 RGB ``[H, W, 3]`` with sides of 16 to 8192 pixels: an own start picture, whose middle is
      cut to the frame's aspect ratio and resized;
    * ``fov_deg``: vertical field of view of that picture in degrees, 60 if not given;
    * ``start``: the index of a built-in start frame instead.

    The same seed, options and actions give the same frames.

    ## Episode end
    ``"explore"`` and ``"none"`` never terminate, and nothing truncates: give ``max_episode_steps`` to
    ``gymnasium.make``.

    ## Information
    ``reset`` and ``step`` return ``c2w`` (float32 ``[4, 4]``), ``remembered`` (fraction of the frame),
    ``remembered_mask`` (bool ``[H, W]``), ``memory_bytes``, ``memory_points``, ``step_seconds`` (wall-clock time of the
    step) and what the task adds (``explored_m2``: the episode's sum).

    ## Snapshots
    On ``env.unwrapped``: ``snapshot()`` costs nothing, ``restore(snapshot)`` goes back to it, bit for bit, and
    ``fork(n)`` gives ``n`` independent environments that share the networks and start from the present moment. Wrappers
    keep their own counters.

    ## Arguments
    * ``world``: ``"mini"``, another configuration's name, or a :class:`~mirage_sim.world.WorldModel`. Networks are
      loaded once per process.
    * ``action_mode``, ``observation``, ``task``: see above.
    * ``render_mode``: ``None``, ``"rgb_array"`` or ``"human"`` (a window, which appears with the first frame).
    * ``starts``: own start frames, uint8 ``[N, H, W, 3]``, instead of the built-in ones.

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}

    def __init__(
        self,
        world: str | WorldModel = "mini",
        action_mode: ActionMode = "twist",
        observation: Literal["rgb", "dict"] = "rgb",
        task: str | Task | Callable[[Observation, Observation], float] = "explore",
        render_mode: Literal["rgb_array", "human"] | None = None,
        starts: np.ndarray | None = None,
    ):
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode: expected None, 'rgb_array' or 'human', got {render_mode!r}")
        if observation not in ("rgb", "dict"):
            raise ValueError(f"observation: expected 'rgb' or 'dict', got {observation!r}")
        if not isinstance(world, (str, WorldModel)):
            raise ValueError(f"world: expected a name or a WorldModel, got {type(world).__name__}")
        self._actions = Actions(action_mode, Drive())
        self._task = make_task(task)
        model = shared_model(world) if isinstance(world, str) else world
        self._world = World(model, starts)
        self._task_state: Any = None
        self._arguments: dict[str, Any] = {
            "action_mode": action_mode,
            "observation": observation,
            "task": task,
            "starts": starts,
        }
        self._observation = observation
        self._window = False
        self.render_mode = render_mode
        self.action_space = self._actions.space
        self.observation_space = _space(model.size) if observation == "dict" else _space(model.size)["rgb"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see the class for ``options``.

        Raises:
            FileNotFoundError: if ``options["image"]`` does not exist.
            ValueError: if an option is unknown or unusable; the episode then goes on as it was.
        """
        began = time.perf_counter()
        options = dict(options or {})
        if unknown := set(options) - _OPTIONS:
            raise ValueError(f"options: expected keys of {sorted(_OPTIONS)}, got {sorted(map(str, unknown))}")
        before = None if self._np_random is None else self._np_random.bit_generator.state
        super().reset(seed=seed)
        # both are drawn whether used or not, so that options do not change what later resets draw
        chosen = int(self.np_random.integers(2**31))
        episode_seed = int(self.np_random.integers(2**63 - 1))
        image, start = options.get("image"), options.get("start")
        if image is None and start is None:
            start = chosen % len(self._world.starts)
        try:
            shown = self._world.reset(image, start, seed=episode_seed, fov_deg=options.get("fov_deg", 60.0))
        except (ValueError, FileNotFoundError):
            if before is not None:
                self.np_random.bit_generator.state = before
            raise
        self._task_state = self._task.begin(shown, self.np_random)
        if self.render_mode == "human":
            self.render()
        return self._observe(shown), self._info(shown, began, {})

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the camera and look.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            gymnasium.error.InvalidAction: if the action is not in the action space; nothing has changed then.
        """
        began = time.perf_counter()
        self._need_reset("step")
        motion = self._actions.motion(action)
        shown = self._world.step(moved(self._world.camera, motion))
        outcome = self._task.step(self._task_state, shown)
        self._task_state = outcome.state
        if self.render_mode == "human":
            self.render()
        info = self._info(shown, began, outcome.info)
        return self._observe(shown), float(outcome.reward), bool(outcome.terminated), False, info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The last frame with ``"rgb_array"``; with ``"human"`` it goes to the window.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            gymnasium.error.DependencyNotInstalled: if there is no display for the window, or no OpenCV.
        """
        if self.render_mode is None:
            gymnasium.logger.warn(
                'render() was called without a render_mode; give gymnasium.make(..., render_mode="rgb_array") one'
            )
            return None
        self._need_reset("render")
        frame = self._world.snapshot().observation.frame
        if self.render_mode == "rgb_array":
            return frame.copy()
        self._show(frame)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window:
            _opencv().destroyWindow(WINDOW)
            self._window = False

    def snapshot(self) -> EnvSnapshot:
        """The present moment of the episode.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        self._need_reset("snapshot")
        return EnvSnapshot(self._world.snapshot(), self._task_state, dict(self.np_random.bit_generator.state))

    def restore(self, snapshot: EnvSnapshot) -> tuple[Any, dict[str, Any]]:
        """Go back to a moment of this or of another environment with the same arguments.

        Returns:
            Observation and info of that moment, as ``reset`` does.

        Raises:
            ValueError: if it is no snapshot of such an environment.
        """
        if not isinstance(snapshot, EnvSnapshot):
            raise ValueError(f"snapshot: expected an EnvSnapshot, got {type(snapshot).__name__}")
        began = time.perf_counter()
        shown = self._world.restore(snapshot.world)
        self._task_state = snapshot.task
        self.np_random.bit_generator.state = snapshot.rng
        return self._observe(shown), self._info(shown, began, {})

    def fork(self, n: int) -> "list[MirageWorldEnv]":
        """``n`` environments at the present moment that share the networks with this one and nothing else.

        They have no window. Their later resets draw what this one's would.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            ValueError: if ``n`` is not a positive integer.
        """
        now = self.snapshot()
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n: expected a positive integer, got {n!r}")
        render_mode: Literal["rgb_array"] | None = "rgb_array" if self.render_mode == "rgb_array" else None
        forks = [MirageWorldEnv(self._world.model, render_mode=render_mode, **self._arguments) for _ in range(n)]
        for fork in forks:
            fork.restore(now)
        return forks

    @property
    def world(self) -> World:
        """The session that this environment drives."""
        return self._world

    def _need_reset(self, call: str) -> None:
        try:
            self._world.snapshot()
        except NotReset as error:
            raise ResetNeeded(f"{call}: expected reset() first") from error

    def _observe(self, shown: Observation) -> Any:
        if self._observation == "rgb":
            return shown.frame.copy()
        return {
            "rgb": shown.frame.copy(),
            "depth": shown.depth.copy(),
            "pose": shown.camera.c2w.numpy().copy(),
            "remembered": shown.remembered.astype(np.int8),
        }

    def _info(self, shown: Observation, began: float, task_info: dict[str, Any]) -> dict[str, Any]:
        return {
            "c2w": shown.camera.c2w.numpy().copy(),
            "remembered": shown.info["remembered"],
            "remembered_mask": shown.remembered.copy(),
            "memory_bytes": shown.info["nbytes"],
            "memory_points": shown.info["points"],
            "step_seconds": Seconds(time.perf_counter() - began),
            **task_info,
        }

    def _show(self, frame: np.ndarray) -> None:
        cv2 = _opencv()
        if not self._window:
            # asked for beforehand, because Qt ends the process where it finds no display
            if sys.platform.startswith("linux") and not (
                os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            ):
                raise DependencyNotInstalled(
                    'render_mode "human" needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; '
                    'use render_mode="rgb_array"'
                )
            cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
            self._window = True
        cv2.imshow(WINDOW, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        cv2.waitKey(1)


def _opencv() -> ModuleType:
    """OpenCV, for windows only: its wheel needs system libraries that machines without a screen may lack.

    Raises:
        gymnasium.error.DependencyNotInstalled: if it cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyNotInstalled(
            f'render_mode "human" needs OpenCV, which cannot be imported ({error}); on Debian and Ubuntu, '
            '`apt-get install libgl1 libglib2.0-0` installs what it needs; or use render_mode="rgb_array"'
        ) from error
    return cv2


def _space(size: tuple[int, int]) -> spaces.Dict:
    """All that can be observed, for frames of this ``(height, width)``."""
    return spaces.Dict(
        {
            "rgb": spaces.Box(0, 255, (*size, 3), np.uint8),
            "depth": spaces.Box(0.0, FAR, tuple(size), np.float32),
            "pose": spaces.Box(-FAR, FAR, (4, 4), np.float32),
            "remembered": spaces.MultiBinary(tuple(size)),
        }
    )
