"""Points in few bits: how near they are to what was written, and that all else stays as it is."""

import numpy as np
import pytest
import torch

from benchmarks.scenes import circuit, furnished_room, ray_cast
from mirage_sim.memory import LatentMap, PointMemory
from mirage_sim.memory.quantization import block_keys, cells_of_keys, coded_features, codes_of, decoded_features, xyz_of

CHANNELS, SIZE = 7, (24, 32)
MEMORY = PointMemory(CHANNELS, (1, 2, 2), compact=True)


def frames(count: int) -> dict:
    cameras = circuit(count, SIZE)
    generator = torch.Generator().manual_seed(0)
    return {
        "latents": torch.randn(CHANNELS, count, SIZE[0] // 2, SIZE[1] // 2, generator=generator),
        "frames": torch.zeros(3, count, *SIZE),
        "depth": ray_cast(cameras, *furnished_room()),
        "static": torch.ones(count, *SIZE, dtype=torch.bool),
        "camera": cameras,
    }


def test_features_are_within_half_a_step() -> None:
    features = torch.randn(1000, CHANNELS, generator=torch.Generator().manual_seed(0)) * 3
    features[0], features[1, 1:] = 0.0, 0.0
    for some in (features, features[:1]):
        again = decoded_features(coded_features(some))
        steps = some.abs().amax(1, keepdim=True) / 127
        assert again.shape == some.shape and bool(((again - some).abs() <= 0.6 * steps).all())
    assert bool((decoded_features(torch.zeros(2, CHANNELS + 2, dtype=torch.uint8)) == 0).all())


@pytest.mark.parametrize("reach", [3.0, 300.0])
def test_coordinates_are_within_half_a_step(reach: float) -> None:
    xyz = (torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 2 * reach
    footprint = torch.full((1000,), reach / 100)
    cells = torch.from_numpy(cells_of_keys(block_keys(xyz, footprint, 2.0).numpy(), 2.0))
    assert bool(((xyz >= cells[:, :3]) & (xyz <= cells[:, :3] + cells[:, 3:])).all())
    error = (xyz_of(codes_of(xyz, cells), cells) - xyz).abs()
    assert float(error.max()) <= float(cells[:, 3].max()) / 65536 * 0.51 + 2e-7 * reach
    assert float(error.max()) < float(footprint[0]) / 250


def test_compact_memory_agrees_with_full_memory() -> None:
    full, written = PointMemory(CHANNELS, (1, 2, 2)), frames(3)
    map, reference = MEMORY.write(MEMORY.empty(), **written), full.write(full.empty(), **written)
    assert map.points == reference.points and map.nbytes < 0.75 * reference.nbytes
    seen, expected = MEMORY.read(map, written["camera"]), full.read(reference, written["camera"])
    alike = seen.source == expected.source
    assert float(alike.float().mean()) > 0.99
    difference = (seen.latents - expected.latents).abs() * alike
    assert float(difference.max()) < 4.5 / 127
    assert MEMORY.write(map, **written).blocks is map.blocks, "standing still writes nothing"


def test_tensors_describe_a_compact_map() -> None:
    map = MEMORY.write(MEMORY.empty(), **frames(2))
    tensors = map.tensors()
    again = LatentMap.from_tensors(tensors)
    assert again.compact and again.channels == CHANNELS and again.nbytes == map.nbytes
    assert sum(tensor.nbytes for tensor in tensors.values()) < map.nbytes + 4000
    camera = circuit(9, SIZE)[4:5]
    one, other = MEMORY.read(map, camera), MEMORY.read(again, camera)
    assert torch.equal(one.latents, other.latents) and torch.equal(one.depth, other.depth)
    assert np.array_equal(map.blocks.extents.array(), again.blocks.extents.array())
    for name, spoil in (("keys", -1 - map.tensors()["keys"]), ("features", map.features()), ("features", None)):
        spoilt = map.tensors()["features"][:, :2] if spoil is None else spoil
        with pytest.raises(ValueError, match="^map: expected"):
            LatentMap.from_tensors({**map.tensors(), name: spoilt})
