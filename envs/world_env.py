"""The Gymnasium environment ``MirageWorld-v0``."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding

from mirage_sim.ambient import own_torch
from mirage_sim.envs.actions import ActionMode, Actions, moved
from mirage_sim.envs.collisions import CollisionMode, Collisions, ContactState
from mirage_sim.envs.observations import ObservationEncoder, make_info
from mirage_sim.envs.starting import OPTIONS, Starts, pose_camera, shared_model
from mirage_sim.envs.stepping import Plan, Transition, step_envs
from mirage_sim.envs.tasks import EpisodeStart, TaskLike, TaskResult, check_result, make_task
from mirage_sim.envs.termination import TerminationCondition, check_termination, make_conditions
from mirage_sim.envs.window import Window, frames_per_second
from mirage_sim.geometry import VelocityLimits
from mirage_sim.world import Body, NotReset, Snapshot, World, WorldModel


@dataclass(frozen=True)
class EnvSnapshot:
    """A moment of an episode: world, task result, contact state, and the random generator of later resets."""

    world: Snapshot
    outcome: TaskResult
    contact: ContactState
    rng: dict[str, Any]


class MirageWorldEnv(gymnasium.Env[Any, Any]):
    """Navigate a camera through a generated 3D world that stays consistent.

    ## Description
    A learned world model turns one start image into a world that can be explored. Each action moves the camera. The
    model then renders what its spatial memory holds of the new view, generates the rest with a denoising network, and
    adds what it generated to the memory. The agent therefore sees the same place again when it comes back.

    ## Action Space
    ``action_mode`` selects the action space. One step lasts 0.1 s with ``world="mini"``:

    | mode | space | action |
    |---|---|---|
    | ``"twist"`` (default) | ``Box(-1, 1, (2,), float32)`` | forward x 1.5 m/s, turn x pi/3 rad/s (positive: left) |
    | ``"discrete"`` | ``Discrete(4)`` | 0: forward 0.15 m, 1: left 6 deg, 2: right 6 deg, 3: back 0.15 m |
    | ``"se3"`` | ``Box(-1, 1, (6,), float32)`` | x, y, z x 0.15 m, then rotation vector x pi/30 rad (camera axes) |

    Distances and angles scale with the duration of a step, which is 0.25 s with ``world="wan5b"``. Camera axes are
    OpenCV's: +x right, +y down, +z forward.

    ## Observation Space
    With ``observation="rgb"`` (default) an observation is the current frame, ``Box(0, 255, (H, W, 3), uint8)``. Frames
    have 96 x 128 pixels with ``world="mini"`` and 704 x 1280 with ``"wan5b"``. With ``observation="dict"`` it is a
    ``Dict``:

    | key | space | content |
    |---|---|---|
    | ``rgb`` | ``Box(0, 255, (H, W, 3), uint8)`` | the current frame |
    | ``depth`` | ``Box(0, 1e6, (H, W), float32)`` | estimated z-depth in metres, 0 where unknown |
    | ``pose`` | ``Box(-1e6, 1e6, (4, 4), float32)`` | camera-to-world matrix, metres; the first camera is the origin |
    | ``remembered`` | ``MultiBinary((H, W))`` | 1 where the pixel comes from memory, 0 where it was generated |
    | ``goal`` | ``Box((4,), float32)`` or as ``rgb`` | goal tasks only; see :class:`~mirage_sim.envs.tasks.Goal` |

    ``goal`` is the goal's position relative to the camera (forward, left, up in metres) and its heading (radians,
    positive to the left), or an image for ``Goal(kind="image")``. RGB observations and ``render`` draw the goal into
    the frame: as a ball, at the edge of the frame if it is out of view, or as a small inset image.

    ## Rewards
    | ``task`` | reward per step |
    |---|---|
    | ``"explore"`` (default) | newly observed surface in square metres: depth / fx * depth / fy of generated pixels |
    | ``"goal"`` | decrease of the distance to the goal in metres, plus 1 within 0.5 m of the goal |
    | ``"none"`` | 0 |
    | :class:`~mirage_sim.envs.tasks.Goal` ``(kind, reward, radius, angle, distance)`` | a pose or image goal |
    | a function ``(before, after)`` of two :class:`~mirage_sim.world.Observation` | its value |
    | a :class:`~mirage_sim.envs.tasks.Task` or its class | custom |

    Pixels at 50 m or more count as sky and have no area.

    ## Starting State
    The seed chooses one of the built-in start images (60 degrees vertical field of view) and all generated content:
    the same seed, options and actions give the same frames. ``reset(options=...)`` accepts

    * ``image``: path or uint8 RGB array ``[H, W, 3]``, sides of 16 to 8192 pixels, as the start image. It is cropped
      around its centre to the aspect ratio of the frames and resized.
    * ``depth``: measured z-depth of ``image``, 0 where unknown: an array ``[H, W]`` in metres, an ``.npy`` file
      of one or a 16-bit PNG in millimetres. By default it is estimated.
    * ``fov_deg``: vertical field of view of ``image`` in degrees (default 60).
    * ``observations``: a list of dicts with ``image``, ``c2w`` (``[4, 4]``, y down) and optionally ``depth`` and ``K``
      or ``fov_deg``. The episode starts where the first was made; all of them are in memory.
    * ``world``: path of a saved world (``World.save``, ``mirage recording import``). The episode starts at its moment,
      or with ``start`` at one of its keyframes.
    * ``start``: index of a start image, or of a keyframe of a saved world.
    * ``prompt``: text prompt, for models that read one (``"wan5b"``).
    * ``goal`` (goal tasks): ``[x, z]`` in metres right and forward of the start, or a camera-to-world pose ``[4, 4]``.
      By default the seed chooses a position 1 to 4 m away that the start view shows to be reachable.
    * ``goal_image`` (``Goal(kind="image")``, together with ``goal``): uint8 image of the frames' size to show as goal.

    ## Episode End
    The conditions in ``terminate_on`` end an episode:

    | condition | effect |
    |---|---|
    | ``"success"`` (the default) | terminates when ``info["is_success"]`` is True (goal tasks) |
    | ``"collision"`` | terminates when ``info["collision"]`` is True |
    | :class:`~mirage_sim.envs.termination.Time` ``(seconds)`` | truncates after this simulated time |
    | a function ``(info) -> bool`` | terminates when it returns True |

    Custom tasks can terminate an episode as well. ``max_episode_steps`` of ``gymnasium.make`` truncates as usual;
    unlike ``Time``, its counter is not part of a snapshot.

    ## Information
    | key | value |
    |---|---|
    | ``c2w`` | camera-to-world matrix, float32 ``[4, 4]`` |
    | ``time`` | simulated seconds since the reset |
    | ``frames`` | all frames of the step, uint8 ``[F, H, W, 3]``; the last one is observed |
    | ``remembered``, ``remembered_mask`` | fraction of the frame that comes from memory; the same as bool ``[H, W]`` |
    | ``memory_bytes``, ``memory_points`` | size of the memory |
    | ``collision``, ``clearance``, ``scan`` | see Collisions |
    | ``explored_m2`` | ``"explore"``: area observed in this episode |
    | ``goal``, ``distance_to_goal``, ``is_success`` | goal tasks: pose ``[4, 4]``, straight-line metres, bool |

    ## Collisions
    A cylindrical :class:`~mirage_sim.world.Body` carries the camera (default: radius 0.4 m, height 1.6 m, camera at
    1.5 m). Surfaces in the memory are obstacles, except floor, ceiling and isolated points. Unobserved space is free
    unless the body says otherwise.

    | ``collisions`` | a motion into an obstacle |
    |---|---|
    | ``"report"`` (default) | is executed; ``info["collision"]`` is True |
    | ``"block"`` | is not executed, except for its rotation |
    | ``"slide"`` | stops at the obstacle and continues along it |
    | ``"ignore"`` | is executed; ``info`` has neither ``collision`` nor ``clearance`` |

    ``info["clearance"]`` is the distance in metres to the nearest obstacle, infinite if none is within 20 m. With
    ``scan=n``, ``info["scan"]`` holds the ranges of a planar lidar in metres, float32 ``[n]``, at the angles
    -pi + 2 pi i / n (0 is ahead, positive is left), infinite where no obstacle is in memory.

    ## Snapshots
    ``env.unwrapped`` has ``snapshot()``, ``restore(snapshot)``, which is exact to the bit, and ``fork(n)``, which
    returns ``n`` independent environments at the current moment. They share the networks and cost almost nothing.
    Environments can be pickled, too.

    ## Arguments
    * ``world``: ``"mini"``, the name of another configuration, or a :class:`~mirage_sim.world.WorldModel`.
    * ``action_mode``, ``observation``, ``task``, ``terminate_on``, ``collisions``: see above.
    * ``body``: a :class:`~mirage_sim.world.Body`; None for the default body.
    * ``scan``: number of lidar rays; None for no scan.
    * ``render_mode``: None, ``"rgb_array"`` or ``"human"``, which opens a window.
    * ``starts``: start images to use instead of the built-in ones, uint8 ``[N, H, W, 3]``; or the path of a saved
      world: each episode then starts at one of its keyframes.

    Invalid arguments raise ``ValueError`` before the episode changes.

    ## Version History
    * v0: initial version.
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
        starts: np.ndarray | str | Path | None = None,
    ):
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode: expected None, 'rgb_array' or 'human', got {render_mode!r}")
        if not isinstance(world, (str, WorldModel)):
            raise ValueError(f"world: expected the name of a configuration or a WorldModel, got {type(world).__name__}")
        self._task = make_task(task)
        self._terminate_on = make_conditions(terminate_on)
        self._collisions = Collisions(collisions, body, scan)
        self._collisions.check_conditions(terminate_on)
        model = shared_model(world) if isinstance(world, str) else world
        self._starts = Starts(model, starts)
        self._world = World(model)
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
        """Start an episode.

        Args:
            seed: of the start image, all generated content and later resets; None continues the present sequence.
            options: see the class.

        Returns:
            Observation and info.

        Raises:
            FileNotFoundError: if ``options["image"]`` does not exist.
            ValueError: if an option is unknown or invalid, or no goal is reachable in the start view. The running
                episode is then unchanged.
        """
        options = dict(options or {})
        task_options = getattr(self._task, "options", ())
        if unknown := set(options) - set(OPTIONS) - set(task_options):
            raise ValueError(
                f"options: expected keys of {sorted({*OPTIONS, *task_options})}, got {sorted(map(str, unknown))}"
            )
        rng = deepcopy(self.np_random) if seed is None else seeding.np_random(seed)[0]
        # Both are sampled whether used or not, so that options do not change the seeds of later resets.
        start_number = int(rng.integers(2**31))
        episode_seed = int(rng.integers(2**63 - 1))
        fresh = self._starts.begin(self._world.model, options, start_number, episode_seed)
        shown = fresh.snapshot().observation
        task_values = {key: options[key] for key in task_options if key in options}
        task_rng = np.random.default_rng(episode_seed)
        outcome = self._task.begin(EpisodeStart(fresh.fork(1)[0], shown, task_rng, task_values))
        contact = self._collisions.query(fresh)
        observation, info = self._describe(fresh, outcome, contact)
        # Nothing has changed up to here, so that an error leaves the episode as it was.
        super().reset(seed=seed)
        self.np_random.bit_generator.state = rng.bit_generator.state
        self._commit(fresh, outcome, contact)
        return observation, info

    def step(self, action: Any) -> Transition:
        """Move the camera by one action.

        Args:
            action: an element of the action space.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            gymnasium.error.InvalidAction: if the action is not in the action space.
            ValueError: if the task or a termination condition returns an invalid value. The episode is then unchanged.
        """
        return step_envs([self], [action])[0]

    @own_torch()
    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return the current frame (``"rgb_array"``) or show it in a window (``"human"``), with the goal drawn into it.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            gymnasium.error.DependencyNotInstalled: if the window has no display, or OpenCV is not installed.
        """
        if self.render_mode is None:
            gymnasium.logger.warn(
                'render() was called without a render_mode; give gymnasium.make(..., render_mode="rgb_array") one'
            )
            return None
        self._need_reset("render")
        frame = self._encoder.render(self._world.snapshot().observation, self._outcome)
        if self.render_mode == "rgb_array":
            return frame
        self._window.show(frame)
        return None

    @own_torch()
    def observe(
        self,
        image: np.ndarray | str | Path,
        c2w: np.ndarray | None = None,
        depth: np.ndarray | str | Path | None = None,
        *,
        move: bool = False,
        fov_deg: float = 60.0,
    ) -> tuple[Any, dict[str, Any]]:
        """Add a real observation to the memory, at any moment of the episode.

        Args and errors are those of :meth:`mirage_sim.world.World.observe`, with a pose ``c2w [4, 4]`` for the camera,
        None for the present one. Task and contact state stay as they are. Returns the present observation and info;
        the next ``step`` shows what was observed.
        """
        self._need_reset("observe")
        self._world.observe(image, pose_camera(c2w, fov_deg, image), depth, move=move, fov_deg=fov_deg)
        if move:
            self._contact = self._collisions.query(self._world)
        return self._describe(self._world, self._outcome, self._contact)

    def close(self) -> None:
        """Close the window, if one is open."""
        self._window.close()

    def snapshot(self) -> EnvSnapshot:
        """Return the current moment of the episode, without copying it; ``reset`` must have been called."""
        self._need_reset("snapshot")
        return EnvSnapshot(
            self._world.snapshot(), self._outcome, self._contact, dict(self.np_random.bit_generator.state)
        )

    @own_torch()
    def restore(self, snapshot: EnvSnapshot) -> tuple[Any, dict[str, Any]]:
        """Return to a snapshot of this environment or of another one with the same arguments.

        Returns:
            Observation and info of that moment.

        Raises:
            ValueError: if ``snapshot`` does not come from such an environment.
        """
        if not isinstance(snapshot, EnvSnapshot):
            raise ValueError(f"snapshot: expected an EnvSnapshot, got {type(snapshot).__name__}")
        self._world.restore(snapshot.world)
        self._outcome, self._contact = snapshot.outcome, snapshot.contact
        self.np_random.bit_generator.state = snapshot.rng
        return self._describe(self._world, self._outcome, self._contact)

    @own_torch()
    def fork(self, n: int) -> "list[MirageWorldEnv]":
        """Return ``n`` independent environments at the current moment.

        They share the networks with this environment, have no window, and reset with the same sequence of seeds.

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
        """Return the key bindings for ``gymnasium.utils.play``: ``w``/``s`` move, ``a``/``d`` turn.

        Pass ``noop=np.zeros(2, np.float32)`` to stand still while no key is pressed. ``"discrete"`` has no such action:
        pass ``wait_on_player=True`` there.
        """
        return self._actions.keys()

    @property
    def world(self) -> World:
        """The world session of this environment."""
        return self._world

    def _plan(self, action: Any) -> Plan:
        """Fork the world and compute how far the action moves its camera, collisions included."""
        self._need_reset("step")
        motion = self._actions.motion(action)
        (fork,) = self._world.fork(1)
        return Plan(fork, *self._collisions.move(self._contact, moved(fork.camera, motion)))

    def _judge(self, plan: Plan) -> tuple[TaskResult, ContactState, Transition]:
        """Compute what ``step`` returns once the fork has moved; the episode itself does not change."""
        outcome = self._task.step(self._outcome.state, plan.fork.snapshot().observation)
        contact = self._collisions.query(plan.fork, plan.collided)
        observation, info = self._describe(plan.fork, outcome, contact)
        terminated, truncated = check_termination(self._terminate_on, info)
        terminated |= bool(outcome.terminated)
        return outcome, contact, (observation, float(outcome.reward), terminated, truncated, info)

    def _need_reset(self, call: str) -> None:
        try:
            self._world.snapshot()
        except NotReset as error:
            raise ResetNeeded(f"{call}: expected reset() first") from error

    def _commit(self, world: World, outcome: TaskResult, contact: ContactState) -> None:
        self._world.restore(world.snapshot())
        self._outcome, self._contact = outcome, contact
        if self.render_mode == "human":
            self.render()

    def _describe(self, world: World, outcome: TaskResult, contact: ContactState) -> tuple[Any, dict[str, Any]]:
        """Return observation and info of a moment."""
        shown = world.snapshot().observation
        info = make_info(shown, world.state.step * world.model.dt, self._collisions.info(contact))
        info |= deepcopy(check_result(outcome, set(info)).info)
        return self._encoder.observe(shown, outcome), info
