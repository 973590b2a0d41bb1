"""Textures of walls, floors and ceilings: procedural ones and those of MiniWorld's package."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, opaque

Image = NDArray[np.uint8]

_SEED = 20_261  # fixed, so that the procedural textures are always the same


class Surface(NamedTuple):
    """The appearance of a wall, floor or ceiling.

    Attributes:
        texture: uint8 ``[TEXTURE_SIZE, TEXTURE_SIZE, 4]``.
        repeat: metres covered by one repeat of the texture.
    """

    texture: Image
    repeat: float


# files of MiniWorld's package, and metres covered by one repeat of each
_MINIWORLD = {
    "wall": {"brick_wall_1": 1.2, "drywall_1": 1.5, "stucco_1": 1.5, "concrete_2": 2.0, "wood_planks_1": 1.2},
    "floor": {
        "wood_planks_1": 1.0,
        "wood_1": 1.0,
        "wood_2": 1.0,
        "floor_tiles_bw_1": 1.2,
        "floor_tiles_white": 1.0,
        "concrete_tiles_1": 1.2,
        "marble_1": 1.5,
        "concrete_1": 2.0,
    },
    "ceiling": {"ceiling_tiles_1": 1.2, "ceiling_tile_noborder_1": 1.2, "stucco_1": 1.5},
}


@functools.cache
def surfaces(kind: str, procedural: bool = False) -> tuple[Surface, ...]:
    """Return all surfaces of a kind, in a fixed order.

    Args:
        kind: ``"wall"``, ``"floor"`` or ``"ceiling"``.
        procedural: leave out MiniWorld's textures.

    Raises:
        ImportError: if MiniWorld's textures are wanted and its package is not installed.
    """
    made = tuple(
        Surface(draw(np.random.default_rng([_SEED, i])), repeat) for i, (draw, repeat) in enumerate(_PROCEDURAL[kind])
    )
    return made if procedural else made + tuple(_miniworld(name, repeat) for name, repeat in _MINIWORLD[kind].items())


def _miniworld(name: str, repeat: float) -> Surface:
    found = importlib.util.find_spec("miniworld")
    path = Path(str(found.origin)).parent / "textures" / f"{name}.png" if found else None
    image = cv2.imread(str(path)) if path and path.exists() else None
    if image is None:
        raise ImportError(
            "the homes simulator needs the textures of MiniWorld's package: pip install 'mirage_sim[homes]', "
            "or use the environment 'procedural'"
        )
    image = cv2.resize(image, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_AREA)
    return Surface(opaque(image[..., ::-1]), repeat)


def _grey(level: NDArray[np.float64]) -> Image:
    """Make a grey texture of levels ``[S, S]`` from 0 to 255."""
    return opaque(np.repeat(level[..., None], 3, axis=2))


def _noise(rng: np.random.Generator, cells: tuple[int, int]) -> NDArray[np.float64]:
    """Make smooth periodic noise ``[S, S]`` of mean 0 and standard deviation 1."""
    coarse = np.pad(rng.normal(size=cells), 2, mode="wrap")
    scale = (TEXTURE_SIZE // cells[1], TEXTURE_SIZE // cells[0])
    fine = cv2.resize(coarse, None, fx=scale[0], fy=scale[1], interpolation=cv2.INTER_CUBIC)
    fine = fine[2 * scale[1] : 2 * scale[1] + TEXTURE_SIZE, 2 * scale[0] : 2 * scale[0] + TEXTURE_SIZE]
    return np.asarray((fine - fine.mean()) / fine.std())


def _plaster(rng: np.random.Generator) -> Image:
    """Draw painted plaster, almost white."""
    level = 238 + 3 * _noise(rng, (32, 32)) + 4 * _noise(rng, (8, 8))
    return _grey(level)


def _stripes(rng: np.random.Generator) -> Image:
    """Draw wallpaper with vertical stripes."""
    level = np.where(np.arange(TEXTURE_SIZE) % 16 < 8, 235, 205) + 2 * _noise(rng, (32, 32))
    return _grey(level)


def _damask(rng: np.random.Generator) -> Image:
    """Draw wallpaper with a repeated ornament."""
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] * (2 * np.pi / 32)
    ornament = np.cos(x) * np.cos(y) + 0.5 * np.cos(2 * x + np.pi) + 0.3 * np.cos(3 * y)
    level = np.where(ornament > 0.35, 205, 232) + 2 * _noise(rng, (32, 32))
    return _grey(level)


def _panels(rng: np.random.Generator) -> Image:
    """Draw wooden panels with grooves."""
    level = 215 + 6 * _noise(rng, (2, 32))
    level[:, ::16], level[:, 1::16] = 140, 235
    return opaque(level[..., None] * np.array([1.0, 0.93, 0.82]))


def _planks(rng: np.random.Generator) -> Image:
    """Draw floor boards of different shades."""
    grain = _noise(rng, (64, 4))
    level = 170 + 7 * grain
    for row in range(0, TEXTURE_SIZE, 8):
        start = int(rng.integers(TEXTURE_SIZE))
        for half in (0, 1):
            columns = (start + half * TEXTURE_SIZE // 2 + np.arange(TEXTURE_SIZE // 2)) % TEXTURE_SIZE
            level[row : row + 8, columns] += rng.normal(0.0, 14.0)
            level[row : row + 8, columns[0]] -= 45
        level[row] -= 45
    return opaque(level[..., None] * np.array([1.0, 0.78, 0.55]))


def _parquet(rng: np.random.Generator) -> Image:
    """Draw parquet, a chequerboard of horizontal and vertical strips."""
    level = np.empty((TEXTURE_SIZE, TEXTURE_SIZE))
    for i in range(4):
        for j in range(4):
            strips = np.repeat(rng.normal(160.0, 14.0, size=4), 4)
            strips[::4] -= 35
            block = np.tile(strips, (16, 1))
            level[16 * i : 16 * i + 16, 16 * j : 16 * j + 16] = block if (i + j) % 2 else block.T
    return opaque((level + 3 * _noise(rng, (64, 64)))[..., None] * np.array([1.0, 0.76, 0.52]))


def _tiles(rng: np.random.Generator) -> Image:
    """Draw square tiles with joints."""
    level = 225 + np.kron(rng.normal(0.0, 5.0, size=(4, 4)), np.ones((16, 16))) + 2 * _noise(rng, (32, 32))
    level[::16], level[:, ::16] = 165, 165
    return _grey(level)


def _checks(rng: np.random.Generator) -> Image:
    """Draw a chequerboard of tiles."""
    level = np.kron([[228.0, 120.0], [120.0, 228.0]], np.ones((32, 32))) + 3 * _noise(rng, (32, 32))
    return _grey(level)


def _carpet(rng: np.random.Generator) -> Image:
    """Draw carpet."""
    level = 205 + 9 * rng.normal(size=(TEXTURE_SIZE, TEXTURE_SIZE)) + 4 * _noise(rng, (16, 16))
    return _grey(level)


def _terrazzo(rng: np.random.Generator) -> Image:
    """Draw stone with chips of other colours."""
    image = np.full((TEXTURE_SIZE, TEXTURE_SIZE, 3), 214.0)
    for _ in range(90):
        centre = (int(rng.integers(TEXTURE_SIZE)), int(rng.integers(TEXTURE_SIZE)))
        colour = rng.uniform(110.0, 230.0) * np.array([1.0, 0.95, 0.88])
        axes = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        cv2.ellipse(image, centre, axes, int(rng.integers(180)), 0, 360, tuple(colour.tolist()), -1)
    return opaque(image)


_PROCEDURAL: dict[str, tuple[tuple[Callable[[np.random.Generator], Image], float], ...]] = {
    "wall": ((_plaster, 2.0), (_plaster, 1.6), (_stripes, 0.8), (_damask, 0.9), (_panels, 0.8), (_tiles, 0.8)),
    "floor": ((_planks, 1.2), (_parquet, 1.2), (_tiles, 1.6), (_checks, 1.2), (_carpet, 0.8), (_terrazzo, 1.5)),
    "ceiling": ((_plaster, 2.0),),
}
