"""Point clouds and maps as other programs read them."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.toy_world import SIZE

from mirage_sim.memory import LatentMap
from mirage_sim.world import World
from mirage_sim.world.export import point_colours, save_grid, save_ply
from mirage_sim.world.occupancy import FREE, OCCUPIED, UNKNOWN, OccupancyMap


def read_ply(path: Path) -> tuple[list[str], np.ndarray]:
    head, _, body = path.read_bytes().partition(b"end_header\n")
    columns = [(axis, "<f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue", "observed")]
    return head.decode().splitlines(), np.frombuffer(body, columns)


def test_ply_has_all_points_with_colour_and_origin(world: World, tmp_path: Path):
    grey = np.full((*SIZE, 3), 90, np.uint8)
    world.reset(grey, depth=np.full(SIZE, 3.0, np.float32))
    world.step(world.camera)
    map = world.state.map
    colours = np.arange(3 * map.points, dtype=np.uint32).astype(np.uint8).reshape(-1, 3)
    save_ply(tmp_path / "lab.ply", map, colours)
    head, rows = read_ply(tmp_path / "lab.ply")
    assert head[:3] == ["ply", "format binary_little_endian 1.0", f"element vertex {map.points}"]
    assert head[3:] == [f"property float {a}" for a in "xyz"] + [
        f"property uchar {name}" for name in ("red", "green", "blue", "observed")
    ]
    np.testing.assert_array_equal(np.stack([rows[a] for a in "xyz"], 1), map.xyz().numpy())
    np.testing.assert_array_equal(np.stack([rows[name] for name in ("red", "green", "blue")], 1), colours)
    assert rows["observed"].sum() == (map.ids() < 1 << 60).sum() > 0
    assert np.allclose(rows["z"][rows["observed"] == 1], 3.0, atol=0.02)
    assert point_colours(world.model, map).shape == (map.points, 3)


def test_an_empty_memory_makes_an_empty_cloud(world: World, tmp_path: Path):
    empty = LatentMap.empty(world.model.codec.channels)
    save_ply(tmp_path / "nothing.ply", empty, point_colours(world.model, empty))
    head, rows = read_ply(tmp_path / "nothing.ply")
    assert "element vertex 0" in head and len(rows) == 0


def test_map_files_are_those_of_nav2_map_server(tmp_path: Path):
    cells = np.full((3, 4), UNKNOWN, np.int8)
    cells[0] = FREE
    cells[2, 3] = OCCUPIED  # the row of largest y, left of a robot that looks along x
    image, description = save_grid(tmp_path / "my lab", OccupancyMap(cells, 0.1, (-1.0, -2.5), 1.5))
    fields = yaml.safe_load(description.read_text())
    assert fields == {
        "image": "my lab.pgm",
        "mode": "trinary",
        "resolution": 0.1,
        "origin": [-1.0, -2.5, 0.0],
        "negate": 0,
        "occupied_thresh": 0.65,
        "free_thresh": 0.196,
    }
    with Image.open(image) as opened:
        shades = np.asarray(opened)
    assert shades.tolist() == [[205, 205, 205, 0], [205] * 4, [254] * 4]  # a map's first row is its largest y
    share = (255 - shades.astype(float)) / 255  # as map_server computes it without negate
    assert share[0, 3] > fields["occupied_thresh"] and share[2, 0] < fields["free_thresh"] < share[1, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my lab.pgm", "my lab.yaml"]


def test_a_failed_write_leaves_the_old_map(tmp_path: Path):
    grid = OccupancyMap(np.zeros((2, 2), np.int8), 0.1, (0.0, 0.0), 1.5)
    image, _ = save_grid(tmp_path / "lab", grid)
    before = image.read_bytes()
    with pytest.raises(AttributeError):
        save_grid(tmp_path / "lab", OccupancyMap(None, 0.1, (0.0, 0.0), 1.5))  # type: ignore[arg-type]
    assert image.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
