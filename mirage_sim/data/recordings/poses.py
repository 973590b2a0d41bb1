"""Poses of recordings: reading, checking and interpolating them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_JUMP, MAX_SPEED = 5.0, 10.0  # metres between successive images, metres per second: both at once are no motion
MAX_DISTANCE = 10_000.0  # metres from the origin; float32 is finer than a millimetre up to there
_RIGID = 1e-3  # how far from orthonormal a rotation may be
_GAP = 0.5  # seconds without poses over which is interpolated, whatever the motion
_STILL = 0.1  # metres and radians that are a small motion over any gap


def motions_of(source: Path, positions: Array, quaternions: Array) -> Array:
    """Rigid motions ``[N, 4, 4]`` of positions ``[N, 3]`` and quaternions ``[N, 4]`` (x, y, z, w).

    Raises:
        ValueError: if a number is not finite or a quaternion not of unit length (within 1 %).
    """
    lengths = np.linalg.norm(quaternions, axis=1)
    sound: NDArray[np.bool_] = np.isfinite(positions).all(axis=1) & (np.abs(lengths - 1) < 0.01)
    if not sound.all():
        wrong = int(np.argmin(sound))
        raise ValueError(
            f"{source}: expected finite positions and unit quaternions, got {positions[wrong].tolist()} and "
            f"{quaternions[wrong].tolist()} (pose {wrong})"
        )
    x, y, z, w = (quaternions / lengths[:, None]).T
    out = np.tile(np.eye(4), (len(positions), 1, 1))
    out[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1)
    out[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1)
    out[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1)
    out[:, :3, 3] = positions
    return out


@dataclass(frozen=True)
class Track:
    """Poses over time of one frame in another.

    Attributes:
        stamps: ``[M]`` seconds, ascending.
        positions: ``[M, 3]``.
        quaternions: unit length, ``[M, 4]`` (x, y, z, w).
        static: the first pose holds at any time.
    """

    stamps: Array
    positions: Array
    quaternions: Array
    static: bool = False

    def at(self, source: Path, times: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Poses at other times: linear between positions, slerp between rotations, never beyond the ends.

        A gap of more than 0.5 s counts as unknown, unless the pose at its end is nearly that at its start.

        Args:
            source: for errors.
            times: ``[N]`` seconds.

        Returns:
            Motions ``[N, 4, 4]`` and whether each is known, bool ``[N]``.

        Raises:
            ValueError: as :func:`motions_of`.
        """
        motions_of(source, self.positions, self.quaternions)  # an unsound one would spread to its neighbours
        if self.static or len(self.stamps) == 1:
            pose = motions_of(source, self.positions[:1], self.quaternions[:1])
            return np.repeat(pose, len(times), axis=0), np.ones(len(times), dtype=bool)
        after = np.clip(np.searchsorted(self.stamps, times), 1, len(self.stamps) - 1)
        before = after - 1
        gap = self.stamps[after] - self.stamps[before]
        share = np.clip((times - self.stamps[before]) / gap, 0.0, 1.0)[:, None]
        start, end = self.positions[before], self.positions[after]
        turned, angle = _slerp(self.quaternions[before], self.quaternions[after], share)
        still = (np.linalg.norm(end - start, axis=1) < _STILL) & (2 * angle < _STILL)
        inside = (times >= self.stamps[0]) & (times <= self.stamps[-1])
        known = inside & ((gap <= _GAP) | still | np.isin(times, self.stamps))
        return motions_of(source, start + share * (end - start), turned), known


def _slerp(start: Array, end: Array, share: Array) -> tuple[Array, Array]:
    """Unit quaternions on the shorter arcs between two ``[N, 4]``, and the angles of these arcs ``[N]``."""
    cosine = (start * end).sum(axis=1, keepdims=True)
    end, cosine = np.where(cosine < 0, -end, end), np.clip(np.abs(cosine), 0.0, 1.0)
    angle = np.arccos(cosine)
    sine = np.where(angle > 1e-6, np.sin(angle), 1.0)
    first = np.where(angle > 1e-6, np.sin((1 - share) * angle) / sine, 1 - share)
    second = np.where(angle > 1e-6, np.sin(share * angle) / sine, share)
    out = first * start + second * end
    return out / np.linalg.norm(out, axis=1, keepdims=True), angle[:, 0]


def nearest(stamps: Array, times: Array, tolerance: float) -> NDArray[np.int64]:
    """Indices of the ascending ``stamps`` nearest to ``times``, ``[N]``; -1 where none lies within ``tolerance``."""
    if not len(stamps):
        return np.full(len(times), -1)
    after = np.clip(np.searchsorted(stamps, times), 0, len(stamps) - 1)
    before = np.maximum(after - 1, 0)
    found = np.where(np.abs(stamps[before] - times) <= np.abs(stamps[after] - times), before, after)
    return np.where(np.abs(stamps[found] - times) <= tolerance, found, -1)


def check_poses(source: Path, stamps: Array, c2w: Array, timed: bool) -> None:
    """Check that poses ``[N, 4, 4]`` are rigid, near enough to the origin, and those of a camera that moves.

    Args:
        source: for errors.
        stamps: ``[N]`` seconds.
        c2w: camera-to-world.
        timed: False if the stamps only count images, so that there is no speed.

    Raises:
        ValueError: naming the first image whose pose is wrong. A jump is more than 5 m between successive images at
            more than 10 m/s.
    """
    finite = np.asarray(np.isfinite(c2w).all(axis=(1, 2)))
    rotation: Array = np.where(finite[:, None, None], c2w[:, :3, :3], 0.0)
    skew: Array = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    last: Array = np.abs(c2w[:, 3] - [0, 0, 0, 1]).max(axis=1)
    rigid: NDArray[np.bool_] = finite & (skew < _RIGID) & (np.linalg.det(rotation) > 0) & (last < _RIGID)
    if not rigid.all():
        wrong = int(np.argmin(rigid))
        raise ValueError(
            f"{source}: expected rigid poses (orthonormal, right-handed, finite, last row 0 0 0 1), "
            f"got {np.round(c2w[wrong], 6).tolist()} (image {wrong})"
        )
    positions = c2w[:, :3, 3]
    if (far := float(np.abs(positions).max())) > MAX_DISTANCE:
        raise ValueError(f"{source}: expected positions within {MAX_DISTANCE:g} m of the origin, got {far:g} m")
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    speeds = steps / np.diff(stamps)
    jumps: NDArray[np.bool_] = (steps > MAX_JUMP) & (speeds > MAX_SPEED)
    if timed and jumps.any():
        at = int(np.argmax(jumps))
        raise ValueError(
            f"{source}: expected poses of a camera that moves (at most {MAX_JUMP:g} m between successive images, or "
            f"at most {MAX_SPEED:g} m/s), got {steps[at]:.3g} m at {speeds[at]:.3g} m/s (images {at} to {at + 1})"
        )
