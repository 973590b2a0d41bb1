"""The batched memory must equal the memory of a rollout."""

import pytest
import torch
from support.clips import toy_clip
from torch import Tensor

from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.memory import PointMemory
from mirage_sim.memory.latent_map import LatentMap
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.protocols import MemoryView
from mirage_sim.training.batched_memory import BatchMap

B, C, SIZE, STRIDE = 3, 5, (48, 64), 4
GRID = (SIZE[0] // STRIDE, SIZE[1] // STRIDE)


def cameras(twists: Tensor) -> Camera:
    return Camera.from_fov(se3_exp(twists), 60.0, SIZE)


def wander(seed: int, moments: int) -> Camera:
    """Cameras [B, moments] with overlapping views."""
    generator = torch.Generator().manual_seed(seed)
    return cameras(0.4 * torch.randn(B, moments, 6, generator=generator) * torch.tensor([1, 1, 2, 0.5, 0.5, 0.5]))


class Both:
    """Makes the same writes to ``B`` maps at once and to each alone."""

    def __init__(self, stride: int = STRIDE, channels: int = C) -> None:
        self.stride = stride
        self.batch = BatchMap.empty(B, channels)
        self.memory = PointMemory(channels, (1, stride, stride))
        self.maps: list[LatentMap] = [self.memory.empty()] * B

    def grid(self, camera: Camera) -> Camera:
        return camera.resize((camera.size[0] // self.stride, camera.size[1] // self.stride))

    def write(self, latents: Tensor, depth: Tensor, camera: Camera) -> None:
        grid = self.grid(camera)
        self.batch = self.batch.write(latents, resample_depth(depth, grid.size), grid)
        static = torch.ones(1, *camera.size, dtype=torch.bool)
        frames = torch.zeros(3, 1, *camera.size)
        self.maps = [
            self.memory.write(
                one, latents=latents[b, :, None], frames=frames, depth=depth[b, None], static=static,
                camera=camera[b : b + 1],
            )
            for b, one in enumerate(self.maps)
        ]  # fmt: skip

    def read(self, camera: Camera, samples_per_cell: int) -> tuple[MemoryView, MemoryView]:
        memory = PointMemory(self.memory.channels, self.memory.stride, samples_per_cell=samples_per_cell)
        alone = [memory.read(one, camera[b : b + 1]) for b, one in enumerate(self.maps)]
        return self.batch.read(self.grid(camera), samples_per_cell), MemoryView.stack(alone)

    def check(self, camera: Camera) -> MemoryView:
        self.compare(*self.read(camera, 2))
        together, alone = self.read(camera, 1)
        self.compare(together, alone)
        kept = [one.points for one in self.maps]
        assert self.batch.kept.sum(1).tolist() == kept
        return together

    def compare(self, together: MemoryView, alone: MemoryView) -> None:
        for name in ("visible", "latents", "depth", "offset", "log_scale"):
            found, expected = getattr(together, name), getattr(alone, name)
            assert found.shape == expected.shape and found.dtype == expected.dtype, name
            assert torch.equal(found, expected), name
        assert torch.equal(together.source >= 0, alone.source >= 0)


def scatter(seed: int) -> tuple[Tensor, Tensor]:
    """Random latents, and random depth that is partly unknown."""
    generator = torch.Generator().manual_seed(seed)
    depth = 0.5 + 6 * torch.rand(B, *SIZE, generator=generator)
    depth[torch.rand(depth.shape, generator=generator) < 0.2] = 0.0
    return torch.randn(B, C, *GRID, generator=generator), depth


@pytest.mark.parametrize("seed", range(5))
def test_random_depth_reads_as_from_single_maps(seed: int):
    both, path = Both(), wander(seed, 4)
    for moment in range(3):
        both.write(*scatter(10 * seed + moment), path[:, moment])
        both.check(path[:, 3])
    view = both.check(path[:, 3])
    assert 0.2 < view.visible.float().mean() < 0.99
    assert len(both.batch.kept[0]) > both.batch.kept[0].sum()  # some cells were not lacking


@pytest.mark.parametrize("seed", range(3))
def test_stepped_walls_read_as_from_single_maps(seed: int):
    both, path = Both(), wander(seed, 4)
    generator = torch.Generator().manual_seed(seed)
    for moment in range(3):
        latents, _ = scatter(seed + 100 + moment)
        coarse = torch.rand(B, 1, 3, 4, generator=generator)
        depth = 2 + 2 * torch.nn.functional.interpolate(coarse, size=SIZE, mode="nearest")[:, 0]
        both.write(latents, depth + 0.3 * torch.rand(depth.shape, generator=generator), path[:, moment])
    both.check(path[:, 3])
    both.check(path[:, 0])


def test_approaching_camera_rewrites_coarse_points():
    both = Both()
    poses = torch.zeros(B, 4, 6)
    poses[:, 1, 2] = torch.tensor([1.0, 2.5, 3.4])  # towards a wall 4 m away: finer by 1.3, 2.7 and 6.7
    poses[:, 2, 2] = 3.0
    poses[:, 3, 2] = torch.tensor([3.0, 2.0, 3.2])
    path = cameras(poses)
    for moment in range(3):
        latents, _ = scatter(moment)
        both.write(latents, (4.0 - poses[:, moment, 2])[:, None, None].expand(B, *SIZE).contiguous(), path[:, moment])
        both.check(path[:, 3])
    cells = GRID[0] * GRID[1]
    wrote = both.batch.kept[:, 1:].unflatten(1, (3, cells)).sum(2)
    assert (wrote[:, 0] == cells).all()
    # enlarged a little, most cells already show points; enlarged more than twice, all are written again
    assert wrote[0, 1] < cells and (wrote[1:, 1] == cells).all()
    assert wrote[0, 2] == cells and wrote[2, 2] < cells
    both.check(path[:, 1])


def test_recorded_walk_reads_as_from_single_maps():
    clips = [toy_clip(seed) for seed in range(B)]
    both = Both()
    for moment in (0, 12, 25, 30):
        latents, _ = scatter(moment)
        depth = torch.stack([clip.depth[moment].float() for clip in clips])
        both.write(latents, depth, Camera.stack([clip.cameras[moment] for clip in clips]))
    view = both.check(Camera.stack([clip.cameras[38] for clip in clips]))
    assert view.visible.float().mean() > 0.5


def test_colours_on_pixel_grid_read_as_from_single_maps():
    clips = [toy_clip(seed, frames=12) for seed in range(B)]
    both = Both(stride=1, channels=3)
    for moment in (0, 6):
        colours = torch.stack([clip.frames[moment].permute(2, 0, 1).float() / 127.5 - 1 for clip in clips])
        depth = torch.stack([clip.depth[moment].float() for clip in clips])
        both.write(colours, depth, Camera.stack([clip.cameras[moment] for clip in clips]))
    assert both.check(Camera.stack([clip.cameras[11] for clip in clips])).visible.float().mean() > 0.5


def test_empty_maps_show_nothing():
    both = Both()
    view = both.check(wander(0, 1)[:, 0])
    assert not view.visible.any() and (view.source == -1).all() and (view.latents == 0).all()
    latents, depth = scatter(0)
    both.write(latents, 0 * depth, wander(0, 1)[:, 0])  # no depth is known
    assert not both.check(wander(0, 1)[:, 0]).visible.any()


def test_gradients_reach_the_visible_latents():
    latents, depth = scatter(0)
    camera, later = wander(0, 2)[:, 0], wander(0, 2)[:, 1]
    grid = camera.resize(GRID)
    latents.requires_grad_()
    batch = BatchMap.empty(B, C).write(latents, resample_depth(depth, GRID), grid)
    view = batch.read(later.resize(GRID))
    weight = torch.randn(view.latents.shape, generator=torch.Generator().manual_seed(1))
    (view.latents * weight).sum().backward()
    expected = torch.zeros(B, C, GRID[0] * GRID[1])
    for b in range(B):
        shown = view.visible[b, 0]
        expected[b].index_add_(
            1, view.source[b, 0][shown] - 1, weight[b, :, 0][:, shown]
        )  # the first point of an empty map is a placeholder
    assert expected.abs().sum() > 0
    torch.testing.assert_close(latents.grad.flatten(2), expected, atol=1e-6, rtol=0)


def test_write_leaves_the_earlier_map_unchanged():
    latents, depth = scatter(0)
    grid = wander(0, 1)[:, 0].resize(GRID)
    empty = BatchMap.empty(B, C)
    first = empty.write(latents, resample_depth(depth, GRID), grid)
    before = first.read(grid).latents.clone()
    first.write(latents + 1, resample_depth(depth, GRID) * 0.4, grid)
    assert torch.equal(first.read(grid).latents, before) and not empty.read(grid).visible.any()


def test_maps_of_fixed_capacity_read_as_packed_maps():
    path = wander(3, 5).resize(GRID)
    packed = fixed = BatchMap.empty(B, C)
    for moment in range(4):
        latents, depth = scatter(moment)
        depth = resample_depth(depth, GRID)
        packed = packed.write(latents, depth, path[:, moment]).packed()
        fixed = fixed.write(latents, depth, path[:, moment]).packed(1000)
        assert fixed.points.shape == (B, 1000, 3) and packed.points.shape[1] == packed.kept.sum(1).max()
        assert torch.equal(fixed.kept.sum(1), packed.kept.sum(1))
        expected, found = packed.read(path[:, 4], 2), fixed.read(path[:, 4], 2)
        for name in MemoryView.__dataclass_fields__:
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_full_maps_keep_their_first_points():
    path = wander(3, 2).resize(GRID)
    whole = BatchMap.empty(B, C)
    for moment in range(2):
        latents, depth = scatter(moment)
        whole = whole.write(latents, resample_depth(depth, GRID), path[:, moment])
    whole, full = whole.packed(), whole.packed(200)
    assert whole.kept.sum(1).min() > 200 and full.kept.all() and full.kept.shape == (B, 200)
    for name in ("points", "footprint"):
        assert torch.equal(getattr(full, name), getattr(whole, name)[:, :200]), name
    assert torch.equal(full.features, whole.features[..., :200])
