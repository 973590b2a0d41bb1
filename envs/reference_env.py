"""The Gymnasium environment ``MirageReference-v0``: the true counterpart of ``MirageWorld-v0``."""

from collections.abc import Sequence
from typing import Any, Literal, Self, cast

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from mirage_sim.ambient import own_torch
from mirage_sim.data.simulators import EVALUATION_SEEDS, CameraMount, simulator_class
from mirage_sim.data.simulators.miniworld import RESERVED_ENVIRONMENTS
from mirage_sim.envs.actions import ActionMode
from mirage_sim.envs.collisions import CollisionMode
from mirage_sim.envs.episode_env import EpisodeEnv
from mirage_sim.envs.reference_world import ReferenceModel, ReferenceWorld, Scene
from mirage_sim.envs.tasks import TaskLike, TaskResult
from mirage_sim.envs.tasks.goal_sampling import NoFreeWay
from mirage_sim.envs.termination import TerminationCondition
from mirage_sim.envs.vector_env import EpisodeVectorEnv
from mirage_sim.geometry import Camera
from mirage_sim.world import Body, Session

#: The body of each simulator's agent.
BODIES = {"miniworld": Body(), "homes": Body(radius=0.25)}
TRIES = 100  # scenes that are tried for a start view with a free way to a goal


class MirageReferenceEnv(EpisodeEnv):
    """Navigate a camera through a reference simulator, exactly as through ``MirageWorld-v0``.

    Actions, observations, tasks, rewards, termination, ``info`` and snapshots are those of
    :class:`~mirage_sim.envs.world_env.MirageWorldEnv`. Frames have 96 x 128 pixels and a step lasts 0.1 s, as with
    ``world="mini"``. A policy therefore runs in both environments. This page lists what differs.

    ## Observation Space
    ``rgb`` and ``depth`` are rendered, not estimated. ``remembered`` is 1 everywhere. Sky has a depth of about 100 m.

    ## Action Space
    ``action_mode="se3"`` is an error, because the simulator's camera stays level on a body that stands on the floor.

    ## Rewards
    ``"explore"`` counts surfaces that are truly seen for the first time. Surfaces within one cube of 0.1 m count as
    one, so that parts of a surface that enter the view later count less.

    ## Starting State
    The seed chooses the kind of scene and the scene, among the seeds for evaluation, 800,000 to 899,999. No shipped
    network was trained on them. Where a goal task finds no free way to a goal in the start view, the next scene of the
    same random sequence is used. ``reset(options=...)`` accepts

    * ``environment``: the kind of scene, one of the argument ``environments``.
    * ``scene``: the seed of the scene, in [0, 900,000). Then no other scene is tried.
    * ``goal``, ``goal_image``: as in ``MirageWorld-v0``.

    ``start_options()`` returns the options that start ``MirageWorld-v0`` from the same image with the same goal;
    :func:`paired_reset` does this. With ``collisions="ignore"`` the cameras of a pair stay equal under equal actions.

    ## Information
    ``memory_bytes`` and ``memory_points`` are 0. ``info["scene"]`` is ``(environment, seed)``.

    ## Collisions
    The simulator's own walls and objects are the obstacles. ``collisions="slide"`` is an error. Of ``body`` only the
    radius counts.

    ## Arguments
    * ``simulator``: ``"miniworld"`` or ``"homes"``, or a :class:`~mirage_sim.envs.reference_world.ReferenceModel`.
    * ``environments``: kinds of scene. None for all MiniWorld environments that training records, or for homes with
      furniture that training may show (``"seen"``). MiniWorld's Sidewalk, ThreeRooms and Sign are reserved.
    * ``mount``: height and field of view of the camera, which must be level; None for 1.5 m and 60 degrees.
    * ``body``: None for that of the simulator's agent, with a radius of 0.4 m (MiniWorld) or 0.25 m (homes).
    * all others as for ``MirageWorld-v0``.
    """

    reset_options = ("environment", "scene")

    @own_torch()
    def __init__(
        self,
        simulator: str | ReferenceModel = "miniworld",
        action_mode: ActionMode = "twist",
        observation: Literal["rgb", "dict"] = "rgb",
        task: TaskLike = "explore",
        terminate_on: Sequence[str | TerminationCondition] = ("success",),
        collisions: CollisionMode = "report",
        body: Body | None = None,
        scan: int | None = None,
        render_mode: Literal["rgb_array", "human"] | None = None,
        environments: Sequence[str] | None = None,
        mount: CameraMount | None = None,
    ):
        if action_mode == "se3":
            raise ValueError("action_mode: expected 'twist' or 'discrete' in a reference simulator, got 'se3'")
        if collisions == "slide":
            raise ValueError("collisions: expected 'report', 'block' or 'ignore' in a reference simulator, got 'slide'")
        if isinstance(simulator, ReferenceModel):
            model = simulator
        else:
            kinds_of(simulator)  # also checks the name
            model = ReferenceModel(simulator, mount or CameraMount())
        if model.mount.pitch_deg:
            raise ValueError(f"mount: expected a level camera (pitch_deg=0), got {model.mount}")
        kinds = kinds_of(model.simulator, environments)
        if body is None and (collisions != "ignore" or scan is not None):
            body = BODIES[model.simulator]
        super().__init__(
            lambda: ReferenceWorld(model),
            action_mode,
            observation,
            task,
            terminate_on,
            collisions,
            body,
            scan,
            render_mode,
        )
        self._arguments["environments"] = self._environments = kinds

    def close(self) -> None:
        """Close the window and the simulators; forks share the simulators."""
        super().close()
        self.world.model.close()

    @property
    def world(self) -> ReferenceWorld:
        """The session of this environment."""
        return cast(ReferenceWorld, self._world)

    def start_options(self) -> dict[str, Any]:
        """Return the options of ``reset`` that start ``MirageWorld-v0`` from this episode's first image and goal.

        Returns:
            ``image`` and ``fov_deg``; with a goal task also ``goal``, and for image goals ``goal_image``.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        self._need_reset("start_options")
        options: dict[str, Any] = {"image": self.world.state.image.copy(), "fov_deg": self.world.model.mount.fov_deg}
        if "goal" in self._outcome.info:
            options["goal"] = self._outcome.info["goal"].copy()
            if (image := getattr(self._outcome.state, "image", None)) is not None:
                options["goal_image"] = image.copy()
        return options

    def _begin(self, options: dict[str, Any], number: int, seed: int) -> tuple[Session, TaskResult]:
        """See :class:`~mirage_sim.envs.episode_env.EpisodeEnv`."""
        rng = np.random.default_rng([number, seed])
        tries = 1 if "scene" in options else TRIES
        while True:
            kind = options.get("environment", self._environments[rng.integers(len(self._environments))])
            scene = options.get("scene", int(rng.choice(EVALUATION_SEEDS)))
            world = ReferenceWorld(self.world.model)
            world.reset(self._checked(kind, scene))
            tries -= 1
            try:
                return world, self._begin_task(world, options, seed)
            except NoFreeWay:
                if not tries:
                    raise

    def _checked(self, kind: Any, seed: Any) -> Scene:
        if kind not in self._environments:
            raise ValueError(f"environment: expected one of {self._environments}, got {kind!r}")
        integer = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
        if not integer or not 0 <= seed < EVALUATION_SEEDS.stop:
            raise ValueError(f"scene: expected a seed in [0, {EVALUATION_SEEDS.stop}), got {seed!r}")
        return Scene(kind, int(seed))

    @staticmethod
    def _advance(sessions: Sequence[ReferenceWorld], cameras: Sequence[Camera]) -> None:
        """Step one session after the other."""
        for session, camera in zip(sessions, cameras, strict=True):
            session.step(camera)

    def _another(self, render_mode: Literal["rgb_array"] | None) -> Self:
        """See :class:`~mirage_sim.envs.episode_env.EpisodeEnv`."""
        return type(self)(self.world.model, render_mode=render_mode, **self._arguments)


class MirageReferenceVectorEnv(EpisodeVectorEnv):
    """Several independent ``MirageReference-v0`` environments, each with simulators of its own.

        envs = gymnasium.make_vec("MirageReference-v0", num_envs=8, simulator="homes")

    Args:
        num_envs: number of environments.
        max_episode_steps: truncates episodes after this many steps; None for no limit.
        autoreset_mode: one of Gymnasium's; see :class:`~mirage_sim.envs.vector_env.MirageWorldVectorEnv`.
        arguments: of :class:`MirageReferenceEnv`.

    Raises:
        ValueError: if an argument is invalid.
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **arguments: Any,
    ):
        if arguments.get("render_mode") == "human":
            raise ValueError("render_mode: expected None or 'rgb_array' for several worlds, got 'human'")
        super().__init__(lambda: MirageReferenceEnv(**arguments), num_envs, max_episode_steps, autoreset_mode)


