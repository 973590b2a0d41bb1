"""Random smooth walks: the commands of the agent that records clips."""

import numpy as np


class Walker:
    """A random source of velocity commands ``(forward, turn)`` in [-1, 1]^2 for one walk.

    There are three kinds of walk: *wander* (piecewise constant targets, smoothed), *pivot* (turns in place, away and
    back again) and *return* (wanders for half of the steps, then reverses every command, which leads back to the
    start).

    Args:
        rng: random numbers.
        steps: length of the walk.
        kind: one of ``KINDS``; random if None.
        turn_distance: metres; the walker turns away from nearer obstacles, which would fill the image.

    Raises:
        ValueError: for an unknown kind.
    """

    KINDS = ("wander", "pivot", "return")

    def __init__(self, rng: np.random.Generator, steps: int, kind: str | None = None, turn_distance: float = 1.8):
        self.rng = rng
        self.steps = steps
        self.turn_distance = turn_distance
        self.kind = kind or str(rng.choice(self.KINDS, p=[0.6, 0.15, 0.25]))
        if self.kind not in self.KINDS:
            raise ValueError(f"kind: expected one of {self.KINDS}, got {kind!r}")
        self._target = np.zeros(2)
        self._command = np.zeros(2)
        self._hold = 0
        self._commands: list[np.ndarray] = []
        self._pivot_rate = rng.uniform(0.5, 1.0) * rng.choice([-1.0, 1.0])
        self._pivot_leg = int(rng.integers(6, 15))

    def command(self, blocked: bool, depth: np.ndarray) -> np.ndarray:
        """Return the next command.

        Args:
            blocked: whether the last step was blocked.
            depth: of the current view, ``[H, W]`` in metres.
        """
        step = len(self._commands)
        if self.kind == "pivot":
            away = (step // self._pivot_leg) % 2 == 0
            command = np.array([0.0, self._pivot_rate if away else -self._pivot_rate])
        elif self.kind == "return" and step >= self.steps // 2:
            mirrored = 2 * (self.steps // 2) - 1 - step
            command = -self._commands[mirrored] if mirrored >= 0 else np.zeros(2)
        else:
            command = self._wander(blocked, depth)
        self._commands.append(command)
        return command

    def _wander(self, blocked: bool, depth: np.ndarray) -> np.ndarray:
        """Approach a random target command; near obstacles, replace it by a turn towards open space."""
        horizon = depth[depth.shape[0] // 2]
        third = len(horizon) // 3
        if self._hold == 0:
            forward = self.rng.choice(
                [0.0, self.rng.uniform(-0.7, -0.2), self.rng.uniform(0.3, 1.0)], p=[0.1, 0.1, 0.8]
            )
            turn = self.rng.choice([0.0, self.rng.uniform(-0.4, 0.4), self.rng.uniform(-1.0, 1.0)], p=[0.3, 0.4, 0.3])
            self._target = np.array([forward, turn])
            self._hold = int(self.rng.integers(4, 12))
        if (blocked or horizon[third:-third].min() < self.turn_distance) and self._target[0] >= 0.0:
            # after a collision keep the side, because changing sides in a corner would oscillate
            side = np.sign(self._command[1]) if blocked else np.sign(horizon[:third].mean() - horizon[-third:].mean())
            self._target = np.array([-0.1 if blocked else 0.0, (side or 1.0) * self.rng.uniform(0.6, 1.0)])
            self._hold = int(self.rng.integers(6, 12))
        self._hold -= 1
        self._command = 0.5 * self._command + 0.5 * self._target
        return self._command.copy()
