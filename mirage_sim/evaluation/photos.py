"""``mirage eval photos``: evaluate a world on real images that were not used in training.

Nine photographs go through the codec alone. In two stereo pairs, the world starts from the left image, moves to the
right camera in one step, and is compared with the right image. Depth of the left image is the world's estimate, or the
true depth, which :meth:`mirage_sim.world.World.reset` takes as measured. :mod:`mirage_sim.data.samples` reads files.
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
from mirage_sim.world import World, WorldModel
from mirage_sim.world.images import fit, to_tensor, to_uint8

_log = logging.getLogger(__name__)

KNOWN = {"world", "source", "output", "memory", "latent"}
SOURCE = "/usr/share/doc/opencv-doc/examples/data"  # folder of the images in Debian's package opencv-doc
REPEATED, OWN, TRUE = "repeated", "own_depth", "true_depth"
LATENTS = "_latents"  # suffix of variants without reprojection, which show only what the codec decodes
_SEED = 0

Loaded = TypeVar("Loaded")
Scores = dict[str, float | None]


@dataclass(frozen=True)
class View:
    """An image of a pair at the world's size, uint8 ``[h, w, 3]``, its camera, true depth ``[h, w]`` (0: unknown)."""

    image: np.ndarray
    camera: Camera
    depth: Tensor


def views_of(pair: StereoPair, size: tuple[int, int]) -> tuple[View, View]:
    """Left and right view, cropped centrally to the aspect ratio of ``size`` and averaged down to it.

    Depth is taken from the nearest pixel, so that edges between surfaces stay sharp.
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
    """PSNR in dB of a photograph, uint8 ``[H, W, 3]``, after encoding and decoding at the world's size."""
    fitted, _ = fit(image, Camera.from_fov(torch.eye(4), 60.0, image.shape[:2]), model.size)
    with torch.inference_mode():
        latents = model.codec.encode(to_tensor(fitted, model.device)[None, :, None])
        decoded = to_uint8(model.codec.decode(latents)[0, :, 0])
    return float(psnr(decoded, fitted))


def drive_pair(model: WorldModel, left: View, right: View) -> dict[str, np.ndarray]:
    """Image of each variant at the right camera, uint8 ``[h, w, 3]``."""
    shown = {REPEATED: left.image}
    for name, depth in ((OWN, None), (TRUE, left.depth.numpy())):
        for end, reprojection in (("", model.reprojection), (LATENTS, None)):
            if end and model.reprojection is None:
                continue  # the variants would be equal
            world = World(replace(model, reprojection=reprojection))
            world.reset(image=left.image, camera=left.camera, seed=_SEED, depth=depth)
            shown[name + end] = world.step(right.camera).frames[-1]
    return shown


def score_pair(shown: Mapping[str, np.ndarray], left: View, right: View) -> Scores:
    """PSNR of each variant over the right image, and over the part that the left image shows too (``_seen``).

    A pixel is seen if both images show the same surface there, by true depth.
    """
    seen = seen_from(right.depth, right.camera, left.depth, left.camera).numpy()
    scores: Scores = {}
    for name, frame in shown.items():
        scores[f"psnr_{name}"] = finite(float(psnr(frame, right.image)))
        scores[f"psnr_{name}_seen"] = finite(float(psnr(frame, right.image, seen)))
    return scores | {"seen_part": finite(float(seen.mean()))}


def evaluate(cfg: Mapping[str, Any], model: WorldModel | None = None) -> dict[str, Any]:
    """Evaluate a world on real images.

    Args:
        cfg: ``world`` (a name, or a composed node with ``_target_``; default ``"mini"``), ``source`` (folder with the
            images of Debian's package ``opencv-doc``; where that installs them if missing or None), ``output`` (folder
            for ``photos.json`` and a contact sheet of each pair; None writes nothing).
        model: evaluate this one instead of ``world``.

    Returns:
        ``marks`` (``codec_psnr``, the mean over all nine photographs, and ``NAME_psnr_VARIANT`` of both pairs, in dB),
        ``images`` (the codec's PSNR of each photograph) and ``missing`` (why a value is None).

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
        scores = _score_pair(model, name, source, output, missing)
        metrics |= {f"{name}_{score}": value for score, value in scores.items()}
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
    """The codec's PSNR of each photograph, and ``codec_psnr``, its mean; None if a photograph is missing."""
    images: Scores = {}
    for name in PHOTOGRAPHS:
        image = _load(partial(read_photograph, name), name, source, missing)
        images[name] = None if image is None else finite(codec_psnr(model, image))
    scores = [score for score in images.values() if score is not None]
    return images, {"codec_psnr": finite(float(np.mean(scores))) if len(scores) == len(images) else None}


def _score_pair(model: WorldModel, name: str, source: Path, output: Path | None, missing: dict[str, str]) -> Scores:
    """Score a pair, and write its contact sheet into the output folder."""
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
    """Load a sample; on failure, note the reason in ``missing`` and return None."""
    try:
        return load(source)
    except (ImportError, OSError, ValueError) as error:
        missing[name] = str(error)
        _log.warning("%s is left out: %s", name, error)
        return None