def kinds_of(simulator: str, environments: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the kinds of scene that a reference environment may show.

    Raises:
        ValueError: if the simulator is unknown, or a kind is reserved.
    """
    found = simulator_class(simulator)
    if environments is None:
        return found.training_environments
    kinds = (environments,) if isinstance(environments, str) else tuple(environments)
    if not kinds or (reserved := set(kinds) & set(RESERVED_ENVIRONMENTS)):
        got = sorted(reserved) if kinds else "none"
        raise ValueError(f"environments: expected one or more that are not {RESERVED_ENVIRONMENTS}, got {got}")
    return kinds


def paired_reset(
    learned: gymnasium.Env[Any, Any], true: gymnasium.Env[Any, Any], seed: int, options: dict[str, Any] | None = None
) -> tuple[tuple[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]:
    """Start one episode in a learned and in the true world: same image, same field of view, same goal.

    Args:
        learned: ``MirageWorld-v0`` with the same task; may be wrapped.
        true: ``MirageReference-v0``, which chooses scene and goal; may be wrapped.
        seed: of the scene, the goal and all generated content.
        options: of the true environment's ``reset``.

    Returns:
        Observation and info of the learned episode, and of the true one.

    Raises:
        ValueError: if an option is invalid.
    """
    shown = true.reset(seed=seed, options=options)
    return learned.reset(seed=seed, options=cast(MirageReferenceEnv, true.unwrapped).start_options()), shown
