"""Furniture: what a piece is, and the three places where pieces come from or go to.

* `pieces` defines :class:`Piece` and :class:`Placement`.
* `procedural` makes simple pieces in code, from the primitives of `shapes`.
* `prepare` converts Sweet Home 3D's models: `catalogue` reads the archives, `categories` selects pieces for homes,
  `models` turns OBJ files into meshes, and `thinning` reduces their triangles.
* `cache` writes prepared pieces to the user's cache folder and reads them.
"""

from mirage_sim.data.simulators.homes.furniture.cache import Furniture, load_furniture
from mirage_sim.data.simulators.homes.furniture.pieces import Piece, Placement
from mirage_sim.data.simulators.homes.furniture.procedural import procedural_pieces

__all__ = ["Furniture", "Piece", "Placement", "load_furniture", "procedural_pieces"]
