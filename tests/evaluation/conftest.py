from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.toy_world import SIZE

from mirage_sim.data.clips import Clip
from mirage_sim.evaluation import runner
from mirage_sim.geometry import Camera, VelocityLimits, unproject
from mirage_sim.world import WorldModel


def synthetic_clip(environment: str, seed: int, commands: list[tuple[float, float]]) -> Clip:
    """A clip of the plane z = 4 m with true depth; in the images its texture shifts with the turn."""
    rng = np.random.default_rng(seed)
    texture = np.kron(rng.integers(0, 256, (12, 64, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    c2w = [torch.eye(4)]
    for command in commands:
        c2w.append(c2w[-1] @ VelocityLimits().motion(torch.tensor(command)))
    poses = torch.stack(c2w)
    shift = (torch.atan2(poses[:, 0, 2], poses[:, 2, 2]) * 50).round().int()
    frames = np.stack([np.roll(texture, -int(s), axis=1)[:, : SIZE[1]] for s in shift])
    cameras = Camera.from_fov(poses, 60.0, SIZE)
    rays = unproject(torch.ones(len(poses), *SIZE), cameras)[..., 2] - poses[:, 2, 3, None, None]
    return Clip(
        frames=torch.from_numpy(frames),
        depth=(4.0 - poses[:, 2, 3, None, None]) / rays,
        c2w=poses,
        K=cameras.K[0],
        commands=torch.tensor(commands),
        blocked=torch.zeros(len(commands), dtype=torch.bool),
        source={"environment": environment, "seed": str(seed)},
    )


@pytest.fixture(scope="session")
def walks() -> list[Clip]:
    """Two walks of four steps, one in an environment that is held out of training."""
    return [
        synthetic_clip("OneRoom", 1, [(0.5, 0.5)] * 4),
        synthetic_clip("YMaze", 2, [(0.2, -1.0)] * 4),
    ]


@pytest.fixture(scope="session")
def circuits() -> list[Clip]:
    there, back = [(0.0, 1.0)] * 2, [(0.0, -1.0)] * 2
    return [synthetic_clip(name, 3, there + back + there) for name in ("OneRoom", "YMaze")]


@pytest.fixture(scope="session")
def long_walks() -> list[Clip]:
    """Four walks of 24 steps, the last one in an environment that is held out of training."""
    names = ("OneRoom", "OneRoom", "Maze", "YMaze")
    return [synthetic_clip(name, i, [(0.1, 0.2 + 0.1 * i)] * 24) for i, name in enumerate(names)]


@pytest.fixture
def toy_truth(monkeypatch: pytest.MonkeyPatch, long_walks: list[Clip], circuits: list[Clip]) -> None:
    """The protocol on synthetic walks instead of the manifest's, which need GL and are not of the toy model's size."""
    _patch(monkeypatch, long_walks, circuits)


def _patch(monkeypatch: pytest.MonkeyPatch, walks: list[Clip], circuits: list[Clip]) -> None:
    def load(chosen: Any, made_by: Any, cache: Any) -> list[Clip]:
        return [] if not chosen else circuits if chosen[0].leg else walks

    monkeypatch.setattr(runner, "load_truth", load)


@pytest.fixture(scope="session")
def evaluated(
    model: WorldModel, long_walks: list[Clip], circuits: list[Clip], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """An evaluation of fidelity on synthetic walks: its output folder and what it returned. Not to be written to."""
    output = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _patch(monkeypatch, long_walks, circuits)
        return output, runner.evaluate("fidelity", {"output": str(output), "batch": 3}, model)
