"""The compiled loops give the bits of the reference implementation, for any map, camera and number of threads."""

import copy
import gc
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mirage_sim.geometry import Camera, project, se3_exp
from mirage_sim.memory import LatentMap
from mirage_sim.memory.blocks import Points
from mirage_sim.memory.kernels import in_view
from mirage_sim.memory.latent_map import InView, view_of
from mirage_sim.memory.rendering import RenderParams, block_coverage, block_coverage_reference, render, render_reference

CHANNELS = 5


def cloud(count: int, first_id: int, reach: float) -> Points:
    generator = torch.Generator().manual_seed(first_id)
    xyz = torch.randn(count, 3, generator=generator) * reach
    xyz[: count // 8] = xyz[-(count // 8) :]  # exact ties
    footprint = (torch.randn(count, generator=generator) - 3).exp()
    ids = first_id + torch.randperm(count, generator=generator)
    return Points(xyz, torch.randn(count, CHANNELS, generator=generator), ids, footprint)


@pytest.fixture(scope="module", params=[False, True], ids=["full", "compact"])
def map(request: pytest.FixtureRequest) -> LatentMap:
    map = LatentMap.empty(CHANNELS, 1.0, compact=request.param)
    for count, reach in ((20_000, 4.0), (3000, 40.0), (9000, 1.0), (1, 2.0)):
        map = map.add(cloud(count, map.next_id, reach), np.zeros(0, np.int64), count)
    return map


def cameras(count: int) -> list[Camera]:
    generator = torch.Generator().manual_seed(count)
    twists = torch.randn(count, 6, generator=generator) * torch.tensor([3.0, 1.0, 3.0, 0.3, 2.0, 0.3])
    return [Camera.from_fov(se3_exp(twist), 30.0 + 10 * i, (18, 24)) for i, twist in enumerate(twists)]


@pytest.mark.parametrize(
    "rules", [RenderParams(0.0, 2.0), RenderParams(0.25, 2.0, 2), RenderParams(0.1, 1.0, 4), RenderParams(0.5, 1e9)]
)
def test_compiled_read_has_bits_of_reference(map: LatentMap, rules: RenderParams, threads: int) -> None:
    for camera in cameras(8):
        mine, plain = render(map, camera, rules), render_reference(map, camera, rules)
        for name, expected in plain._asdict().items():
            assert torch.equal(getattr(mine, name), expected), name
        assert bool((plain.source >= 0).any())
        known, expected_known = block_coverage(map, camera, rules), block_coverage_reference(map, camera, rules)
        assert torch.equal(known.surface, expected_known.surface) and torch.equal(known.fine, expected_known.fine)
        assert np.array_equal(known.rows, expected_known.rows)


def test_skipped_blocks_have_no_visible_points(map: LatentMap, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = RenderParams(0.25, 2.0, 2)
    culled = [render(map, camera, rules) for camera in cameras(6)]
    assert min(len(map.cull(camera).rows) for camera in cameras(6)) < len(map.blocks) / 2
    monkeypatch.setattr(LatentMap, "cull", lambda map, camera: InView.all(len(map.blocks), camera.size))
    for camera, mine in zip(cameras(6), culled, strict=True):
        whole = render(map, camera, rules)
        assert all(torch.equal(getattr(mine, name), getattr(whole, name)) for name in mine._fields)


def test_boxes_in_view_contain_all_visible_points() -> None:
    """Flat boxes, small ones and ones that hold the camera, each with points on its corners and within."""
    generator = np.random.default_rng(0)
    size = 2.0 ** generator.uniform(-6, 5, (2000, 1, 3)) * generator.integers(0, 2, (2000, 1, 3))
    points = generator.normal(0, 4, (2000, 1, 3)) + size * generator.random((2000, 30, 3)).round(1).clip(0.2, 0.8)
    points = torch.from_numpy(points.astype(np.float32))
    boxes = torch.cat([points.amin(1), points.amax(1)], dim=1).numpy()
    for camera in cameras(4):
        u, v, z = project(points, camera)
        found = InView(*in_view(boxes, view_of(camera).astype(np.float64), *camera.size))
        seen = (z > 0) & (u >= 0) & (u < camera.size[1]) & (v >= 0) & (v < camera.size[0])
        assert set(seen.any(1).nonzero().squeeze(1).tolist()) <= set(found.rows.tolist()) != set(range(2000))
        assert (np.diff(found.depths) >= 0).all()
        u, v, z, seen = (values[found.rows].numpy() for values in (u, v, z, seen))
        top, bottom, first, last = found.cells.T[:, :, None]
        assert ((found.depths[:, None] < z) | ~seen).all()
        assert ((top <= np.floor(v)) & (np.floor(v) <= bottom) | ~seen).all()
        assert ((first <= np.floor(u)) & (np.floor(u) <= last) | ~seen).all()


def test_sweep_grows_its_buffers() -> None:
    count = 50_000
    points = cloud(count, 0, 1.0)
    points.xyz[:, 2] = 5 + 1e-6 * points.xyz[:, 2].round(decimals=1)  # near-ties, and ties
    points.xyz[(points.xyz[:, 0] * 4).floor() % 2 == 0] *= -1  # stripes of holes; what was there is behind the camera
    map = LatentMap.empty(CHANNELS).add(points, np.zeros(0, np.int64), count)
    camera = Camera.from_fov(torch.eye(4), 60.0, (18, 24))
    for rules in (RenderParams(0.0, 2.0), RenderParams(1e-7, 2.0), RenderParams(0.25, 2.0, 2)):
        mine, plain = render(map, camera, rules), render_reference(map, camera, rules)
        assert all(torch.equal(getattr(mine, name), getattr(plain, name)) for name in mine._fields)
        known, expected = block_coverage(map, camera, rules), block_coverage_reference(map, camera, rules)
        assert torch.equal(known.surface, expected.surface) and torch.equal(known.fine, expected.fine)
        assert bool((mine.source < 0).any()) and bool((mine.source >= 0).any())


def test_camera_among_points_and_points_at_infinity() -> None:
    points = cloud(4000, 0, 0.01)
    points.xyz[:5] = torch.tensor([[1e30, 0, 0], [0, -1e30, 0], [0, 0, 1e38], [0, 0, 3e38], [1e-30, 0, 1e-30]])
    map = LatentMap.empty(CHANNELS).add(points, np.zeros(0, np.int64), 4000)
    for camera in (Camera.from_fov(torch.eye(4), 90.0, (3, 5)), cameras(1)[0]):
        mine, plain = (
            render(map, camera, RenderParams(0.25, 2.0)),
            render_reference(map, camera, RenderParams(0.25, 2.0)),
        )
        assert torch.equal(mine.source, plain.source) and torch.equal(mine.depth, plain.depth)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda map: pickle.loads(pickle.dumps(map))])
