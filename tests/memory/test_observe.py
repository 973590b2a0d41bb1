import pytest
import torch

from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.memory import PointMemory
from mirage_sim.memory.blocks import GENERATED
from mirage_sim.memory.latent_map import LatentMap

STRIDE, SIZE, C = (1, 4, 4), (24, 32), 3
GRID = (6, 8)


def camera(*twist: float) -> Camera:
    return Camera.from_fov(se3_exp(torch.tensor([twist or (0.0,) * 6])), 60.0, SIZE)


def frame(depth: float | torch.Tensor, seed: int = 0, at: Camera | None = None) -> dict:
    values = torch.randn(C, 1, *GRID, generator=torch.Generator().manual_seed(seed))
    depths = torch.full((1, *SIZE), depth) if isinstance(depth, float) else depth[None]
    return {
        "latents": values,
        "frames": torch.zeros(3, 1, *SIZE),
        "depth": depths,
        "static": torch.ones(1, *SIZE, dtype=torch.bool),
        "camera": at or camera(),
    }


def shown(memory: PointMemory, map: LatentMap) -> torch.Tensor:
    return memory.read(map, camera()).latents


@pytest.fixture
def memory() -> PointMemory:
    return PointMemory(C, STRIDE)


def test_observed_ids_precede_generated_ones(memory):
    map = memory.observe(memory.write(memory.empty(), **frame(9.0, 1)), **frame(2.0, 2, camera(0.0, 0, 0, 0, 1.5, 0)))
    ids = map.ids()
    assert ((ids < GENERATED) == (ids < map.next_observed)).all() and map.next_observed == 48
    assert (ids >= GENERATED).sum() == 48 and map.next_id == GENERATED + 48


def test_observation_replaces_generated_surface(memory):
    generated, observed = frame(4.0, 1), frame(4.0, 2)
    map = memory.observe(memory.write(memory.empty(), **generated), **observed)
    assert torch.equal(shown(memory, map), observed["latents"])
    assert map.points == 48 and (map.ids() < GENERATED).all()


def test_later_generation_does_not_hide_an_observation(memory):
    observed = frame(4.0, 1)
    map = memory.write(memory.observe(memory.empty(), **observed), **frame(3.9, 2))
    assert torch.equal(shown(memory, map), observed["latents"])


@pytest.mark.parametrize("written", ["write", "observe"])
def test_points_that_were_looked_through_are_forgotten(memory, written):
    map = getattr(memory, written)(memory.empty(), **frame(2.0, 1))
    observed = frame(4.0, 2)
    map = memory.observe(map, **observed)
    assert torch.equal(shown(memory, map), observed["latents"]) and map.points == 48


def test_points_behind_and_beside_the_observation_stay(memory):
    behind = memory.write(memory.empty(), **frame(8.0, 1))
    beside = memory.write(behind, **frame(8.0, 2, camera(0.0, 0, 0, 0, 2.0, 0)))
    after = memory.observe(beside, **frame(4.0, 3))
    assert set(beside.ids().tolist()) < set(after.ids().tolist())


def test_unknown_depth_removes_and_writes_nothing(memory):
    before = memory.write(memory.empty(), **frame(2.0, 1))
    depth = torch.zeros(SIZE)
    depth[:, 16:] = 4.0
    after = memory.observe(before, **frame(depth, 2))
    view = memory.read(after, camera())
    assert torch.allclose(view.depth[0, :, :3], torch.tensor(2.0)) and torch.allclose(
        view.depth[0, :, 5:], torch.tensor(4.0)
    )


def test_edge_of_an_observed_surface_is_given_a_pixel(memory):
    """A point at the border of a near surface is not looked through, though the pixel beside it is far."""
    depth = torch.full(SIZE, 6.0)
    depth[:, :16] = 2.0
    map = memory.observe(memory.empty(), **frame(depth, 1))
    shifted = torch.full(SIZE, 6.0)
    shifted[:, :15] = 2.0
    assert memory.observe(map, **frame(shifted, 2)).points >= map.points


@pytest.mark.parametrize(("keep", "seed"), [("oldest", 1), ("newest", 2)])
def test_keep_observed_decides_between_observations(keep, seed):
    memory = PointMemory(C, STRIDE, keep_observed=keep)
    map = memory.observe(memory.observe(memory.empty(), **frame(4.0, 1)), **frame(4.0, 2))
    assert torch.equal(shown(memory, map), frame(4.0, seed)["latents"]) and map.points == 48


def test_earlier_maps_do_not_change(memory):
    before = memory.write(memory.empty(), **frame(2.0, 1))
    content = {name: tensor.clone() for name, tensor in before.tensors().items()}
    memory.observe(before, **frame(4.0, 2))
    assert all(torch.equal(tensor, content[name]) for name, tensor in before.tensors().items())


def test_compact_maps_observe_alike():
    memory = PointMemory(C, STRIDE, compact=True)
    map = memory.observe(memory.write(memory.empty(), **frame(2.0, 1)), **frame(4.0, 2))
    assert map.points == 48 and (map.ids() < GENERATED).all()


def test_observed_map_returns_from_its_tensors(memory):
    map = memory.observe(memory.write(memory.empty(), **frame(8.0, 1)), **frame(4.0, 2))
    again = LatentMap.from_tensors(map.tensors())
    assert again.next_observed == map.next_observed and again.next_id == map.next_id
    assert torch.equal(shown(memory, again), shown(memory, map))


def test_tensors_of_version_1_are_read_as_observed(memory):
    tensors = memory.observe(memory.empty(), **frame(4.0, 1)).tensors()
    tensors["next_id"] = tensors.pop("next_observed")
    map = LatentMap.from_tensors(tensors)
    assert map.next_observed == 48 and map.next_id == GENERATED


def test_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="^keep_observed: expected 'oldest' or 'newest', got 'both'"):
        PointMemory(C, STRIDE, keep_observed="both")
