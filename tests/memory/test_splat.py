import pytest
import torch
from support.reference_memory import reference_splat, sorted_splat

from mirage_sim.geometry import Camera, Splat, coverage, se3_exp, splat

CAMERA = Camera.from_fov(se3_exp(torch.tensor([0.2, -0.1, 0.3, 0.1, 0.4, -0.1])), 70.0, (6, 8))


def cloud(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator) * 3
    points[: count // 4] = points[-(count // 4) :]  # exact ties
    points[count // 4 : count // 2] *= 1.0 + 0.02 * torch.rand(1, generator=generator)
    ids = torch.randperm(count, generator=generator)
    return points, ids, torch.rand(count, generator=generator) * 2 + 0.01


def assert_equals_reference(
    seen: Splat, points: torch.Tensor, ids: torch.Tensor, footprint: torch.Tensor, tol: float, samples_per_cell: int
) -> None:
    reference = reference_splat(points.numpy(), ids.numpy(), footprint.numpy(), CAMERA, tol, 2.0, samples_per_cell)
    assert seen.index.shape == (6 * samples_per_cell, 8 * samples_per_cell)
    assert int((seen.index >= 0).sum()) == len(reference) > 0
    for cell, hit in reference.items():
        assert int(seen.index[cell]) == hit["index"]
        assert seen.depth[cell].numpy() == hit["depth"]
        assert tuple(seen.offset[cell].numpy()) == hit["offset"] and seen.log_scale[cell].numpy() == hit["log_scale"]


@pytest.mark.parametrize("samples_per_cell", [1, 2, 4])
def test_bits_equal_reference_for_any_order_and_threads(threads: int, samples_per_cell: int) -> None:
    points, ids, footprint = cloud(1500)
    for tolerance in (0.0, 0.1, 0.5):
        for seed in range(2):
            order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed + threads))
            shuffled = points[order], ids[order], footprint[order]
            seen = splat(*shuffled, CAMERA, tolerance=tolerance, samples_per_cell=samples_per_cell)
            assert_equals_reference(seen, *shuffled, tolerance, samples_per_cell)


def test_many_points_against_sorting(threads: int) -> None:
    points, ids, footprint = cloud(150_000)  # several tiles
    for tolerance in (0.0, 0.1):
        expected = sorted_splat(points, ids, footprint, CAMERA, tolerance, 2.0)
        assert torch.equal(splat(points, ids, footprint, CAMERA, tolerance=tolerance).index, expected)


def test_batched_splat_equals_single_splats() -> None:
    points, ids, footprint = (torch.stack(t) for t in zip(*(cloud(3000, seed) for seed in range(3)), strict=True))
    cameras = Camera.stack([CAMERA, Camera(CAMERA.c2w @ CAMERA.c2w, CAMERA.K, CAMERA.size), CAMERA])
    valid = points[..., 0] > -1
    together = splat(points, ids, footprint, cameras, valid=valid)
    for i in range(3):
        alone = splat(points[i], ids[i], footprint[i], cameras[i], valid=valid[i])
        kept = splat(points[i][valid[i]], ids[i][valid[i]], footprint[i][valid[i]], cameras[i])
        for name in ("index", "depth", "offset", "log_scale"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name))
            assert name == "index" or torch.equal(getattr(kept, name), getattr(alone, name))


def test_coverage_equals_reference(threads: int) -> None:
    points, ids, footprint = cloud(1500)
    for tolerance in (0.0, 0.1, 0.5):
        reference = reference_splat(points.numpy(), ids.numpy(), footprint.numpy(), CAMERA, tolerance, 2.0)
        covered = coverage(points, footprint, CAMERA, tolerance=tolerance)
        assert int((covered.surface > 0).sum()) == len(reference)
        for cell, hit in reference.items():
            assert covered.surface[cell].numpy() == hit["surface"]
            assert bool(covered.fine[cell]) == (not hit["coarse"])  # the winner is coarse only where all are
        winners = {hit["index"] for hit in reference.values()}
        assert winners <= set(covered.shown.tolist())


def test_batched_coverage_equals_single_coverage() -> None:
    points, _, footprint = (torch.stack(t) for t in zip(*(cloud(3000, seed) for seed in range(3)), strict=True))
    valid = points[..., 0] > -1
    together = coverage(points, footprint, CAMERA, valid=valid)
    for i in range(3):
        alone = coverage(points[i], footprint[i], CAMERA, valid=valid[i])
        assert torch.equal(together.surface[i], alone.surface) and torch.equal(together.fine[i], alone.fine)
        mine = together.shown[together.shown // 3000 == i] - 3000 * i
        assert sorted(mine.tolist()) == sorted(alone.shown.tolist())


def in_line(*depths: float) -> torch.Tensor:
    """Points behind one another in the middle cell of a 1 x 1 image."""
    return torch.tensor([[0.0, 0.0, depth] for depth in depths])


def winner(depths: tuple[float, ...], ids: tuple[int, ...], footprint: tuple[float, ...], tolerance: float) -> int:
    camera = Camera.from_fov(torch.eye(4), 90.0, (1, 1))  # cells are 2 m wide per metre of depth
    return int(splat(in_line(*depths), torch.tensor(ids), torch.tensor(footprint), camera, tolerance=tolerance).index)


def test_oldest_within_the_tolerance_wins() -> None:
    assert winner((1.0, 1.05, 1.2), (7, 3, 1), (2.0, 2.0, 2.0), 0.1) == 1
    assert winner((1.0, 1.05, 1.2), (7, 3, 1), (2.0, 2.0, 2.0), 0.3) == 2


def test_tolerance_zero_is_the_nearest_and_ids_break_ties() -> None:
    assert winner((1.05, 1.0, 1.2), (0, 3, 1), (2.0, 2.0, 2.0), 0.0) == 1
    assert winner((1.0, 1.0, 1.0), (5, 2, 9), (2.0, 2.0, 2.0), 0.0) == 1


def test_fine_points_win_over_older_coarse_ones() -> None:
    assert winner((1.0, 1.05), (0, 1), (4.1, 2.0), 0.1) == 1
    assert winner((1.0, 1.05), (0, 1), (3.9, 2.0), 0.1) == 0
    assert winner((1.0, 1.05), (1, 0), (5.0, 50.0), 0.1) == 1, "among coarse points the oldest"
    assert winner((1.0, 1.5), (0, 1), (9.0, 2.0), 0.1) == 0, "a coarse surface in front still hides a fine one behind"


def test_samples_per_cell_keeps_neighbours_not_hidden_points() -> None:
    camera = Camera.from_fov(torch.eye(4), 90.0, (1, 1))
    points = torch.tensor([[-0.5, -0.5, 1.0], [0.5, -0.5, 1.0], [0.5, 0.5, 1.3]])
    seen = splat(points, torch.arange(3), torch.full((3,), 2.0), camera, samples_per_cell=2)
    assert seen.index.tolist() == [[0, 1], [-1, -1]]
    assert seen.offset[0].flatten().tolist() == [0.0] * 4 and seen.log_scale[0].tolist() == [-1.0, -1.0]


def test_splat_without_points_is_empty() -> None:
    seen = splat(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(0), CAMERA)
    assert seen.index.shape == (6, 8) and bool((seen.index == -1).all())
