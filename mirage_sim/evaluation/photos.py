"""``mirage eval photos``: how well a world shows real images that it was never trained on.

The codec alone on nine photographs; and two stereo pairs, where the world starts from the left image, moves to the
right camera in one step, and is compared with the right image. Depth of the left image is the world's own estimate or
the true one, so that depth and rendering are told apart. Files: :mod:`mirage_sim.data.samples`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mirage_sim.data.prepare import fit_depth
from mirage_sim.data.samples import PAIRS, PHOTOGRAPHS, StereoPair, read_photograph
from mirage_sim.evaluation.ground_truth import seen_from
from mirage_sim.evaluation.media import contact_sheet, save_image
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.evaluation.result_cache import fingerprint
from mirage_sim.evaluation.runner import build_model
from mirage_sim.evaluation.summary import finite, write_json
from mirage_sim.geometry import Camera
from mirage_sim.protocols import DepthEstimator
from mirage_sim.world import World, WorldModel
from mirage_sim.world.images import fit, to_tensor, to_uint8

_log = logging.getLogger(__name__)

KNOWN = {"world", "source", "output", "memory", "latent"}
SOURCE = "/usr/share/doc/opencv-doc/examples/data"  # where Debian's opencv-doc puts its images
REPEATED, OWN, TRUE = "repeated", "own_depth", "true_depth"
LATENTS = "_latents"  # ends the names of variants that show what the codec decodes, without reprojection
_SEED = 0

Loaded = TypeVar("Loaded")
Scores = dict[str, float | None]


@dataclass(frozen=True)
class View:
    """One image of a pair at the world's size: uint8 ``[h, w, 3]``, its camera, true depth ``[h, w]`` (0 unknown)."""

    image: np.ndarray
    camera: Camera
    depth: Tensor


