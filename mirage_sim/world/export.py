"""Files for other programs: the memory as a point cloud (PLY), and a map that nav2_map_server loads."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.io import atomic_write
from mirage_sim.memory.blocks import GENERATED
from mirage_sim.memory.latent_map import LatentMap
from mirage_sim.world.occupancy import FREE, OCCUPIED, OccupancyMap
from mirage_sim.world.world_model import WorldModel

_BATCH = 1024  # points that are decoded at once
_SHADES = {FREE: 254, OCCUPIED: 0}  # of a map image; anything else is unknown
_UNKNOWN_SHADE = 205


@torch.inference_mode()
def point_colours(model: WorldModel, map: LatentMap) -> NDArray[np.uint8]:
    """Decode the colour of every remembered point: the mean of the pixels that its latent alone decodes to.

    Returns:
        uint8 RGB ``[N, 3]``, in the order of ``map.xyz()``.
    """
    if not map.points:
        return np.zeros((0, 3), np.uint8)
    latents = map.decoded(torch.cat([block.features for block in map.blocks]))
    if latents.dtype == torch.uint8:  # of a memory of colours
        return np.asarray(latents.cpu().numpy())
    colours = [
        model.codec.decode(part[:, :, None, None, None].float()).mean((2, 3, 4)) for part in latents.split(_BATCH)
    ]
    return np.asarray(((torch.cat(colours) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy())


def save_ply(path: Path, map: LatentMap, colours: NDArray[np.uint8]) -> None:
    """Write points in the world frame (metres, y down) with their colours and whether they were observed.

    Args:
        path: of the file; it is replaced as a whole.
        map: of the memory.
        colours: uint8 ``[N, 3]`` in the order of ``map.xyz()``.
    """
    columns = [("xyz", "<f4", 3), ("rgb", "u1", 3), ("observed", "u1")]
    rows = np.zeros(map.points, np.dtype(columns))
    rows["xyz"], rows["rgb"] = map.xyz().cpu().numpy(), colours
    rows["observed"] = (map.ids() < GENERATED).cpu().numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {map.points}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {name}" for name in ("red", "green", "blue", "observed")]
    with atomic_write(path) as partial:
        partial.write_bytes(("\n".join([*header, "end_header"]) + "\n").encode() + rows.tobytes())


def save_grid(name: Path, grid: OccupancyMap) -> tuple[Path, Path]:
    """Write a map for nav2_map_server: NAME.pgm and NAME.yaml.

    Returns:
        The two paths.
    """
    image, description = name.with_name(f"{name.name}.pgm"), name.with_name(f"{name.name}.yaml")
    shades: NDArray[np.uint8] = np.full(grid.cells.shape, _UNKNOWN_SHADE, np.uint8)
    for value, shade in _SHADES.items():
        shades[grid.cells == value] = shade
    height, width = shades.shape
    with atomic_write(image) as partial:
        partial.write_bytes(
            f"P5\n{width} {height}\n255\n".encode() + shades[::-1].tobytes()
        )  # the top row is largest y
    x, y = grid.origin
    lines = [
        f"image: {image.name}",
        "mode: trinary",
        f"resolution: {grid.resolution}",
        f"origin: [{x:.4f}, {y:.4f}, 0.0]",
        "negate: 0",
        "occupied_thresh: 0.65",
        "free_thresh: 0.196",
    ]
    with atomic_write(description) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return image, description
