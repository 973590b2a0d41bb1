"""Real images that are evaluated and never trained on: nine photographs, and two stereo pairs with true geometry.

They come with other software and are not ours to ship: scikit-image's wheel holds seven of the files, Debian's package
``opencv-doc`` the others. Every file is checked against its SHA-256, so that figures of different machines compare.
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
    """Two rectified images and what is known about them. A point at column ``x`` of the left is at ``x - d`` right.

    Attributes:
        left: uint8 ``[H, W, 3]``.
        right: the same shape.
        disparity: ``d`` of the left image, float32 ``[H, W]`` in pixels, 0 where unknown.
        focal: focal length in pixels.
        centre: principal point ``(cx, cy)`` of the left image in pixels, corners at integers.
        offset: how much farther to the right the right image's principal point is, pixels.
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
        """The left camera, at the origin, and the right one."""
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
        """Z-depth of what the right image shows of the left one's surfaces ``[H, W]`` in metres, 0 elsewhere.

        Every pixel of the left image is drawn over the two columns that it falls between, the nearest in front.
        """
        height, width = self.disparity.shape
        rows, columns = np.nonzero(self.disparity > 0)
        disparity = self.disparity[rows, columns]
        there = np.floor(columns - disparity).astype(int)
        seen = np.zeros_like(self.disparity)
        for column in (there, there + 1):
            inside = (column >= 0) & (column < width)
            np.maximum.at(seen, (rows[inside], column[inside]), disparity[inside])
        return self._depth(seen)

    def _depth(self, disparity: NDArray[np.float32]) -> NDArray[np.float32]:
        known = disparity > 0
        depth = self.baseline * self.focal / np.where(known, disparity + self.offset, 1.0)
        return np.where(known, depth, 0.0).astype(np.float32)


def sample_path(name: str, folder: Path) -> Path:
    """Where a sample file lies, checked.

    Args:
        name: of ``IN_SCIKIT_IMAGE`` or ``IN_OPENCV_DOC``.
        folder: that holds the files of ``opencv-doc``.

    Raises:
        ImportError: where scikit-image is missing.
        FileNotFoundError: where the file is missing.
        ValueError: if it is another file of that name.
    """
    if name in IN_SCIKIT_IMAGE:
        module = require("skimage", "'mirage_sim[perceptual]'")
        folder, expected, package = Path(str(module.__file__)).parent / "data", IN_SCIKIT_IMAGE[name], "scikit-image"
    else:
        expected, package = IN_OPENCV_DOC[name], "Debian's opencv-doc"
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of {package}, which is not there")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
        raise ValueError(f"{path}: expected the file with SHA-256 {expected}, got {found}")
    return path


def read_photograph(name: str, folder: Path) -> NDArray[np.uint8]:
    """One of ``PHOTOGRAPHS``, uint8 ``[H, W, 3]``; arguments and errors as of :func:`sample_path`."""
    return read_image(sample_path(name, folder))


def motorcycle(folder: Path) -> StereoPair:
    """Motorcycle of Middlebury 2014, a quarter of its size; the calibration is in scikit-image's documentation.

    Its principal point is stated for pixel centres at integers at full size: an eighth of a pixel of ours.

    Args:
        folder: unused; the files are scikit-image's.

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
    """Aloe of Middlebury 2006, at full size (1282 x 1110).

    ``aloeGT.png`` holds disparities of the left image in whole pixels, 0 where unknown: the two images agree best at
    exactly that scale, without a shift. Focal length (3740 pixels), baseline (160 mm) and the offset of the cropped
    images (270 pixels) are what Middlebury publishes with the data set; no file of the pair confirms them. The
    principal point is not published; the middle of the left image stands for it. None of them changes which pixels
    correspond, so that they matter to an estimate of depth, and not to true depth.

    Args:
        folder: that holds the files of ``opencv-doc``.

    Raises:
        FileNotFoundError, ValueError: as :func:`sample_path`.
    """
    left, right, truth = (sample_path(f"aloe{part}", folder) for part in ("L.jpg", "R.jpg", "GT.png"))
    with Image.open(truth, formats=("PNG",)) as opened:
        disparity = np.array(opened.convert("L"), np.float32)
    height, width = disparity.shape
    return StereoPair(read_image(left), read_image(right), disparity, 3740.0, (width / 2, height / 2), 270.0, 0.160)


PAIRS: dict[str, Callable[[Path], StereoPair]] = {"motorcycle": motorcycle, "aloe": aloe}