@dataclass(frozen=True)
class MeasuredFirst:
    """A depth estimator that knows the first image's depth and leaves all others to another estimator.

    Attributes:
        estimator: for images seen from elsewhere.
        first: the image that is known.
    """

    estimator: DepthEstimator
    first: View

    def __call__(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.DepthEstimator.__call__`."""
        if camera.c2w.isclose(self.first.camera.c2w.to(camera.c2w.device)).all():
            return self.first.depth.to(frames.device).expand(*camera.batch_shape, *camera.size)
        return self.estimator(frames, camera, known)


def views_of(pair: StereoPair, size: tuple[int, int]) -> tuple[View, View]:
    """Left and right view, cut in the middle to the aspect ratio of ``size`` and averaged down to it.

    Depth is the nearest pixel's, so that edges stay between two surfaces.
    """
    views = []
    images, depths = (pair.left, pair.right), (pair.left_depth, pair.right_depth)
    for image, camera, depth in zip(images, pair.cameras, depths, strict=True):
        fitted, smaller = fit(image, camera, size)
        height, width = camera.size
        shares = camera.K.double().numpy()[[0, 1, 0, 1], [0, 1, 2, 2]] / (width, height, width, height)
        views.append(View(fitted, smaller, fit_depth(depth, shares, smaller)))
    return views[0], views[1]


def codec_psnr(model: WorldModel, image: np.ndarray) -> float:
    """PSNR in dB of a photograph, uint8 ``[H, W, 3]``, that went through the codec at the world's size."""
    fitted, _ = fit(image, Camera.from_fov(torch.eye(4), 60.0, image.shape[:2]), model.size)
    with torch.inference_mode():
        latents = model.codec.encode(to_tensor(fitted, model.device)[None, :, None])
        decoded = to_uint8(model.codec.decode(latents)[0, :, 0])
    return float(psnr(decoded, fitted))


def drive_pair(model: WorldModel, left: View, right: View) -> dict[str, np.ndarray]:
    """What each variant shows at the right camera, uint8 ``[h, w, 3]``."""
    shown = {REPEATED: left.image}
    for name, depth in ((OWN, model.depth), (TRUE, MeasuredFirst(model.depth, left))):
        for end, reprojection in (("", model.reprojection), (LATENTS, None)):
            if end and model.reprojection is None:
                continue  # both would be the same
            world = World(replace(model, depth=depth, reprojection=reprojection))
            world.reset(image=left.image, camera=left.camera, seed=_SEED)
            shown[name + end] = world.step(right.camera).frames[-1]
    return shown


def score_pair(shown: Mapping[str, np.ndarray], left: View, right: View) -> Scores:
    """PSNR of each variant over the right image, and with ``_seen`` over what the left image shows of it, too.

    A pixel is seen if its true depth puts it on the same surface in both images.
    """
    seen = seen_from(right.depth, right.camera, left.depth, left.camera).numpy()
    scores: Scores = {}
    for name, frame in shown.items():
        scores[f"psnr_{name}"] = finite(float(psnr(frame, right.image)))
        scores[f"psnr_{name}_seen"] = finite(float(psnr(frame, right.image, seen)))
    return scores | {"seen_part": finite(float(seen.mean()))}


def evaluate(cfg: Mapping[str, Any], model: WorldModel | None = None) -> dict[str, Any]:
    """Show real photographs.

    Args:
        cfg: ``world`` (a name, or a composed node with ``_target_``; default ``"mini"``), ``source`` (folder with the
            images of Debian's package ``opencv-doc``; where that installs them if missing or None), ``output`` (folder
            for ``photos.json`` and an image of each pair; None writes nothing).
        model: evaluate this one instead of ``world``.

    Returns:
        ``metrics`` (``codec_psnr``, the mean over all nine, and ``NAME_psnr_VARIANT`` of both pairs), ``images`` (the
        codec's PSNR of each) and ``missing`` (why there is no figure). Figures are in dB; None where there is none.

    Raises:
        ValueError: for unknown keys.
    """
    if unknown := sorted(set(cfg) - KNOWN):
        raise ValueError(f"cfg: expected keys among {sorted(KNOWN)}, got {unknown}")
    source = Path(cfg.get("source") or SOURCE)
    output = Path(cfg["output"]) if cfg.get("output") else None
    model = model or build_model(cfg)
    started = time.perf_counter()
    missing: dict[str, str] = {}
    images, metrics = _score_photographs(model, source, missing)
    for name in PAIRS:
        own = _score_pair(model, name, source, output, missing)
        metrics |= {f"{name}_{figure}": value for figure, value in own.items()}
    result = {
        "marks": metrics,
        "images": images,
        "missing": missing,
        "model": fingerprint(model),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if output:
        write_json(result, output / "photos.json")
    return result


def _score_photographs(model: WorldModel, source: Path, missing: dict[str, str]) -> tuple[Scores, Scores]:
    """The codec's PSNR of each photograph, and as a mark its mean if there are all nine."""
    images: Scores = {}
    for name in PHOTOGRAPHS:
        image = _load(partial(read_photograph, name), name, source, missing)
        images[name] = None if image is None else finite(codec_psnr(model, image))
    scores = [score for score in images.values() if score is not None]
    return images, {"codec_psnr": finite(float(np.mean(scores))) if len(scores) == len(images) else None}


def _score_pair(model: WorldModel, name: str, source: Path, output: Path | None, missing: dict[str, str]) -> Scores:
    """The figures of a pair, whose image goes into the output folder."""
    pair = _load(PAIRS[name], name, source, missing)
    if pair is None:
        return dict.fromkeys(f"psnr_{variant}" for variant in (REPEATED, OWN, TRUE))
    left, right = views_of(pair, model.size)
    shown = drive_pair(model, left, right)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        row = {"right image": right.image} | shown
        save_image(contact_sheet({name: list(row.values())}, list(row), scale=2), output / f"{name}.png")
    return score_pair(shown, left, right)


def _load(load: Callable[[Path], Loaded], name: str, source: Path, missing: dict[str, str]) -> Loaded | None:
    """What can be loaded; where it cannot, the reason is noted."""
    try:
        return load(source)
    except (ImportError, OSError, ValueError) as error:
        missing[name] = str(error)
        _log.warning("no figure for %s: %s", name, error)
        return None
