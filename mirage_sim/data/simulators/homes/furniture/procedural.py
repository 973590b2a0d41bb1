"""Furniture made in code, so that homes can be built without any download."""

from dataclasses import dataclass

import numpy as np

from mirage_sim.data.simulators.homes.furniture.pieces import Piece
from mirage_sim.data.simulators.homes.furniture.shapes import Paint, Shapes

VARIANTS = 5  # pieces of each category
CREDIT = "mirage_sim, Apache-2.0"

_WOODS = ((196, 154, 108), (120, 78, 48), (222, 196, 158), (84, 56, 42), (236, 232, 224))
_LACQUER = 4  # index of the one colour without grain
_FABRICS = ((120, 132, 150), (150, 62, 54), (78, 110, 84), (206, 188, 160), (58, 62, 92))
_ACCENTS = ((214, 168, 64), (70, 120, 160), (196, 96, 84), (96, 148, 110), (150, 110, 170))
_DARK: Paint = ((48, 48, 52), "")
_STEEL: Paint = ((176, 180, 184), "")
_WHITE: Paint = ((242, 242, 240), "")
_GREEN: Paint = ((62, 118, 58), "fabric")


@dataclass(frozen=True)
class _Style:
    """The appearance of a variant: its number, its paints and a factor of its size."""

    number: int
    wood: Paint
    fabric: Paint
    accent: Paint
    scale: float