def test_copied_map_outlives_its_original(map: LatentMap, copied: Callable[[LatentMap], LatentMap]) -> None:
    """The compiled loops go by addresses, which a copy must not have from tensors that are gone."""
    camera, rules = cameras(1)[0], RenderParams(0.25, 2.0, 2)
    expected = render(map, camera, rules)
    own = LatentMap.from_tensors(map.tensors())  # not the fixture's, so that nothing else keeps it
    other = copied(own)
    del own
    gc.collect()
    _ = [torch.full((1024, 3), 7.0) for _ in range(200)]  # reuses freed memory
    assert other.blocks.table.array()[0, 2] == other.blocks[0].xyz.data_ptr()
    found = render(other, camera, rules)
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in found._fields)


def test_render_of_empty_map_is_empty() -> None:
    camera = Camera.from_fov(torch.eye(4), 60.0, (3, 4))
    for compact in (False, True):
        mine = render(LatentMap.empty(CHANNELS, compact=compact), camera, RenderParams(0.25, 2.0))
        plain = render_reference(LatentMap.empty(CHANNELS, compact=compact), camera, RenderParams(0.25, 2.0))
        assert all(torch.equal(getattr(mine, name), getattr(plain, name)) for name in mine._fields)
        assert mine.latents.shape == (3, 4, CHANNELS) and bool((mine.source == -1).all())
