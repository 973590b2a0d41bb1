"""Start images: reading, cropping and conversion, and the built-in ones."""

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.io import open_tensors
from mirage_sim.paths import ASSETS

START_FRAMES = ASSETS / "mini" / "starts.safetensors"
MIN_SIDE, MAX_SIDE = 16, 8192  # pixels
_ROUNDING = 1e-4  # pixels by which intrinsics in float32 may miss the border between two pixels
MIN_DEPTH, MAX_DEPTH = 0.05, 200.0  # metres, of the median of a depth map: other units lie outside
EXPECTED = "expected a path or a uint8 array [H, W, 3]"
FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "BMP",
    "TIFF",
    "GIF",
    "PPM",
)  # detected by content; other decoders may run external programs
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # errors that Pillow raises for damaged files


def read_image(image: np.ndarray | str | Path) -> np.ndarray:
    """Read and check an image.

    Args:
        image: path of an image file, or a uint8 RGB array ``[H, W, 3]``.

    Returns:
        uint8 RGB ``[H, W, 3]``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an image with sides of 16 to 8192 pixels.
    """
    if image is None:
        raise ValueError(
            f"image: {EXPECTED}, got None, which is what cv2.imread returns for a file that it cannot read"
        )
    if isinstance(image, (str, Path)):
        image = _read_file(Path(image))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: {EXPECTED}, got {kind_of(image)}")
    _check_sides(image.shape[0], image.shape[1])
    return image


def kind_of(image: Any) -> str:
    """Describe a value in a few words, for error messages about images."""
    if isinstance(image, np.ndarray):
        return f"{image.dtype} {list(image.shape)}"
    if isinstance(image, Tensor):
        return f"a tensor, {image.dtype} {list(image.shape)}; tensor.numpy() makes an array of it"
    return "None" if image is None else type(image).__name__


