"""Division of an image into the cells of a coarser grid."""

from torch import Tensor


def cells_of(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Group the pixels of an image by the cells of a coarser grid: ``[..., H, W]`` to ``[..., h, w, H/h * W/w]``.

    Args:
        image: ``[..., H, W]``.
        size: of the coarser grid, ``(h, w)``.

    Raises:
        ValueError: if the grid does not divide the image.
    """
    (height, width), (h, w) = image.shape[-2:], size
    if min(h, w) < 1 or height % h or width % w:
        raise ValueError(f"size: expected a grid that divides {height} x {width}, got {h} x {w}")
    split = image.unflatten(-1, (w, width // w)).unflatten(-3, (h, height // h))
    return split.transpose(-3, -2).flatten(-2)
