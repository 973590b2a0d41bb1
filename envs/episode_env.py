"""An episode of a task in a session: what all environments share."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, Self

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding

from mirage_sim.ambient import own_torch
from mirage_sim.envs.actions import ActionMode, Actions, moved
from mirage_sim.envs.collisions import CollisionMode, Collisions, ContactState
from mirage_sim.envs.observations import ObservationEncoder, make_info
from mirage_sim.envs.stepping import Plan, Transition, step_envs
from mirage_sim.envs.tasks import EpisodeStart, TaskLike, TaskResult, check_result, make_task
from mirage_sim.envs.termination import TerminationCondition, check_termination, make_conditions
from mirage_sim.envs.window import Window, frames_per_second
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.world import Body, NotReset, Session


@dataclass(frozen=True)
class EnvSnapshot:
    """A moment of an episode: world, task result, contact state, and the random generator of later resets."""

    world: Any
    outcome: TaskResult
    contact: ContactState
    rng: dict[str, Any]


class EpisodeEnv(gymnasium.Env[Any, Any]):
    """Actions, observations, tasks, collisions, termination and snapshots over a :class:`~mirage_sim.world.Session`.

    A subclass says which session an episode starts from (:meth:`_begin`), how sessions step together (:meth:`_advance`)
    and how to make another environment like itself (:meth:`_another`).

    Args:
        open_session: returns the session; called once the other arguments are known to be valid.
        action_mode: see :class:`~mirage_sim.envs.world_env.MirageWorldEnv`, as for the other arguments.
        observation: see there.
        task: see there.
        terminate_on: see there.
        collisions: see there.
        body: see there.
        scan: see there.
        render_mode: see there.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}
    #: keys of ``reset(options=...)``, besides those of the task
    reset_options: tuple[str, ...] = ()

    def __init__(
        self,
        open_session: Callable[[], Session],
        action_mode: ActionMode,
        observation: Literal["rgb", "dict"],
        task: TaskLike,
        terminate_on: Sequence[str | TerminationCondition],
        collisions: CollisionMode,
        body: Body | None,
        scan: int | None,
        render_mode: Literal["rgb_array", "human"] | None,
    ):
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode: expected None, 'rgb_array' or 'human', got {render_mode!r}")
        self._task = make_task(task)
        self._terminate_on = make_conditions(terminate_on)
        self._collisions = Collisions(collisions, body, scan)
        self._collisions.check_conditions(terminate_on)
        self._world = open_session()
        model = self._world.model
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
        }
        self._encoder = ObservationEncoder(observation, self._task, model.size)
        self._window = Window("MirageWorld")
        self.render_mode = render_mode
        self.action_space = self._actions.space
        self.observation_space = self._encoder.space

    def _begin(self, options: dict[str, Any], number: int, seed: int) -> tuple[Session, TaskResult]:
        """Start a session and the task in it; the episode itself does not change.

        Args:
            options: of ``reset``, with known keys.
            number: random number that chooses the start.
            seed: of the episode.
        """
        raise NotImplementedError

    @staticmethod
    def _advance(sessions: Sequence[Any], cameras: Sequence[Camera]) -> None:
        """Step several sessions."""
        raise NotImplementedError

    def _another(self, render_mode: Literal["rgb_array"] | None) -> Self:
        """Return a new environment with the same arguments that shares the model."""
        raise NotImplementedError

    @own_torch()
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of the start image, all generated content and later resets; None continues the present sequence.
            options: see the class of the environment.

        Returns:
            Observation and info.

        Raises:
            FileNotFoundError: if a file does not exist.
            ValueError: if an option is unknown or invalid, or no goal is reachable in the start view. The running
                episode is then unchanged.
        """
        options = dict(options or {})
        known = {*self.reset_options, *getattr(self._task, "options", ())}
        if unknown := set(options) - known:
            raise ValueError(f"options: expected keys of {sorted(known)}, got {sorted(map(str, unknown))}")
        rng = deepcopy(self.np_random) if seed is None else seeding.np_random(seed)[0]
        # Both are sampled whether used or not, so that options do not change the seeds of later resets.
        start_number = int(rng.integers(2**31))
        episode_seed = int(rng.integers(2**63 - 1))
        fresh, outcome = self._begin(options, start_number, episode_seed)
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

    def close(self) -> None:
        """Close the window, if one is open."""
        self._window.close()

    def snapshot(self) -> EnvSnapshot:
        """Return the current moment of the episode, without copying it.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
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
    def fork(self, n: int) -> list[Self]:
        """Return ``n`` independent environments at the current moment.

        They share the model with this environment, have no window, and reset with the same sequence of seeds.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            ValueError: if ``n`` is not a positive integer.
        """
        now = self.snapshot()
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n: expected a positive integer, got {n!r}")
        render_mode: Literal["rgb_array"] | None = "rgb_array" if self.render_mode == "rgb_array" else None
        forks = [self._another(render_mode) for _ in range(n)]
        for fork in forks:
            fork.restore(now)
        return forks

    @property
    def steps(self) -> int:
        """Number of steps since the reset."""
        return int(self._world.state.step)

    def get_keys_to_action(self) -> dict[str, Any]:
        """Return the key bindings for ``gymnasium.utils.play``: ``w``/``s`` move, ``a``/``d`` turn.

        Pass ``noop=np.zeros(2, np.float32)`` to stand still while no key is pressed. ``"discrete"`` has no such action:
        pass ``wait_on_player=True`` there.
        """
        return self._actions.keys()

    def _begin_task(self, world: Session, options: dict[str, Any], seed: int) -> TaskResult:
        """Start the task at the first frame of a session."""
        own = {key: options[key] for key in getattr(self._task, "options", ()) if key in options}
        start = EpisodeStart(world.fork(1)[0], world.snapshot().observation, np.random.default_rng(seed), own)
        return self._task.begin(start)

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

    def _commit(self, world: Session, outcome: TaskResult, contact: ContactState) -> None:
        self._world.restore(world.snapshot())
        self._outcome, self._contact = outcome, contact
        if self.render_mode == "human":
            self.render()

    def _describe(self, world: Session, outcome: TaskResult, contact: ContactState) -> tuple[Any, dict[str, Any]]:
        """Return observation and info of a moment."""
        shown = world.snapshot().observation
        info = make_info(shown, world.state.step * world.model.dt, self._collisions.info(contact))
        info |= deepcopy(check_result(outcome, set(info)).info)
        return self._encoder.observe(shown, outcome), info