def _check_sides(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise ValueError(f"image: expected sides of {MIN_SIDE} to {MAX_SIDE} pixels, got {[height, width]}")


def _read_file(path: Path) -> np.ndarray:
    """Read an image file as uint8 RGB with its EXIF orientation applied; checks the size before decoding."""
    if not path.exists():
        raise FileNotFoundError(f"image: expected an image file, got {path}, which does not exist")
    if not path.is_file():
        raise ValueError(f"image: expected a readable image file ({', '.join(FORMATS)}), got {path}")
    try:
        opened = Image.open(path, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"image: expected sides of {MIN_SIDE} to {MAX_SIDE} pixels, got {path}: {error}") from error
    except _DAMAGED as error:
        raise ValueError(f"image: expected a readable image file ({', '.join(FORMATS)}), got {path}") from error
    with opened:
        _check_sides(opened.height, opened.width)
        if opened.mode.startswith(("I", "F")):  # conversion would clip these at 255
            raise ValueError(f"image: expected 8 bits per channel, got {path} with pixels of kind {opened.mode!r}")
        try:
            return np.array(ImageOps.exif_transpose(opened).convert("RGB"))
        except _DAMAGED as error:
            raise ValueError(f"image: expected a complete image file, got {path}: {error}") from error


def fit(image: np.ndarray, camera: Camera, size: tuple[int, int]) -> tuple[np.ndarray, Camera]:
    """Crop an image around its centre to the aspect ratio of ``size`` and resize it, together with its camera.

    Args:
        image: uint8 ``[H, W, 3]``.
        camera: of the image, batch shape ``()``, size ``(H, W)``.
        size: ``(height, width)`` of the result.

    Returns:
        The image, uint8 ``[*size, 3]``, and its camera.
    """
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    kept_height, kept_width = round(size[0] * scale), round(size[1] * scale)
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    image = image[top : top + kept_height, left : left + kept_width]
    shift = torch.tensor([[0.0, 0.0, left], [0.0, 0.0, top], [0.0, 0.0, 0.0]])
    camera = Camera(camera.c2w, camera.K - shift, (kept_height, kept_width)).resize(size)
    if image.shape[:2] != size:
        # Area averaging avoids aliasing when shrinking, but would show blocks when enlarging.
        method = Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR
        image = np.array(Image.fromarray(image).resize((size[1], size[0]), method))
    return np.ascontiguousarray(image), camera


def to_tensor(image: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Convert a uint8 image ``[H, W, 3]`` to float32 ``[3, H, W]`` in [-1, 1]."""
    return torch.tensor(image, device=device).permute(2, 0, 1).float().div(127.5).sub(1.0).contiguous()


def to_uint8(frame: Tensor) -> np.ndarray:
    """Convert a frame ``[3, H, W]`` in [-1, 1] to a uint8 image ``[H, W, 3]``; the inverse of :func:`to_tensor`."""
    return frame.add(1.0).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().cpu().numpy()


def read_depth(depth: np.ndarray | str | Path, shape: tuple[int, int]) -> np.ndarray:
    """Return a checked depth map of an image, float32 ``[H, W]`` in metres, 0 where unknown.

    Args:
        depth: z-depth as an array in metres; a path to an ``.npy`` file with such an array, or to a 16-bit PNG in
            millimetres. Values that are not positive and finite are unknown.
        shape: ``(H, W)`` of the image.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a map, has another size, or its median lies outside 0.05 to 200 m.
    """
    expected = f"expected z-depth in metres, a float array {list(shape)}, an .npy file of one or a 16-bit PNG in mm"
    if isinstance(depth, (str, Path)):
        depth = _read_depth_file(Path(depth), expected)
    if isinstance(depth, Tensor) or not isinstance(depth, np.ndarray) or depth.dtype.kind != "f":
        raise ValueError(f"depth: {expected}, got {kind_of(depth)}")
    if depth.shape != tuple(shape):
        raise ValueError(f"depth: {expected} like the image, got {list(depth.shape)}")
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)
    known = depth[depth > 0]
    if not len(known):
        raise ValueError("depth: expected some positive values, got none; leave it out to have it estimated")
    median = float(np.median(known))
    if not MIN_DEPTH <= median <= MAX_DEPTH:
        raise ValueError(f"depth: expected metres, with a median of {MIN_DEPTH} to {MAX_DEPTH} m, got {median:.3g}")
    return depth


def _read_depth_file(path: Path, expected: str) -> np.ndarray:
    if not path.exists():
        raise FileNotFoundError(f"depth: expected a depth map, got {path}, which does not exist")
    if path.suffix == ".npy":
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"depth: {expected}, got {path}: {error}") from error
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            _check_sides(opened.height, opened.width)
            if not opened.mode.startswith("I"):
                raise ValueError(f"depth: {expected}, got {path} with pixels of kind {opened.mode!r}")
            return np.array(opened).astype(np.float32) / 1000.0
    except (SyntaxError, EOFError, struct.error, OSError) as error:
        raise ValueError(f"depth: {expected}, got {path}: {error}") from error


def fit_depth(depth: np.ndarray, camera: Camera, fitted: Camera) -> np.ndarray:
    """Sample a depth map at the pixels of a camera at the same place with other intrinsics, as :func:`fit` makes it.

    The nearest sample is taken, so that no depth between two surfaces appears.

    Args:
        depth: float32 ``[H, W]`` metres, 0 where unknown.
        camera: of the map, batch shape ``()``, size ``(H, W)``.
        fitted: of the result, batch shape ``()``.
    """
    K, other = camera.K.double().numpy(), fitted.K.double().numpy()
    indices = []
    for axis, (length, side) in enumerate(zip(reversed(depth.shape), reversed(fitted.size), strict=True)):
        at = (np.arange(side) + 0.5 - other[axis, 2]) / other[axis, axis] * K[axis, axis] + K[axis, 2]
        indices.append(np.floor(at + _ROUNDING).astype(int).clip(0, length - 1))
    columns, rows = indices
    return np.ascontiguousarray(depth[rows[:, None], columns])


@cache
def builtin_starts() -> np.ndarray:
    """Return the built-in start images, uint8 ``[N, H, W, 3]``, 60 degrees vertical field of view, read-only.

    Raises:
        FileNotFoundError: if the package was installed without its assets.
        ValueError: if the file is damaged.
    """
    if not START_FRAMES.exists():
        raise FileNotFoundError(f"{START_FRAMES}: expected the built-in start images; pass an image instead")
    with open_tensors(START_FRAMES, "a whole safetensors file with 'frames'", framework="np") as file:
        frames = file.get_tensor("frames")
    frames.setflags(write=False)
    return frames
