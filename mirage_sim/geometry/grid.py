"""Grids within grids: a picture cut into the cells of a coarser grid."""

from torch import Tensor


def cells_of(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """The samples of each cell of a coarser grid ``(h, w)``: ``[..., H, W]`` to ``[..., h, w, H/h * W/w]``.

    Raises:
        ValueError: if the grid does not divide the picture.
    """
    (height, width), (h, w) = picture.shape[-2:], size
    if min(h, w) < 1 or height % h or width % w:
        raise ValueError(f"size: expected a grid that divides {height} x {width}, got {h} x {w}")
    split = picture.unflatten(-1, (w, width // w)).unflatten(-3, (h, height // h))
    return split.transpose(-3, -2).flatten(-2)
