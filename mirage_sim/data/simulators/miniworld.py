"""The MiniWorld simulator: rooms, mazes and boxes of Farama's MiniWorld.

:class:`MiniWorldSimulator` needs the ``twin`` extra and EGL (Debian: ``libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri``);
importing this module needs neither.
"""

import importlib.metadata
import math
from typing import Any

import numpy as np
import torch

from mirage_sim.data.simulators.simulator import CameraMount, arc
from mirage_sim.geometry import Camera, VelocityLimits

TRAINING_ENVIRONMENTS = (
    "OneRoom",
    "FourRooms",
    "Hallway",
    "TMaze",
    "Maze",
    "MazeS3",
    "RoomObjects",
    "PickupObjects",
    "CollectHealth",
    "PutNext",
)
HELD_OUT_ENVIRONMENTS = ("YMaze", "WallGap")  # evaluated, never trained on
RESERVED_ENVIRONMENTS = ("Sidewalk", "ThreeRooms", "Sign")  # neither trained on nor evaluated


class MiniWorldSimulator:
    """One MiniWorld environment; a :class:`mirage_sim.data.simulators.ReferenceSimulator`.

    Domain randomisation is on. It would also change the camera, so every reset restores the mount.

    Args:
        environment: such as ``"OneRoom"``.
        size: image ``(height, width)`` in pixels.
        mount: pose of the camera on the body.
        drive: scale of commands in metres and radians.

    Raises:
        ImportError: if MiniWorld or EGL is missing.
        ValueError: for an environment without settings for image size and domain randomisation.
    """

    training_environments: tuple[str, ...] = TRAINING_ENVIRONMENTS
    turn_distance = 1.8

    def __init__(
        self,
        environment: str,
        size: tuple[int, int] = (96, 128),
        *,
        mount: CameraMount | None = None,
        drive: VelocityLimits | None = None,
    ):
        try:
            import pyglet

            pyglet.options["headless"] = True
            import gymnasium
            import miniworld  # noqa: F401  (registers the environments)
        except ImportError as error:
            raise ImportError(
                f"the MiniWorld simulator needs MiniWorld and EGL: pip install mirage_sim[twin] ({error})"
            ) from error
        self.drive = drive or VelocityLimits()
        self.mount = mount or CameraMount()
        self.size = size
        height, width = size
        try:
            made = gymnasium.make(
                f"MiniWorld-{environment}-v0",
                obs_width=width,
                obs_height=height,
                domain_rand=True,
                max_episode_steps=10**9,
                disable_env_checker=True,
            )
        except TypeError as error:  # MiniWorld's Sign takes neither a size nor domain_rand
            raise ValueError(
                f"environment: expected one of MiniWorld that takes obs_width, obs_height and domain_rand, "
                f"got {environment!r}: {error}"
            ) from error
        self._env: Any = made.unwrapped

    def reset(self, seed: int) -> None:
        """Build the scene of this seed."""
        self._env.reset(seed=seed)
        agent = self._env.agent
        agent.cam_height, agent.cam_fov_y, agent.cam_fwd_disp = self.mount.height, self.mount.fov_deg, 0.0
        agent.cam_pitch = -self.mount.pitch_deg  # MiniWorld's pitch is positive upwards

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the image uint8 ``[H, W, 3]`` and its z-depth float32 ``[H, W]`` in metres, about 100 for the sky."""
        frame = np.ascontiguousarray(self._env.render_obs())
        return frame, np.ascontiguousarray(self._env.render_depth()[..., 0], dtype=np.float32)

    def static_mask(self) -> np.ndarray:
        """Return all True, because nothing moves in MiniWorld."""
        return np.ones(self.size, dtype=bool)

    def camera(self) -> Camera:
        """Return the true camera; the world frame is MiniWorld's, with y up and metric."""
        agent = self._env.agent
        c2w = self.mount.camera_to_world(agent.pos, agent.dir)
        return Camera.from_fov(torch.from_numpy(c2w).float(), self.mount.fov_deg, self.size)

    def step(self, command: np.ndarray) -> bool:
        """Hold ``(forward, turn)`` in [-1, 1]^2 for one step; a blocked step turns without moving.

        Returns:
            True if the step was blocked.
        """
        chord, turn = arc(command, self.drive)
        self._env.turn_agent(math.degrees(turn / 2))
        moved = self._env.move_agent(chord, 0.0) if chord else True
        self._env.turn_agent(math.degrees(turn / 2))
        return not moved

    def put(self, place: np.ndarray, heading: float) -> None:
        """Put the body at ``[x, z]``, whatever is there."""
        agent = self._env.agent
        agent.pos, agent.dir = np.array([place[0], agent.pos[1], place[1]]), heading

    @property
    def radius(self) -> float:
        """Radius of the agent in metres, 0.4 except for 1.5 in RoomObjects."""
        return float(self._env.agent.radius)

    def free_steps(self, place: np.ndarray, direction: np.ndarray, steps: int) -> int | None:
        """Count the full-speed steps straight ahead that succeed from ``place``; the agent returns to its pose."""
        agent = self._env.agent
        pos, heading = agent.pos.copy(), agent.dir
        agent.pos = np.array([place[0], pos[1], place[1]])
        agent.dir = math.atan2(-direction[1], direction[0])
        free: int | None = None
        if self._env.move_agent(0.0, 0.0):
            free = 0
            while free < steps and self._env.move_agent(self.drive.max_speed * self.drive.dt, 0.0):
                free += 1
        agent.pos, agent.dir = pos, heading
        return free

    def move_to(self, place: np.ndarray, heading: float) -> None:
        """Put the agent at ``place``, ``[x, z]`` in metres, facing ``heading`` in radians."""
        agent = self._env.agent
        agent.pos, agent.dir = np.array([place[0], agent.pos[1], place[1]]), heading

    def obstacle_distance(self, places: np.ndarray) -> np.ndarray:
        """Return the metres from each place ``[..., 2]`` to the nearest wall or object."""
        ends = self._env.wall_segs[:, :, [0, 2]]
        start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
        offset = np.asarray(places, np.float64)[..., None, :] - start
        share = np.clip((offset * along).sum(-1) / (along * along).sum(-1), 0.0, 1.0)
        nearest = np.linalg.norm(offset - share[..., None] * along, axis=-1).min(-1, initial=np.inf)
        for entity in self._env.entities:
            if entity is not self._env.agent:
                away = np.linalg.norm(places - entity.pos[[0, 2]], axis=-1) - entity.radius
                nearest = np.minimum(nearest, away)
        return np.asarray(nearest)

    def rendered_by(self) -> dict[str, str]:
        """Return the versions of MiniWorld, of the GL renderer and of GL."""
        from pyglet.gl import gl_info

        return {
            "miniworld": importlib.metadata.version("miniworld"),
            "renderer": gl_info.get_renderer(),
            "gl": gl_info.get_version(),
        }

    def close(self) -> None:
        """Free the GL context."""
        self._env.close()