def procedural_pieces() -> tuple[Piece, ...]:
    """Make ``VARIANTS`` pieces of every category that rooms need. The result is always the same."""
    pieces: list[Piece] = []
    for make in _MAKERS:
        category = make.__name__.removeprefix("_")
        for number in range(VARIANTS):
            shapes = Shapes()
            turn = (number + len(pieces) // VARIANTS) % VARIANTS  # otherwise a room would have one wood and one colour
            style = _Style(
                number,
                (_WOODS[turn], "wood" if turn != _LACQUER else ""),
                (_FABRICS[turn], "stripes" if number == VARIANTS - 1 else "fabric"),
                (_ACCENTS[turn], ""),
                (1.0, 0.92, 1.1, 0.96, 1.05)[number],
            )
            make(shapes, style)
            mesh, textures, size = shapes.mesh()
            name, elevation = f"procedural#{category}_{number}", _ELEVATIONS.get(category, 0.0)
            pieces.append(Piece(name, len(pieces), category, size, elevation, mesh, textures, CREDIT))
    return tuple(pieces)


def _legs(shapes: Shapes, width: float, height: float, depth: float, thick: float, paint: Paint) -> None:
    for x in (-width / 2, width / 2 - thick):
        for z in (-depth / 2, depth / 2 - thick):
            shapes.box((x, x + thick), (0, height), (z, z + thick), paint)


def _seat(shapes: Shapes, style: _Style, width: float, cushions: int) -> None:
    """Make a sofa or an armchair of a base, a back, two arms and cushions."""
    w, arm = width / 2, 0.16
    _legs(shapes, width - 0.1, 0.1, 0.75, 0.05, style.wood)
    shapes.box((-w, w), (0.1, 0.3), (-0.42, 0.42), style.fabric)
    shapes.rounded((-w, w), (0.1, 0.85), (-0.44, -0.2), style.fabric, 0.25)
    for x in (-w, w - arm):
        shapes.rounded((x, x + arm), (0.1, 0.62), (-0.44, 0.44), style.fabric, 0.25)
    step = (width - 2 * arm) / cushions
    for i in range(cushions):
        x = -w + arm + i * step
        shapes.rounded((x, x + step), (0.27, 0.47), (-0.25, 0.44), style.fabric, 0.3)
        shapes.rounded((x + 0.02, x + step - 0.02), (0.42, 0.8), (-0.26, -0.06), style.fabric, 0.4)


def _sofa(shapes: Shapes, style: _Style) -> None:
    _seat(shapes, style, 1.9 * style.scale, 2 + style.number % 2)


def _armchair(shapes: Shapes, style: _Style) -> None:
    _seat(shapes, style, 0.9 * style.scale, 1)


def _table(shapes: Shapes, width: float, height: float, depth: float, paint: Paint) -> None:
    shapes.box((-width / 2, width / 2), (height - 0.04, height), (-depth / 2, depth / 2), paint)
    _legs(shapes, width - 0.06, height - 0.04, depth - 0.06, 0.06, paint)


def _coffee_table(shapes: Shapes, style: _Style) -> None:
    if style.number % 2:
        shapes.turned(((0.2, 0), (0.04, 0.03), (0.04, 0.4)), 0, 0, _STEEL)
        shapes.turned(((0, 0.4), (0.4, 0.4), (0.4, 0.43), (0, 0.43)), 0, 0, style.wood)
    else:
        _table(shapes, 1.05 * style.scale, 0.43, 0.55, style.wood)
        shapes.box((-0.45, 0.45), (0.15, 0.17), (-0.22, 0.22), style.wood)


def _dining_table(shapes: Shapes, style: _Style) -> None:
    if style.number == 3:
        shapes.turned(((0.3, 0), (0.06, 0.04), (0.05, 0.7)), 0, 0, style.wood)
        shapes.turned(((0, 0.7), (0.55, 0.7), (0.55, 0.75), (0, 0.75)), 0, 0, style.wood)
    else:
        _table(shapes, 1.5 * style.scale, 0.75, 0.85, style.wood)


def _chair(shapes: Shapes, style: _Style) -> None:
    _legs(shapes, 0.44, 0.44, 0.44, 0.04, style.wood)
    shapes.rounded((-0.23, 0.23), (0.42, 0.49), (-0.22, 0.23), style.fabric, 0.3)
    for x in (-0.22, 0.18):
        shapes.box((x, x + 0.04), (0.44, 0.9 * style.scale), (-0.22, -0.18), style.wood)
    for y in (0.58, 0.7, 0.82):
        shapes.box((-0.2, 0.2), (y * style.scale, y * style.scale + 0.06), (-0.215, -0.185), style.wood)


def _office_chair(shapes: Shapes, style: _Style) -> None:
    shapes.turned(((0.3, 0), (0.3, 0.06), (0.04, 0.09), (0.03, 0.42)), 0, 0, _DARK)
    shapes.rounded((-0.25, 0.25), (0.42, 0.52), (-0.22, 0.27), style.fabric, 0.4)
    shapes.rounded((-0.23, 0.23), (0.58, 1.02 * style.scale), (-0.27, -0.19), style.fabric, 0.4)
    shapes.box((-0.03, 0.03), (0.45, 0.7), (-0.27, -0.23), _DARK)


def _bed(shapes: Shapes, style: _Style) -> None:
    w = (0.9, 1.4, 1.6, 1.4, 1.8)[style.number] / 2
    shapes.box((-w - 0.04, w + 0.04), (0.08, 0.32), (-1.0, 1.03), style.wood)
    shapes.box((-w - 0.04, w + 0.04), (0, 0.95 * style.scale), (-1.05, -1.0), style.wood)
    shapes.rounded((-w, w), (0.25, 0.52), (-1.0, 1.02), _WHITE, 0.15)
    shapes.rounded((-w - 0.02, w + 0.02), (0.3, 0.56), (-0.4, 1.03), style.fabric, 0.2)
    for x in (-w / 2, w / 2) if w > 0.5 else (0.0,):
        shapes.rounded((x - 0.3, x + 0.3), (0.48, 0.64), (-0.95, -0.55), _WHITE, 0.5)


def _drawers(shapes: Shapes, style: _Style, size: tuple[float, float, float], rows: int, columns: int) -> None:
    """Make a cabinet whose front is divided into drawers or doors."""
    width, height, depth = size
    w, d = width / 2, depth / 2
    shapes.box((-w, w), (0.04, height), (-d, d - 0.02), style.wood)
    tall, wide = (height - 0.06) / rows, width / columns
    for row in range(rows):
        for column in range(columns):
            x, y = -w + column * wide, 0.05 + row * tall
            shapes.box((x + 0.01, x + wide - 0.01), (y + 0.01, y + tall - 0.01), (d - 0.02, d), style.wood)
            shapes.box(
                (x + wide / 2 - 0.06, x + wide / 2 + 0.06), (y + tall / 2, y + tall / 2 + 0.02), (d, d + 0.02), _STEEL
            )


def _bedside_table(shapes: Shapes, style: _Style) -> None:
    _drawers(shapes, style, (0.45, 0.5 * style.scale, 0.4), 2, 1)


def _chest_of_drawers(shapes: Shapes, style: _Style) -> None:
    _drawers(shapes, style, (1.0 * style.scale, 0.85, 0.45), 4, 1 + style.number % 2)


def _tv_unit(shapes: Shapes, style: _Style) -> None:
    _drawers(shapes, style, (1.5 * style.scale, 0.45, 0.4), 1, 3)


def _wardrobe(shapes: Shapes, style: _Style) -> None:
    _drawers(shapes, style, (1.2 * style.scale, 2.0, 0.6), 1, 2 + style.number % 2)


def _kitchen_base(shapes: Shapes, style: _Style) -> None:
    _drawers(shapes, style, (0.6, 0.86, 0.6), (1, 3, 1, 2, 1)[style.number], 1)
    shapes.box((-0.3, 0.3), (0.86, 0.9), (-0.3, 0.31), ((92, 92, 96), "fabric"))
    if style.number == 2:  # a stove
        for x in (-0.13, 0.13):
            for z in (-0.13, 0.13):
                shapes.turned(((0.09, 0.9), (0.09, 0.907), (0, 0.907)), x, z, _DARK)
    if style.number == 4:  # a sink
        shapes.box((-0.2, 0.2), (0.9, 0.905), (-0.15, 0.2), _STEEL)
        shapes.turned(((0.015, 0.9), (0.015, 1.12), (0, 1.12)), 0, -0.22, _STEEL)


def _kitchen_wall(shapes: Shapes, style: _Style) -> None:
    _drawers(shapes, style, (0.6, 0.7, 0.35), 1, 1 + style.number % 2)


def _bookcase(shapes: Shapes, style: _Style) -> None:
    w, height, shelves = 0.45 * style.scale, 1.8 * style.scale, 4 + style.number % 2
    shapes.box((-w, w), (0, height), (-0.15, -0.13), style.wood)
    for x in (-w, w - 0.025):
        shapes.box((x, x + 0.025), (0, height), (-0.15, 0.15), style.wood)
    step = (height - 0.03) / shelves
    for i in range(shelves + 1):
        shapes.box((-w, w), (i * step, i * step + 0.03), (-0.15, 0.15), style.wood)
    for i in range(shelves):
        y, books = i * step + 0.03, ((255, 255, 255), f"books{(i + 3 * style.number) % 7}")
        shapes.box((-w + 0.03, w - 0.04), (y, y + step * 0.6), (-0.13, 0.0), _DARK)
        shapes.panel((-w + 0.03, w - 0.04), (y, y + step * 0.75), 0.05, books)


def _desk(shapes: Shapes, style: _Style) -> None:
    _table(shapes, 1.3 * style.scale, 0.74, 0.65, style.wood)
    for y in (0.2, 0.37, 0.54):
        shapes.box((0.25, 0.55), (y, y + 0.15), (-0.28, 0.27), style.wood)
        shapes.box((0.37, 0.43), (y + 0.06, y + 0.08), (0.27, 0.285), _STEEL)


def _fridge(shapes: Shapes, style: _Style) -> None:
    height = 1.7 * style.scale
    body = _WHITE if style.number % 2 else _STEEL
    shapes.box((-0.3, 0.3), (0, height), (-0.32, 0.27), body)
    for y, top in ((0.05, 0.6), (0.61, height - 0.02)):
        shapes.box((-0.29, 0.29), (y, top), (0.28, 0.33), body)
        shapes.box((-0.26, -0.24), (top - 0.4, top - 0.1), (0.33, 0.36), _DARK)


def _washing_machine(shapes: Shapes, style: _Style) -> None:
    shapes.box((-0.3, 0.3), (0, 0.85), (-0.3, 0.29), _WHITE)
    shapes.panel((-0.29, 0.29), (0.72, 0.84), 0.295, _STEEL)
    shapes.rounded((-0.2, 0.2), (0.2, 0.6), (0.25, 0.33), _DARK if style.number % 2 else _STEEL, 1.0)


def _toilet(shapes: Shapes, style: _Style) -> None:
    shapes.box((-0.2, 0.2), (0.36, 0.78 * style.scale), (-0.34, -0.17), _WHITE)
    shapes.turned(((0.14, 0), (0.1, 0.15), (0.19, 0.38)), 0, 0.08, _WHITE)
    shapes.rounded((-0.2, 0.2), (0.36, 0.43), (-0.2, 0.34), _WHITE if style.number % 2 else style.wood, 0.7)


def _bath(shapes: Shapes, style: _Style) -> None:
    w, d = 0.85 * style.scale, 0.37
    for x in (-w, w - 0.07):
        shapes.box((x, x + 0.07), (0, 0.56), (-d, d), _WHITE)
    for z in (-d, d - 0.07):
        shapes.box((-w, w), (0, 0.56), (z, z + 0.07), _WHITE)
    shapes.box((-w, w), (0, 0.15), (-d, d), _WHITE)
    shapes.turned(((0.02, 0.56), (0.02, 0.7), (0, 0.7)), 0.0, -d + 0.035, _STEEL)


def _shower(shapes: Shapes, style: _Style) -> None:
    shapes.box((-0.45, 0.45), (0, 0.12), (-0.45, 0.45), _WHITE)
    for x in (-0.45, 0.42):
        for z in (-0.45, 0.42):
            shapes.box((x, x + 0.03), (0.12, 2.0 * style.scale), (z, z + 0.03), _STEEL)
    shapes.box((-0.45, 0.45), (2.0 * style.scale - 0.03, 2.0 * style.scale), (0.42, 0.45), _STEEL)
    shapes.turned(((0.015, 0.9), (0.015, 1.85)), 0, -0.4, _STEEL)
    shapes.turned(((0, 1.85), (0.09, 1.85), (0.03, 1.9)), 0, -0.34, _STEEL)


def _washbasin(shapes: Shapes, style: _Style) -> None:
    if style.number % 2:
        shapes.turned(((0.12, 0), (0.08, 0.1), (0.09, 0.75)), 0, -0.05, _WHITE)
    else:
        shapes.box((-0.27, 0.27), (0, 0.72), (-0.21, 0.17), style.wood)
    shapes.box((-0.3, 0.3), (0.72, 0.86), (-0.23, 0.23), _WHITE)
    shapes.rounded((-0.2, 0.2), (0.8, 0.865), (-0.12, 0.2), _STEEL, 0.7)
    shapes.turned(((0.02, 0.86), (0.02, 1.0), (0, 1.0)), 0, -0.17, _STEEL)


def _floor_lamp(shapes: Shapes, style: _Style) -> None:
    height = 1.5 * style.scale
    shapes.turned(((0.16, 0), (0.15, 0.03), (0.015, 0.04), (0.015, height - 0.3)), 0, 0, _DARK)
    shapes.turned(((0.22, height - 0.32), (0.14, height)), 0, 0, (style.accent[0], "fabric"))


def _table_lamp(shapes: Shapes, style: _Style) -> None:
    shapes.turned(((0.08, 0), (0.1, 0.06), (0.02, 0.2), (0.015, 0.26)), 0, 0, style.accent)
    shapes.turned(((0.15, 0.24), (0.09, 0.42)), 0, 0, ((240, 230, 205), "fabric"))


def _ceiling_lamp(shapes: Shapes, style: _Style) -> None:
    shapes.turned(((0.22 * style.scale, 0), (0.07, 0.2), (0.01, 0.22), (0.01, 0.5)), 0, 0, style.accent)
    shapes.rounded((-0.07, 0.07), (0.02, 0.16), (-0.07, 0.07), _WHITE, 1.0)


def _plant(shapes: Shapes, style: _Style) -> None:
    height = 1.0 * style.scale
    shapes.turned(((0.12, 0), (0.17, 0.28), (0.15, 0.28), (0, 0.25)), 0, 0, style.accent)
    shapes.turned(((0.025, 0.25), (0.015, height * 0.7)), 0, 0, ((98, 74, 50), "wood"))
    for i in range(9):  # leaves on a spiral
        turn = np.array([np.sin(2.4 * i), np.cos(2.4 * i)]) * (0.2 - 0.012 * i)
        y = 0.45 + (height - 0.6) * i / 8
        x, z = turn
        shapes.rounded((x - 0.13, x + 0.13), (y - 0.05, y + 0.07), (z - 0.13, z + 0.13), _GREEN, 0.9)


def _picture(shapes: Shapes, style: _Style) -> None:
    w, h = 0.35 * style.scale, (0.25, 0.45, 0.25, 0.35, 0.3)[style.number]
    shapes.box((-w, w), (0, 2 * h), (0, 0.025), style.wood)
    shapes.panel((-w + 0.04, w - 0.04), (0.04, 2 * h - 0.04), 0.027, ((255, 255, 255), f"art{style.number}"))


def _mirror(shapes: Shapes, style: _Style) -> None:
    w, h = 0.3 * style.scale, 0.75
    shapes.box((-w, w), (0, h), (0, 0.02), style.wood)
    shapes.panel((-w + 0.03, w - 0.03), (0.03, h - 0.03), 0.022, ((196, 208, 214), ""))


def _rug(shapes: Shapes, style: _Style) -> None:
    w, d = 0.85 * style.scale, 0.6 * style.scale
    shapes.box((-w, w), (0, 0.01), (-d, d), style.fabric)
    shapes.box((-w + 0.1, w - 0.1), (0.01, 0.013), (-d + 0.1, d - 0.1), (style.accent[0], "fabric"))


def _tv(shapes: Shapes, style: _Style) -> None:
    w = 0.5 * style.scale
    shapes.box((-0.2, 0.2), (0, 0.02), (-0.1, 0.1), _DARK)
    shapes.box((-0.04, 0.04), (0.02, 0.1), (-0.03, 0.0), _DARK)
    shapes.box((-w, w), (0.08, 0.08 + 1.15 * w), (-0.03, 0.02), _DARK)
    shapes.panel((-w + 0.02, w - 0.02), (0.1, 0.06 + 1.15 * w), 0.022, ((18, 20, 26), ""))


def _fireplace(shapes: Shapes, style: _Style) -> None:
    stone: Paint = (_WOODS[(style.number + 2) % 5], "fabric")
    for x in (-0.65, 0.4):
        shapes.box((x, x + 0.25), (0, 0.85), (-0.18, 0.18), stone)
    shapes.box((-0.4, 0.4), (0.65, 0.85), (-0.18, 0.16), stone)
    shapes.box((-0.72, 0.72), (0.85, 0.93 * style.scale), (-0.18, 0.22), style.wood)
    shapes.box((-0.4, 0.4), (0, 0.65), (-0.18, -0.14), _DARK)
    for x in (-0.12, 0.0, 0.1):
        shapes.turned(((0.07, 0.02), (0.05, 0.15), (0, 0.3)), x, 0.0, ((236, 140, 48), ""))


def _small(shapes: Shapes, style: _Style) -> None:
    if style.number == 0:
        shapes.turned(((0.05, 0), (0.09, 0.1), (0.03, 0.22), (0.045, 0.26)), 0, 0, style.accent)
    elif style.number == 1:
        for i in range(3):
            shapes.box((-0.11, 0.11 - 0.01 * i), (0.035 * i, 0.035 * i + 0.03), (-0.08, 0.08), (_FABRICS[i], "fabric"))
    elif style.number == 2:
        shapes.turned(((0.05, 0), (0.13, 0.07), (0.12, 0.07), (0, 0.02)), 0, 0, style.wood)
        for x, z in ((0.04, 0.03), (-0.05, 0.02), (0.0, -0.05)):
            shapes.rounded((x - 0.04, x + 0.04), (0.03, 0.11), (z - 0.04, z + 0.04), ((190, 60, 40), ""), 1.0)
    elif style.number == 3:
        shapes.box((-0.17, 0.17), (0, 0.02), (-0.12, 0.12), _STEEL)
        shapes.box((-0.17, 0.17), (0.02, 0.24), (-0.13, -0.12), _STEEL)
        shapes.panel((-0.16, 0.16), (0.04, 0.23), -0.118, ((40, 70, 110), ""))
    else:
        shapes.turned(((0.04, 0), (0.04, 0.2), (0.015, 0.25), (0.015, 0.3), (0, 0.3)), 0, 0, style.accent)


def _frame(shapes: Shapes, width: float, height: float, depth: float, paint: Paint) -> None:
    w, d = width / 2, depth / 2
    for x in (-w, w - 0.06):
        shapes.box((x, x + 0.06), (0, height), (-d, d), paint)
    shapes.box((-w, w), (height - 0.06, height), (-d, d), paint)


def _door(shapes: Shapes, style: _Style) -> None:
    paint = _WHITE if style.number % 2 else style.wood
    _frame(shapes, 0.94, 2.08, 0.16, paint)
    shapes.box((-0.41, 0.41), (0.01, 2.02), (-0.02, 0.02), paint)
    for y, top in ((0.15, 0.85), (1.0, 1.9)):
        for z in (-0.025, 0.02):
            shapes.box((-0.3, 0.3), (y, top), (z, z + 0.005), paint)
    shapes.rounded((0.3, 0.38), (1.0, 1.05), (-0.08, 0.08), _STEEL, 0.6)


def _window(shapes: Shapes, style: _Style) -> None:
    width, height = (1.2, 0.9, 1.5, 1.8, 1.0)[style.number], 1.3 * style.scale
    paint = style.wood if style.number % 2 else _WHITE
    _frame(shapes, width, height, 0.16, paint)
    shapes.box((-width / 2, width / 2), (0, 0.06), (-0.08, 0.12), paint)
    panes = round(width / 0.6)
    for i in range(1, panes):
        x = -width / 2 + i * width / panes
        shapes.box((x - 0.03, x + 0.03), (0.05, height - 0.05), (-0.03, 0.03), paint)


# the order of the categories numbers the pieces, and so decides which of them are held out
# fmt: off
_MAKERS = (
    _sofa, _armchair, _coffee_table, _tv_unit, _tv, _bookcase, _dining_table, _chair, _bed, _bedside_table,
    _wardrobe, _chest_of_drawers, _desk, _office_chair, _kitchen_base, _kitchen_wall, _fridge, _washing_machine,
    _toilet, _bath, _shower, _washbasin, _floor_lamp, _table_lamp, _ceiling_lamp, _plant, _picture, _mirror, _rug,
    _fireplace, _small, _door, _window,
)
# fmt: on
# metres; the other pieces stand on the floor
_ELEVATIONS = {"kitchen_wall": 1.45, "ceiling_lamp": 2.0, "picture": 1.3, "mirror": 1.1, "window": 0.85}
