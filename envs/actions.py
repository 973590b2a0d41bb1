"""Action spaces, and the camera motion of an action."""

import math
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction
from torch import Tensor

from mirage_sim.geometry import Camera, VelocityLimits, se3_exp

ActionMode = Literal["twist", "discrete", "se3"]

#: (forward, turn) of the discrete actions, as fractions of the velocity limits.
DISCRETE_COMMANDS = {"forward": (1.0, 0.0), "left": (0.0, 1.0), "right": (0.0, -1.0), "back": (-1.0, 0.0)}
_TOLERANCE = 1e-6  # rounding may take the actions of a policy slightly out of bounds


class Actions:
    """An action space that maps actions to camera motions.

    Args:
        mode: ``"twist"``: Box ``[-1, 1]^2`` of forward speed and turn rate; ``"discrete"``: forward, left, right, back
            at full speed; ``"se3"``: Box ``[-1, 1]^6`` of a twist in camera axes, translation first.
        drive: velocity limits. ``se3`` moves up to ``max_speed * dt`` metres and turns up to ``max_turn_rate * dt``
            radians per axis and step.

    Raises:
        ValueError: if the mode is unknown.
    """

    space: spaces.Space

    def __init__(self, mode: ActionMode, drive: VelocityLimits):
        self.mode = mode
        self.drive = drive
        if mode == "twist":
            self.space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        elif mode == "se3":
            self.space = spaces.Box(-1.0, 1.0, (6,), np.float32)
        elif mode == "discrete":
            self.space = spaces.Discrete(len(DISCRETE_COMMANDS))
        else:
            raise ValueError(f"action_mode: expected 'twist', 'discrete' or 'se3', got {mode!r}")
        step, turn = drive.max_speed * drive.dt, drive.max_turn_rate * drive.dt
        self._se3_scale = torch.tensor([step, step, step, turn, turn, turn])

    def motion(self, action: Any) -> Tensor:
        """Return the camera motion ``[4, 4]`` of one step: ``c2w_next = c2w @ motion``.

        Raises:
            gymnasium.error.InvalidAction: if the action is not in the space.
        """
        if self.mode == "discrete":
            command = list(DISCRETE_COMMANDS.values())[self._discrete(action)]
            return self.drive.motion(torch.tensor(command))
        values = torch.from_numpy(self._box(action))
        return self.drive.motion(values) if self.mode == "twist" else se3_exp(values * self._se3_scale)

    def keys(self) -> dict[str, Any]:
        """Return key bindings for ``gymnasium.utils.play``.

        ``w``/``s`` move forward and back, ``a``/``d`` turn left and right. In continuous modes two keys combine.
        """
        keys = dict(zip("wads", DISCRETE_COMMANDS.values(), strict=True))
        if self.mode == "discrete":
            return {key: i for i, key in enumerate(keys)}
        pressed = (*keys, "wa", "wd", "sa", "sd")
        commands = {each: np.sum([keys[key] for key in each], axis=0) for each in pressed}
        if self.mode == "se3":  # along z, and about -y
            commands = {each: np.array([0.0, 0.0, go, 0.0, -turn, 0.0]) for each, (go, turn) in commands.items()}
        return {each: command.astype(np.float32) for each, command in commands.items()}

    def _discrete(self, action: Any) -> int:
        value = _array(action)
        if value.shape != () or value.dtype.kind not in "iu" or not 0 <= value < len(DISCRETE_COMMANDS):
            names = ", ".join(f"{i} {name}" for i, name in enumerate(DISCRETE_COMMANDS))
            raise InvalidAction(f"action: expected one of {names}, got {action!r}")
        return int(value)

    def _box(self, action: Any) -> np.ndarray:
        shape = self.space.shape
        values = _array(action)
        if values.shape != shape or values.dtype.kind not in "fiu":
            raise InvalidAction(
                f"action: expected numbers of shape {shape} in [-1, 1] (mode {self.mode!r}), "
                f"got {values.dtype} of shape {values.shape}"
            )
        values = values.astype(np.float32)
        if not np.all(np.abs(values) <= 1.0 + _TOLERANCE):  # also rejects NaN
            raise InvalidAction(f"action: expected finite values in [-1, 1], got {values.tolist()}")
        return np.clip(values, -1.0, 1.0)


def _array(action: Any) -> np.ndarray:
    try:
        return np.asarray(action)
    except ValueError as error:  # nested lists of unequal lengths
        raise InvalidAction(f"action: expected a number or an array of numbers, got {action!r}") from error


def moved(camera: Camera, motion: Tensor) -> Camera:
    """Return the camera after ``motion [4, 4]``, with an orthonormal rotation.

    Orthonormalisation keeps rounding errors from accumulating over an episode.
    """
    c2w = camera.c2w.double().numpy() @ motion.double().numpy()
    forward, right = c2w[:3, 2], c2w[:3, 0]
    forward = forward / math.sqrt(forward @ forward)
    right = right - (right @ forward) * forward
    right = right / math.sqrt(right @ right)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2] = right, np.cross(forward, right), forward
    return Camera(torch.from_numpy(c2w).float(), camera.K, camera.size)
