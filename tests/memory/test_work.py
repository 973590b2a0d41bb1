"""What reading, writing and forking cost, in elements walked over: a clock would not tell on a busy machine."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.runner import work_of
from mirage_sim.geometry import Camera
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.memory.blocks import Points
from mirage_sim.memory.kernels import BLOCK_POINTS
from mirage_sim.memory.latent_map import InView

MEMORY = PointMemory(8, (1, 1, 1))
CAMERA = Camera.from_fov(torch.eye(4)[None], 60.0, (11, 20))
IN_VIEW, BLOCKS_OUT_OF_VIEW = 8 * BLOCK_POINTS, 100
FRAME = {
    "latents": torch.ones(8, 1, 11, 20),
    "frames": torch.zeros(3, 1, 11, 20),
    "depth": torch.full((1, 11, 20), 2.5),
    "static": torch.ones(1, 11, 20, dtype=torch.bool),
}


def clump(map: LatentMap, centre: torch.Tensor, count: int) -> LatentMap:
    """The map with more points, within a metre of each other."""
    generator = torch.Generator().manual_seed(map.next_id)
    points = Points(
        centre + torch.rand(count, 3, generator=generator) - 0.5,
        torch.randn(count, 8, generator=generator),
        torch.arange(map.next_id, map.next_id + count),
        torch.full((count,), 0.01),
    )
    return map.add(points, np.zeros(0, np.int64), count)


@pytest.fixture(scope="module")
def maps() -> tuple[LatentMap, LatentMap]:
    """A map of which all is in view, and it with twelve times as many points beside and behind the camera."""
    near = clump(MEMORY.empty(), torch.tensor([1.0, 1.0, 5.0]), IN_VIEW)
    far = near
    for i in range(BLOCKS_OUT_OF_VIEW):
        far = clump(far, torch.tensor([41.0 + 2 * (i % 10), 1.0, 1.0 - 2 * (i // 10)]), BLOCK_POINTS)
    assert len(far.blocks) - len(near.blocks) == BLOCKS_OUT_OF_VIEW and far.points > 12 * near.points
    return near, far


READ = pytest.param(lambda map: MEMORY.read(map, CAMERA), id="read")
WRITE = pytest.param(lambda map: MEMORY.write(map, **FRAME, camera=CAMERA), id="write")
WALL = MEMORY.write(MEMORY.empty(), **FRAME, camera=CAMERA)


@pytest.mark.parametrize("use", [READ, WRITE])
def test_work_depends_on_points_in_view(
    use: Callable[[LatentMap], object], maps: tuple[LatentMap, LatentMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = (work_of(lambda map=map: use(map)) for map in maps)
    assert near > IN_VIEW, "the points in view were not seen to be walked over: count what replaced torch here, too"
    # each block out of view costs a look at its box
    assert far < near + BLOCKS_OUT_OF_VIEW * BLOCK_POINTS / 2
    monkeypatch.setattr(LatentMap, "cull", lambda map, camera: InView.all(len(map.blocks), camera.size))
    assert work_of(lambda: use(maps[1])) > near + BLOCKS_OUT_OF_VIEW * BLOCK_POINTS * 0.9, "the count would tell"


@pytest.mark.parametrize("use", [READ, WRITE])
def test_work_does_not_depend_on_hidden_points(use: Callable[[LatentMap], object]) -> None:
    """Clumps of points behind one another, without and with a wall before them."""
    bare, walled = MEMORY.empty(), WALL
    for i in range(40):
        centre = torch.tensor([2.0 * (i % 8) - 7, 1.0, 21.0 + 4 * (i // 8)])
        bare, walled = clump(bare, centre, BLOCK_POINTS), clump(walled, centre, BLOCK_POINTS)
    assert len(walled.cull(CAMERA.resize((11, 20))[0]).rows) == 44
    wall, behind, seen = (work_of(lambda map=map: use(map)) for map in (WALL, walled, bare))
    assert behind < wall + BLOCK_POINTS
    assert seen > wall + 8 * BLOCK_POINTS, "the count would tell"


def test_write_shares_unchanged_blocks(maps: tuple[LatentMap, LatentMap]) -> None:
    """So that a fork costs what it writes."""
    _, far = maps
    written = MEMORY.write(far, **FRAME, camera=CAMERA)
    held = {id(block) for block in far.blocks}
    made = [block for block in written.blocks if id(block) not in held]
    new = written.points - far.points
    assert 0 < new <= 11 * 20
    assert sum(len(block.ids) for block in made) <= new + BLOCK_POINTS
