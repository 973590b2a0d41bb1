"""``MirageWorld-v0``: a learned world behind Gymnasium's interface."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding

from mirage_sim.ambient import own_torch
from mirage_sim.build import build_world_model
from mirage_sim.envs.actions import ActionMode, Actions, moved
from mirage_sim.envs.collisions import CollisionMode, Collisions, ContactState
from mirage_sim.envs.observations import ObservationEncoder
from mirage_sim.envs.tasks import EpisodeStart, TaskLike, TaskResult, check_result, make_task
from mirage_sim.envs.termination import TerminationCondition, check_termination, make_conditions
from mirage_sim.envs.window import Window
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.world import Body, NotReset, Snapshot, World, WorldModel, step_together
from mirage_sim.world.session import START

#: What ``step`` returns: observation, reward, terminated, truncated, info.
Transition = tuple[Any, float, bool, bool, dict[str, Any]]

_OPTIONS = {"image", "fov_deg", "start", "prompt"}


class _Plan(NamedTuple):
    """A step before it is generated: a fork of the world, the camera it moves to, and whether something was hit."""

    fork: World
    camera: Camera
    collided: bool


@dataclass(frozen=True)
class EnvSnapshot:
    """A moment of an episode: the world, what task and body said of it, the random generator of later resets."""

    world: Snapshot
    outcome: TaskResult
    contact: ContactState
    rng: dict[str, Any]


@cache
def shared_model(world: str) -> WorldModel:
    """The world model of that name, loaded once per process: it has no state, so every environment can use it."""
    return build_world_model(world)


def frames_per_second(dt: float) -> int | float:
    """The rate of frames that are ``dt`` seconds apart; an int where it is whole, which some tools insist on."""
    rate = round(1 / dt)
    return rate if abs(rate * dt - 1) < 1e-9 else 1 / dt


class MirageWorldEnv(gymnasium.Env[Any, Any]):
    """Walk a camera through a world that a latent spatial memory remembers and a generative model invents.

    ## Description
    An episode starts from one picture. Every action moves the camera; the memory shows what it holds of the new view,
    the denoiser draws the rest, and what is new is remembered. Coming back shows the same place again.

    ## Observation space
    With ``observation="rgb"`` (default) ``Box(0, 255, (H, W, 3), uint8)``, for ``world="mini"`` 96 x 128 pixels, for
    ``"wan5b"`` 704 x 1280: the last frame of the step. With ``observation="dict"`` a ``Dict``:

    | key | space | meaning |
    |---|---|---|
    | ``rgb`` | ``Box(0, 255, (H, W, 3), uint8)`` | the frame |
    | ``depth`` | ``Box(0, 1e6, (H, W), float32)`` | estimated z-depth in metres, 0 where unknown |
    | ``pose`` | ``Box(-1e6, 1e6, (4, 4), float32)`` | camera-to-world motion; the world frame is the first camera's |
    | ``remembered`` | ``MultiBinary((H, W))`` | 1 where the frame was remembered, 0 where it was invented |
    | ``goal`` | ``Box((4,), float32)``, or as ``rgb`` | only with such a task: where to go, or what is seen there |

    ``goal`` as numbers: metres forward, left and up from the camera to the goal (each within 1e6), and radians by which
    it looks to the left of the camera. With ``observation="rgb"``, and in what ``render`` returns, the frame itself
    shows the goal: as a ball where it is, or at the edge on whose side it is; or as a small picture in the upper left
    corner. See :class:`~mirage_sim.envs.tasks.Goal`.

    Camera axes are OpenCV's: +x right, +y down, +z forward; metres and radians.

    ## Action space
    A step lasts 0.1 s, in ``world="wan5b"`` 0.25 s. By ``action_mode``:

    | mode | space | meaning |
    |---|---|---|
    | ``twist`` (default) | ``Box(-1, 1, (2,), float32)`` | forward x 1.5 m/s, turn x pi/3 rad/s (positive: left) |
    | ``discrete`` | ``Discrete(4)`` | 0 forward 0.15 m, 1 left 6 degrees, 2 right 6 degrees, 3 back 0.15 m |
    | ``se3`` | ``Box(-1, 1, (6,), float32)`` | (x, y, z) x 0.15 m, then rotation vector x pi/30 rad, in camera axes |

    Distances and angles are those of 0.1 s; in a world of longer steps they are longer in proportion.

    Values beyond the bounds, NaN and other types raise ``gymnasium.error.InvalidAction`` before anything changes.

    ## Rewards
    By ``task``:

    | task | reward of a step |
    |---|---|
    | ``"explore"`` (default) | newly seen square metres: depth / fx * depth / fy, summed over what the frame invented |
    | ``"goal"`` | metres by which the goal came nearer, and 1 when it is no farther than 0.5 m |
    | ``"none"`` | 0 |
    | ``Goal(kind=, reward=, radius=, angle=, distance=)`` | the goal as a pose or a picture, dense or sparse |
    | a function ``(before, after)`` | what it returns for two :class:`~mirage_sim.world.Observation` |
    | a :class:`~mirage_sim.envs.tasks.Task` or its class | its own |

    Where the depth is 50 m or more is sky, which has no area. Goals are drawn from the start view: a free direction,
    and 1 to 4 m along it. Rewards are finite floats; a task that gives anything else is refused with a ``ValueError``,
    and the step has not happened then.

    ## Starting state
    ``reset(seed)`` draws one of the built-in start frames (60 degrees vertical field of view) and the seed of all that
    is invented. ``reset(options=...)`` takes

    * ``image``: path, or uint8 RGB ``[H, W, 3]`` with sides of 16 to 8192 pixels: an own start picture, whose middle is
      cut to the frame's aspect ratio and resized;
    * ``fov_deg``: vertical field of view of that picture in degrees, 60 if not given;
    * ``start``: the index of a built-in start frame instead;
    * ``prompt``: what the world shall be like, in words, for one that reads them (``"wan5b"``);
    * ``goal`` (task ``goal``): ``[x, z]``, metres right and forward of the start, or a camera-to-world pose ``[4, 4]``;
      if not given, a place to which the start view shows a free way, drawn by the seed;
    * ``goal_image`` (``Goal(kind="image")``, with ``goal``): the picture to show, uint8 of the frame's size, instead of
      an imagined one.

    The same seed, options and actions give the same frames.

    ## Episode end
    By ``terminate_on``, any of which ends the episode:

    | end | the episode |
    |---|---|
    | ``"success"`` (default, alone) | is terminated when ``info["is_success"]``, which ``goal`` gives |
    | ``"collision"`` | is terminated when ``info["collision"]`` |
    | ``Time(seconds)`` | is truncated after this simulated time |
    | a function ``(info) -> bool`` | is terminated when it returns True |

    ``Time`` is of :mod:`mirage_sim.envs.termination`; snapshots and forks keep it, as they do not keep the count of
    ``max_episode_steps`` of ``gymnasium.make``, which serves as well. A task may also terminate the episode by itself;
    ``explore``, ``goal`` and ``none`` do not.

    ## Information
    ``reset`` and ``step`` return ``c2w`` (float32 ``[4, 4]``), ``time`` (simulated seconds), ``frames`` (uint8
    ``[F, H, W, 3]``: all frames of the step, the last of which is observed; after ``reset`` the start picture, as
    often), ``remembered`` (fraction of the frame), ``remembered_mask`` (bool ``[H, W]``), ``memory_bytes``,
    ``memory_points``, what the body feels (``collision``, ``clearance``, ``scan``; see below) and what the task adds:
    ``explored_m2``, the episode's sum; or ``goal`` (float32 ``[4, 4]``, camera-to-world), ``distance_to_goal`` (metres,
    straight) and ``is_success``.

    ## Collisions
    A :class:`~mirage_sim.world.Body` (by default as large as MiniWorld's agent: radius 0.4 m, height 1.6 m, camera at
    1.5 m) moves through what the memory holds before each step. Floor, ceiling, sky and lone points are no obstacle;
    what was never seen is free unless the body says otherwise. By ``collisions``:

    | mode | a motion into an obstacle |
    |---|---|
    | ``"report"`` (default) | goes through, and ``info["collision"]`` is True |
    | ``"block"`` | does not happen, but its turn does; so it is in MiniWorld |
    | ``"slide"`` | goes up to the obstacle and on along it |
    | ``"ignore"`` | goes through; ``info`` has neither ``collision`` nor ``clearance`` |

    ``info["clearance"]`` is the distance in metres from the body, where it is now, to the nearest obstacle, infinite
    where none is remembered within 20 m. With ``scan=n``, ``info["scan"]`` (float32 ``[n]``) holds ranges in metres as
    a planar lidar on the body's axis measures them, infinite where nothing is remembered; the angles are
    -pi + 2 pi i / n, positive to the left: straight back first, then by the right to ahead and the left.

    ## Snapshots
    On ``env.unwrapped``: ``snapshot()`` costs nothing, ``restore(snapshot)`` goes back to it, bit for bit, and
    ``fork(n)`` gives ``n`` independent environments that share the networks and start from the present moment. Wrappers
    keep their own counters.

    ## Processes
    An environment can be pickled at any time, networks and episode included, and goes on bit for bit elsewhere. A
    process that was forked (``vectorization_mode="async"`` forks) walks on one thread, with the same bits, because
    it has none of its parent's others.

    ## Arguments
    * ``world``: ``"mini"``, another configuration's name, or a :class:`~mirage_sim.world.WorldModel`. Networks are
      loaded once per process.
    * ``action_mode``, ``observation``, ``task``, ``terminate_on``: see above.
    * ``collisions``, ``body``, ``scan``: see above; ``body=None`` is the default body, ``scan=None`` no scan.
    * ``render_mode``: ``None``, ``"rgb_array"`` or ``"human"`` (a window, which appears with the first frame).
    * ``starts``: own start frames, uint8 ``[N, H, W, 3]``, instead of the built-in ones.

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}

    @own_torch()
    def __init__(
        self,
        world: str | WorldModel = "mini",
        action_mode: ActionMode = "twist",
        observation: Literal["rgb", "dict"] = "rgb",
        task: TaskLike = "explore",
        terminate_on: Sequence[str | TerminationCondition] = ("success",),
        collisions: CollisionMode = "report",
        body: Body | None = None,
        scan: int | None = None,
        render_mode: Literal["rgb_array", "human"] | None = None,
        starts: np.ndarray | None = None,
    ):
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode: expected None, 'rgb_array' or 'human', got {render_mode!r}")
        if not isinstance(world, (str, WorldModel)):
            raise ValueError(f"world: expected a name or a WorldModel, got {type(world).__name__}")
        self._task = make_task(task)
        self._terminate_on = make_conditions(terminate_on)
        self._collisions = Collisions(collisions, body, scan)
        self._collisions.check_conditions(terminate_on)
        model = shared_model(world) if isinstance(world, str) else world
        self._world = World(model, starts)
        self._actions = Actions(action_mode, VelocityLimits(dt=model.dt))
        self.metadata = {**self.metadata, "render_fps": frames_per_second(model.dt)}
        self._outcome = TaskResult()
        self._contact = ContactState()
        self._arguments: dict[str, Any] = {
            "action_mode": action_mode,
            "observation": observation,
            "task": task,
            "terminate_on": terminate_on,
            "collisions": collisions,
            "body": body,
            "scan": scan,
            "starts": starts,
        }
        self._encoder = ObservationEncoder(observation, self._task, model.size)
        self._window = Window("MirageWorld")
        self.render_mode = render_mode
        self.action_space = self._actions.space
        self.observation_space = self._encoder.space

    @own_torch()
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see the class for ``options``.

        Raises:
            FileNotFoundError: if ``options["image"]`` does not exist.
            ValueError: if an option is unknown or unusable, or the start view shows no way to draw a goal on; the
                episode then goes on as it was.
        """
        options = dict(options or {})
        task_options = getattr(self._task, "options", ())
        if unknown := set(options) - _OPTIONS - set(task_options):
            raise ValueError(
                f"options: expected keys of {sorted({*_OPTIONS, *task_options})}, got {sorted(map(str, unknown))}"
            )
        rng = deepcopy(self.np_random) if seed is None else seeding.np_random(seed)[0]
        # both are drawn whether used or not, so that options do not change what later resets draw
        chosen = int(rng.integers(2**31))
        episode_seed = int(rng.integers(2**63 - 1))
        image, start = options.get("image", START), options.get("start")
        if image is START and start is None:
            start = chosen % len(self._world.starts)
        ahead = World(self._world.model, self._arguments["starts"])
        fov_deg, prompt = options.get("fov_deg", 60.0), options.get("prompt")
        shown = ahead.reset(image, start, seed=episode_seed, fov_deg=fov_deg, prompt=prompt)
        own = {key: options[key] for key in task_options if key in options}
        outcome = self._task.begin(EpisodeStart(ahead.fork(1)[0], shown, np.random.default_rng(episode_seed), own))
        contact = self._collisions.query(ahead)
        info, observation = self._info(ahead, outcome, contact), self._observe(ahead, outcome)
        # nothing has changed so far, so that whatever was refused leaves the episode as it was
        super().reset(seed=seed)
        self.np_random.bit_generator.state = rng.bit_generator.state
        self._commit(ahead, outcome, contact)
        return observation, info

    def step(self, action: Any) -> Transition:
        """Move the camera by one action.

        Args:
            action: an element of the action space.

        Returns:
            Observation, reward, terminated, truncated and info.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            gymnasium.error.InvalidAction: if the action is not in the action space.
            ValueError: if the task or a termination condition returns an invalid value. After any of these errors the
                episode is unchanged.
        """
        return step_envs([self], [action])[0]

    @own_torch()
    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The last frame with ``"rgb_array"``, a goal drawn into it; with ``"human"`` it goes to the window.

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
        frame = self._encoder.picture(self._world.snapshot().observation, self._outcome)
        if self.render_mode == "rgb_array":
            return frame
        self._window.show(frame)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        self._window.close()

    def snapshot(self) -> EnvSnapshot:
        """The present moment of the episode.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        self._need_reset("snapshot")
        return EnvSnapshot(
            self._world.snapshot(), self._outcome, self._contact, dict(self.np_random.bit_generator.state)
        )

    @own_torch()
    def restore(self, snapshot: EnvSnapshot) -> tuple[Any, dict[str, Any]]:
        """Go back to a moment of this or of another environment with the same arguments.

        Returns:
            Observation and info of that moment, as ``reset`` does.

        Raises:
            ValueError: if it is no snapshot of such an environment.
        """
        if not isinstance(snapshot, EnvSnapshot):
            raise ValueError(f"snapshot: expected an EnvSnapshot, got {type(snapshot).__name__}")
        self._world.restore(snapshot.world)
        self._outcome, self._contact = snapshot.outcome, snapshot.contact
        self.np_random.bit_generator.state = snapshot.rng
        info = self._info(self._world, self._outcome, self._contact)
        return self._observe(self._world, self._outcome), info

    @own_torch()
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

    def get_keys_to_action(self) -> dict[str, Any]:
        """For ``gymnasium.utils.play``: ``w`` and ``s`` go forward and back, ``a`` and ``d`` turn.

        ``play(env, noop=np.zeros(2, np.float32))`` stands still while no key is pressed; ``discrete`` has no such
        action: ``play(env, wait_on_player=True)``.
        """
        return self._actions.keys()

    @property
    def world(self) -> World:
        """The session that this environment drives."""
        return self._world

    def _plan(self, action: Any) -> _Plan:
        """Fork the world and compute how far the action moves its camera, collisions included."""
        self._need_reset("step")
        motion = self._actions.motion(action)
        (fork,) = self._world.fork(1)
        return _Plan(fork, *self._collisions.move(self._contact, moved(fork.camera, motion)))

    def _judge(self, plan: _Plan) -> tuple[TaskResult, ContactState, Transition]:
        """Compute what ``step`` returns once the fork has moved; the episode itself does not change."""
        outcome = self._task.step(self._outcome.state, plan.fork.snapshot().observation)
        contact = self._collisions.query(plan.fork, plan.collided)
        info, observation = self._info(plan.fork, outcome, contact), self._observe(plan.fork, outcome)
        terminated, truncated = check_termination(self._terminate_on, info)
        terminated |= bool(outcome.terminated)
        return outcome, contact, (observation, float(outcome.reward), terminated, truncated, info)

    def _need_reset(self, call: str) -> None:
        try:
            self._world.snapshot()
        except NotReset as error:
            raise ResetNeeded(f"{call}: expected reset() first") from error

    def _commit(self, ahead: World, outcome: TaskResult, contact: ContactState) -> None:
        self._world.restore(ahead.snapshot())
        self._outcome, self._contact = outcome, contact
        if self.render_mode == "human":
            self.render()

    def _observe(self, world: World, outcome: TaskResult) -> Any:
        return self._encoder.observe(world.snapshot().observation, outcome)

    def _info(self, world: World, outcome: Any, contact: ContactState) -> dict[str, Any]:
        shown = world.snapshot().observation
        info = {
            "c2w": shown.camera.c2w.numpy().copy(),
            "time": world.state.step * self._actions.drive.dt,
            "frames": shown.frames.copy(),
            "remembered": shown.info["remembered"],
            "remembered_mask": shown.remembered.copy(),
            "memory_bytes": shown.info["nbytes"],
            "memory_points": shown.info["points"],
        } | self._collisions.info(contact)
        return info | deepcopy(check_result(outcome, set(info)).info)


@own_torch()
def step_envs(envs: Sequence[MirageWorldEnv], actions: Sequence[Any]) -> list[Transition]:
    """Step several environments and generate their worlds as one batch, which is faster than one after the other.

    Either all environments step or, after an error, none.

    Args:
        envs: one or more environments that share one world model.
        actions: one per environment.

    Returns:
        What :meth:`MirageWorldEnv.step` returns, per environment.

    Raises:
        gymnasium.error.ResetNeeded: if an environment has not been reset.
        gymnasium.error.InvalidAction: if an action is not in the action space.
        ValueError: if the numbers of environments and actions differ, the environments have several models, or a task
            or a termination condition returns an invalid value.
    """
    if len(actions) != len(envs):
        raise ValueError(f"actions: expected {len(envs)}, one for each environment, got {len(actions)}")
    plans = [env._plan(action) for env, action in zip(envs, actions, strict=True)]
    step_together([plan.fork for plan in plans], [plan.camera for plan in plans])
    results = [env._judge(plan) for env, plan in zip(envs, plans, strict=True)]
    for env, plan, (outcome, contact, _) in zip(envs, plans, results, strict=True):
        env._commit(plan.fork, outcome, contact)
    return [transition for _, _, transition in results]
