"""The Gymnasium environment ``MirageWorld-v0``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np

from mirage_sim.ambient import own_torch
from mirage_sim.envs.actions import ActionMode
from mirage_sim.envs.collisions import CollisionMode
from mirage_sim.envs.episode_env import EpisodeEnv
from mirage_sim.envs.starting import OPTIONS, Starts, pose_camera, shared_model
from mirage_sim.envs.tasks import TaskLike, TaskResult
from mirage_sim.envs.termination import TerminationCondition
from mirage_sim.geometry import Camera
from mirage_sim.world import Body, World, WorldModel, step_together


class MirageWorldEnv(EpisodeEnv):
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

    Pixels at a depth of 50 m or more count as sky and have no area.

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

    Invalid actions raise ``gymnasium.error.InvalidAction`` and invalid arguments ``ValueError``, before the episode
    changes.

    ## Version History
    * v0: initial version
    """

    reset_options = OPTIONS

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
        if not isinstance(world, (str, WorldModel)):
            raise ValueError(f"world: expected the name of a configuration or a WorldModel, got {type(world).__name__}")

        def open_world() -> World:
            images = None if isinstance(starts, (str, Path)) else starts
            return World(shared_model(world) if isinstance(world, str) else world, images)

        super().__init__(open_world, action_mode, observation, task, terminate_on, collisions, body, scan, render_mode)
        self._starts = Starts(self.world.model, starts)
        self._arguments["starts"] = starts

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

        See :meth:`mirage_sim.world.World.observe`; task and contact state stay as they are.

        Args:
            image: path or uint8 RGB ``[H, W, 3]``.
            c2w: camera-to-world matrix ``[4, 4]`` of the image; None for the present pose.
            depth: measured z-depth, as ``options["depth"]``; None to estimate it.
            move: whether the episode goes on from this pose and image.
            fov_deg: vertical field of view of the image in degrees.

        Returns:
            Observation and info of the present moment; the next ``step`` shows what was observed.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            FileNotFoundError: if a file does not exist.
            ValueError: if an argument is invalid. The episode is then unchanged.
        """
        self._need_reset("observe")
        self.world.observe(image, pose_camera(c2w, fov_deg, image), depth, move=move, fov_deg=fov_deg)
        if move:
            self._contact = self._collisions.query(self._world)
        return self._describe(self._world, self._outcome, self._contact)

    @property
    def world(self) -> World:
        """The world session of this environment."""
        return cast(World, self._world)

    def _begin(self, options: dict[str, Any], number: int, seed: int) -> tuple[World, TaskResult]:
        """See :class:`~mirage_sim.envs.episode_env.EpisodeEnv`."""
        fresh = self._starts.begin(self.world.model, options, number, seed)
        return fresh, self._begin_task(fresh, options, seed)

    @staticmethod
    def _advance(sessions: Sequence[World], cameras: Sequence[Camera]) -> None:
        """Step the worlds as one batch."""
        step_together(sessions, cameras)

    def _another(self, render_mode: Literal["rgb_array"] | None) -> Self:
        """See :class:`~mirage_sim.envs.episode_env.EpisodeEnv`."""
        return type(self)(self.world.model, render_mode=render_mode, **self._arguments)
