import numpy as np
import pytest
import torch

from mirage_sim.memory import LatentMap
from mirage_sim.memory.blocks import GENERATED, Points
from mirage_sim.memory.kernels import BLOCK_POINTS
from mirage_sim.memory.quantization import block_keys


def some(count: int, first_id: int = 0, spread: float = 5.0, channels: int = 4) -> Points:
    generator = torch.Generator().manual_seed(first_id)
    return Points(
        (torch.rand(count, 3, generator=generator) - 0.5) * 2 * spread,
        torch.randn(count, channels, generator=generator),
        GENERATED + torch.arange(first_id, first_id + count),
        torch.full((count,), 0.05),
    )


NOTHING_SEEN = np.zeros(0, np.int64)


def filled() -> LatentMap:
    map = LatentMap.empty(4).add(some(3000), NOTHING_SEEN, 3000)
    return map.add(some(1000, 3000, 0.5), NOTHING_SEEN, 1000)


def test_blocks_hold_every_point_once_and_stay_small() -> None:
    map = filled()
    assert map.points == 4000 and map.next_id == GENERATED + 4000
    assert sorted(map.ids().tolist()) == list(range(GENERATED, GENERATED + 4000))
    assert max(len(block.ids) for block in map.blocks) <= BLOCK_POINTS
    expected = torch.cat([some(3000).xyz, some(1000, 3000, 0.5).xyz])
    assert torch.equal(map.xyz(), expected[map.ids() - GENERATED])
    for block, box in zip(map.blocks, map.boxes, strict=True):
        assert torch.equal(torch.cat([block.xyz.amin(0), block.xyz.amax(0)]), box)
        assert len(block_keys(block.xyz, block.footprint, 2.0).unique()) == 1


def in_one_cell(count: int, first_id: int) -> Points:
    return some(count, first_id, 0.4)._replace(xyz=some(count, first_id, 0.4).xyz.abs())


def test_add_replaces_small_blocks_only() -> None:
    map, sizes = LatentMap.empty(4), []
    for count in (200, 40, 700, 16, 256, 900, 1200, 100):
        map = map.add(in_one_cell(count, map.next_id), NOTHING_SEEN, count)
        sizes.append([len(block.ids) for block in map.blocks])
    assert sizes == [
        [200],
        [240],
        [940],
        [940, 16],
        [940, 272],
        [940, 272, 900],
        [940, 272, 900, 1024, 176],
        [940, 272, 900, 1024, 276],
    ]


def test_many_small_writes_create_few_blocks() -> None:
    map = LatentMap.empty(4)
    for _ in range(300):
        map = map.add(in_one_cell(10, map.next_id), NOTHING_SEEN, 10)
    assert len(map.blocks) <= 3000 / 256 + 1


def test_write_copies_little_more_than_it_adds() -> None:
    before = filled()
    after = before.add(some(1, 4000, 0.1), NOTHING_SEEN, 1)
    held = {id(block) for block in before.blocks}
    (made,) = (block for block in after.blocks if id(block) not in held)
    assert GENERATED + 4000 in made.ids and len(made.ids) <= 256 + 1


def test_distant_sky_falls_into_few_blocks() -> None:
    direction = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0))
    sky = some(3000)._replace(
        xyz=direction / direction.norm(dim=1, keepdim=True) * 100, footprint=torch.full((3000,), 4.0)
    )
    assert len(LatentMap.empty(4).add(sky, NOTHING_SEEN, 3000).blocks) < 20


def test_huge_coordinates_have_a_block() -> None:
    far = some(4)._replace(xyz=torch.tensor([[1e30, 0, 0], [-1e30, 0, 0], [0, 1e6, 0], [0, 0, 1.0]]))
    far = far._replace(footprint=torch.tensor([1e28, 0.01, 1e3, 1e-6]))
    assert LatentMap.empty(4).add(far, NOTHING_SEEN, 4).points == 4


def test_nbytes_equals_size_of_tensors() -> None:
    map = filled()
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for b in map.blocks for t in b[1:]}
    tables = [*map.blocks.rows.pages, *map.blocks.table.pages, *map.blocks.extents.pages, *map.seen.pages]
    assert map.nbytes == sum(held.values()) + sum(page.nbytes for page in tables)
    assert map.nbytes >= 4000 * (12 + 16 + 8 + 4)


def test_evict_removes_least_recently_seen_blocks_first() -> None:
    map = filled()
    rows = np.arange(len(map.blocks))
    map = map.add(some(1, 4000, 0.1), rows[rows % 2 == 0], 1)
    kept = map.evict(map.points - 1)
    assert len(kept.blocks) == len(map.blocks) - 1 and map.evict(map.points) is map
    stale = [row for row in rows.tolist() if int(map.seen[row]) == GENERATED]
    assert [id(block) for block in kept.blocks] == [id(b) for row, b in enumerate(map.blocks) if row != stale[0]]
    assert np.array_equal(kept.seen.array(), np.delete(map.seen.array(), stale[0]))
    assert map.evict(1).points <= 1


def test_tensors_describe_the_whole_map() -> None:
    map = filled()
    again = LatentMap.from_tensors(map.tensors())
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in map.tensors().items())
    assert torch.equal(again.boxes, map.boxes) and again.next_id == map.next_id and again.block_size == map.block_size
    more = some(50, 4000)
    grown, reference = (one.add(more, NOTHING_SEEN, 50) for one in (map, again))
    assert torch.equal(grown.ids(), reference.ids()) and len(grown.blocks) == len(reference.blocks)


def test_moving_to_a_device_keeps_everything() -> None:
    map = filled()
    moved = map.to("cpu")
    assert all(torch.equal(tensor, moved.tensors()[name]) for name, tensor in map.tensors().items())
    assert torch.equal(moved.boxes, map.boxes)


def test_tensors_describe_an_empty_map() -> None:
    again = LatentMap.from_tensors(LatentMap.empty(7, 3.0).tensors())
    assert (again.points, again.channels, again.block_size, again.next_id) == (0, 7, 3.0, GENERATED)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("xyz", lambda t: t[1:]),
        ("xyz", lambda t: t.double()),
        ("xyz", lambda t: t * torch.nan),
        ("features", lambda t: t[:, 0]),
        ("ids", lambda t: t * 0),
        ("ids", lambda t: t + 1),
        ("ids", lambda t: t - 1),
        ("ids", lambda t: t - GENERATED),
        ("next_observed", lambda t: t - 1),
        ("footprint", lambda t: -t),
        ("lengths", lambda t: t + 1),
        ("lengths", lambda t: torch.cat([t[:1] * 0, t[1:]])),
        ("keys", lambda t: t[1:]),
        ("seen", lambda t: t.float()),
        ("next_id", lambda t: -t),
        ("block_size", lambda t: -t),
    ],
)
def test_inconsistent_tensors(name: str, spoil: object) -> None:
    tensors = filled().tensors()
    with pytest.raises(ValueError, match="^map: expected"):
        LatentMap.from_tensors({**tensors, name: spoil(tensors[name])})
    del tensors[name]
    with pytest.raises(ValueError, match="^map: expected"):
        LatentMap.from_tensors(tensors)


@pytest.mark.parametrize(("argument", "value"), [("channels", 0), ("block_size", 0.0), ("block_size", float("nan"))])
def test_bad_settings(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        LatentMap.empty(**{"channels": 4, argument: value})
