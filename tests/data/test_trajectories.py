import numpy as np
import pytest
import torch

from mirage_sim.data.trajectories import Walker
from mirage_sim.geometry import VelocityLimits

OPEN = np.full((8, 12), 9.0, dtype=np.float32)


def walk(seed: int, steps: int = 39, kind: str | None = None, rough: bool = False) -> tuple[Walker, np.ndarray]:
    """Return a walk and its commands, through open space or, if ``rough``, with random walls and collisions."""
    walker = Walker(np.random.default_rng(seed), steps, kind)
    world = np.random.default_rng(seed + 1000)
    commands = []
    for _ in range(steps):
        depth = world.uniform(0.3, 6.0, OPEN.shape) if rough else OPEN
        commands.append(walker.command(bool(rough and world.random() < 0.3), depth))
    return walker, np.stack(commands)


def final_pose(commands: np.ndarray) -> torch.Tensor:
    c2w = torch.eye(4, dtype=torch.float64)
    for motion in VelocityLimits().motion(torch.from_numpy(commands).float()).double():
        c2w = c2w @ motion
    return c2w


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize("kind", Walker.KINDS)
def test_commands_are_bounded(kind: str, rough: bool):
    for seed in range(30):
        _, commands = walk(seed, kind=kind, rough=rough)
        assert commands.shape == (39, 2) and np.abs(commands).max() <= 1.0


def test_same_seed_gives_same_commands():
    for kind in (None, *Walker.KINDS):
        first, again, other = (walk(seed, kind=kind, rough=True) for seed in (7, 7, 8))
        assert first[0].kind == again[0].kind and np.array_equal(first[1], again[1])
        assert not np.array_equal(first[1], other[1])


def test_seeds_draw_all_kinds():
    kinds = [Walker(np.random.default_rng(seed), 39).kind for seed in range(200)]
    counts = {kind: kinds.count(kind) for kind in Walker.KINDS}
    assert sum(counts.values()) == 200 and min(counts.values()) > 10 and counts["wander"] > 80


def test_pivot_turns_away_and_back():
    for seed in range(10):
        _, commands = walk(seed, kind="pivot")
        assert (commands[:, 0] == 0).all()
        turn = commands[:, 1]
        leg = int(np.flatnonzero(np.sign(turn) != np.sign(turn[0]))[0])
        assert 6 <= leg <= 14
        torch.testing.assert_close(final_pose(commands[: 2 * leg]), torch.eye(4).double(), atol=1e-5, rtol=0)
        away = final_pose(commands[:leg])
        assert away[0, 0] < np.cos(6 * 0.5 * np.pi / 30) + 1e-6  # at least 6 steps at half the rate


@pytest.mark.parametrize("steps", [38, 39])
def test_return_reverses_every_command(steps: int):
    for seed in range(10):
        _, commands = walk(seed, steps, kind="return", rough=seed % 2 == 1)
        half = steps // 2
        assert np.array_equal(commands[half : 2 * half], -commands[:half][::-1])
        assert (commands[2 * half :] == 0).all()
        assert np.abs(commands[:half]).max() > 0.1
        torch.testing.assert_close(final_pose(commands), torch.eye(4).double(), atol=1e-5, rtol=0)


def test_wander_turns_to_the_open_side():
    for side, turn in ((slice(0, 4), 1.0), (slice(8, 12), -1.0)):  # left, right
        depth = np.full_like(OPEN, 1.3)
        depth[:, side] = 9.0
        for seed in range(5):
            walker = Walker(np.random.default_rng(seed), 39, "wander")
            walker._hold, walker._target = 5, np.array([0.8, 0.0])
            assert np.sign(walker.command(False, depth)[1]) == turn


def test_blocked_wander_backs_off_and_keeps_its_side():
    for seed in range(5):
        walker = Walker(np.random.default_rng(seed), 39, "wander")
        walker._hold, walker._target, walker._command = 5, np.array([0.8, 0.0]), np.array([0.0, -0.5])
        commands = np.stack([walker.command(step == 0, OPEN) for step in range(6)])
        assert (commands[:, 0] < 0).all() and (commands[:, 1] < 0).all()


def test_commands_change_smoothly():
    for seed in range(10):
        _, commands = walk(seed, kind="wander")
        assert np.abs(np.diff(commands, axis=0)).max() <= 1.0 and len(np.unique(commands, axis=0)) > 10


def test_returned_command_is_not_modified_later():
    walker = Walker(np.random.default_rng(0), 39, "wander")
    first = walker.command(False, OPEN)
    kept = first.copy()
    walker.command(True, OPEN)
    assert np.array_equal(first, kept)


def test_unknown_kind_raises():
    with pytest.raises(ValueError, match="kind: expected one of .*got 'run'"):
        Walker(np.random.default_rng(0), 39, "run")
