"""Real images for evaluation, never for training: nine photographs and two stereo pairs with true geometry.

The files are part of other software and not of this package: seven are in scikit-image's wheel, the others in Debian's
package ``opencv-doc``. Every file is checked against its SHA-256, so that scores of different machines are comparable.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mirage_sim.geometry import Camera
from mirage_sim.models.pretrained import require
from mirage_sim.world.images import read_image

IN_SCIKIT_IMAGE = {
    "motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    "motorcycle_right.png": "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797",
    "motorcycle_disp.npz": "2e49c8cebff3fa20359a0cc6880c82e1c03bbb106da81a177218281bc2f113d7",
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
}
IN_OPENCV_DOC = {
    "aloeL.jpg": "cce5736808efe80d9f04b118dbb978c344d4345672b332718c3e039a3eeb8eee",
    "aloeR.jpg": "9b23100df31a846bc6e6a6545563b2b4120b948c9835c7d36cde00af77f4503e",
    "aloeGT.png": "39ce4f3cb48d797d1091c5152f93361d8104298c337f8a1c134d87dda3442c04",
    "building.jpg": "742a1baad62ac82e91e718e77eedf7e85c2eddc4badfb8c87c6cbc86c45a8b07",
    "home.jpg": "23b8cf46a1965d0ec33459b875aed43187802834db49e0daa9fa2cc842e9d8d2",
    "leuvenA.jpg": "b2977cdbd9fb3f94dadd6f76cf586d145676deb8a22b5f0f42149d21c058c09f",
}
PHOTOGRAPHS = (
    "motorcycle_left.png",
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "aloeL.jpg",
    "building.jpg",
    "home.jpg",
    "leuvenA.jpg",
)


@dataclass(frozen=True)
class StereoPair:
    """Two rectified images with true disparity ``d``: column ``x`` of the left is column ``x - d`` of the right.

    Attributes:
        left: uint8 ``[H, W, 3]``.
        right: the same shape.
        disparity: of the left image, float32 ``[H, W]`` in pixels, 0 where unknown.
        focal: focal length in pixels.
        centre: principal point ``(cx, cy)`` of the left image in pixels, corners at integers.
        offset: shift of the right image's principal point to the right, pixels.
        baseline: from the left camera to the right one, metres.
    """

    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    disparity: NDArray[np.float32]
    focal: float
    centre: tuple[float, float]
    offset: float
    baseline: float

    @property
    def cameras(self) -> tuple[Camera, Camera]:
        """The left camera, at the origin, and the right camera."""
        cameras = []
        for shift, moved in ((0.0, 0.0), (self.offset, self.baseline)):
            cx, cy = self.centre
            K = torch.tensor([[self.focal, 0.0, cx + shift], [0.0, self.focal, cy], [0.0, 0.0, 1.0]])
            c2w = torch.eye(4)
            c2w[0, 3] = moved
            cameras.append(Camera(c2w, K, self.disparity.shape))
        return cameras[0], cameras[1]

    @property
    def left_depth(self) -> NDArray[np.float32]:
        """Z-depth ``b f / (d + offset)`` of the left image ``[H, W]`` in metres, 0 where unknown."""
        return self._depth(self.disparity)

    @property
    def right_depth(self) -> NDArray[np.float32]:
        """Z-depth of the right image ``[H, W]`` in metres where it shows surfaces of the left image, 0 elsewhere.

        Every pixel of the left image is splatted to the two columns that it falls between; the nearest surface wins.
        """
        height, width = self.disparity.shape
        rows, columns = np.nonzero(self.disparity > 0)
        disparity = self.disparity[rows, columns]
        target = np.floor(columns - disparity).astype(int)
        seen = np.zeros_like(self.disparity)
        for column in (target, target + 1):
            inside = (column >= 0) & (column < width)
            np.maximum.at(seen, (rows[inside], column[inside]), disparity[inside])
        return self._depth(seen)

    def _depth(self, disparity: NDArray[np.float32]) -> NDArray[np.float32]:
        known = disparity > 0
        depth = self.baseline * self.focal / np.where(known, disparity + self.offset, 1.0)
        return np.where(known, depth, 0.0).astype(np.float32)


def sample_path(name: str, folder: Path) -> Path:
    """Return the path of a sample file after a check of its content.

    Args:
        name: a key of ``IN_SCIKIT_IMAGE`` or ``IN_OPENCV_DOC``.
        folder: with the files of ``opencv-doc``.

    Raises:
        ImportError: if scikit-image is missing.
        FileNotFoundError: if the file is missing.
        ValueError: if the file has another SHA-256.
    """
    if name in IN_SCIKIT_IMAGE:
        module = require("skimage", "'mirage_sim[perceptual]'")
        folder, expected, package = Path(str(module.__file__)).parent / "data", IN_SCIKIT_IMAGE[name], "scikit-image"
    else:
        expected, package = IN_OPENCV_DOC[name], "Debian's opencv-doc"
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of {package}, got no such file")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
        raise ValueError(f"{path}: expected the file with SHA-256 {expected}, got {found}")
    return path


def read_photograph(name: str, folder: Path) -> NDArray[np.uint8]:
    """Read one of ``PHOTOGRAPHS``, uint8 ``[H, W, 3]``; arguments and errors are those of :func:`sample_path`."""
    return read_image(sample_path(name, folder))


def motorcycle(folder: Path) -> StereoPair:
    """Read Motorcycle of Middlebury 2014 at a quarter of its size.

    The calibration is that of scikit-image's documentation. The published principal point has pixel centres at integers
    at full size; half a pixel there is 0.125 here.

    Args:
        folder: unused, because the files are part of scikit-image.

    Raises:
        ImportError, FileNotFoundError, ValueError: as :func:`sample_path`.
    """
    left, right, disparity = (
        sample_path(f"motorcycle_{part}", folder) for part in ("left.png", "right.png", "disp.npz")
    )
    with np.load(disparity, allow_pickle=False) as file:
        values = file["arr_0"]
    known = np.where(np.isfinite(values), values, 0.0).astype(np.float32)
    centre = (311.193 + 0.125, 254.877 + 0.125)
    return StereoPair(read_image(left), read_image(right), known, 994.978, centre, 31.086, 0.193001)


def aloe(folder: Path) -> StereoPair:
    """Read Aloe of Middlebury 2006 at full size (1282 x 1110).

    ``aloeGT.png`` holds disparities of the left image in whole pixels, 0 where unknown; the two images agree best at
    this scale and without a shift. Middlebury publishes the focal length (3740 pixels), the baseline (160 mm) and the
    offset of the cropped images (270 pixels) with the data set. The principal point is not published and assumed to be
    the middle of the left image. These numbers do not change which pixels correspond, so they matter for estimated
    depth and not for true depth.

    Args:
        folder: with the files of ``opencv-doc``.

    Raises:
        FileNotFoundError, ValueError: as :func:`sample_path`.
    """
    left, right, truth = (sample_path(f"aloe{part}", folder) for part in ("L.jpg", "R.jpg", "GT.png"))
    with Image.open(truth, formats=("PNG",)) as opened:
        disparity = np.array(opened.convert("L"), np.float32)
    height, width = disparity.shape
    return StereoPair(read_image(left), read_image(right), disparity, 3740.0, (width / 2, height / 2), 270.0, 0.160)


PAIRS: dict[str, Callable[[Path], StereoPair]] = {"motorcycle": motorcycle, "aloe": aloe}
