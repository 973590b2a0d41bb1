"""``mirage eval recording``: a world made from a recording, against images of it that were held out.

Stretches of two seconds are held out, one after each four seconds that are imported. The world is driven along each
stretch, from the image before it, with the recorded poses. Scores are taken over *observed* pixels, whose surface an
imported image shows by measured depth, and over the others. Beside the world: the nearest imported image repeated; a
world that knows the start image only; and the imported world without its keyframes, by latents alone.

Where a simulator made the recording, the world is also compared with the simulator's image from cameras 0.3 m beside
held-out ones, turned by 10 degrees (:func:`mirage_sim.evaluation.simulated.off_path`).
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_sim.build import instantiate
from mirage_sim.data.recordings import RecordedFrame, Recording, open_recording
from mirage_sim.data.recordings.place import ImportedPlace, import_place, level_frame, level_from_recording
from mirage_sim.evaluation.ground_truth import open_simulator, seen_from
from mirage_sim.evaluation.media import contact_sheet, save_image
from mirage_sim.evaluation.metrics import abs_rel, bootstrap_mean, psnr, ssim
from mirage_sim.evaluation.simulated import off_path, simulated_clip
from mirage_sim.evaluation.summary import write_json
from mirage_sim.geometry import Camera
from mirage_sim.settings import RecordingEvalSettings
from mirage_sim.world import World, WorldModel

logger = logging.getLogger(__name__)

HELD_OUT, IMPORTED = 2.0, 4.0  # seconds of each stretch
UNTIMED_RATE = 10.0  # images per second of a recording that has no times
LEAST_SHARE = 0.05  # of an image: smaller regions are not scored
WORLD, NEAREST, START, LATENTS = "observed", "nearest_image", "start_image", "latents_only"
_SHOWN = 3  # held-out images in the contact sheet
_STEPS_TIMED = 20
_EVERY = 5  # held-out images from one camera off the path to the next
_TURN = 2.0  # metres that a difference of one in the viewing direction counts as, where the nearest image is chosen


@dataclass(frozen=True)
class Split:
    """Which images are imported and which are held out.

    Attributes:
        imported: numbers of images.
        stretches: numbers of the images of each held-out stretch.
    """

    imported: tuple[int, ...]
    stretches: tuple[tuple[int, ...], ...]


def split_recording(recording: Recording) -> Split:
    """Hold out two seconds after each four.

    Raises:
        ValueError: if the recording is too short for one stretch.
    """
    stamps = recording.stamps - recording.stamps[0]
    if recording.info.rate_hz is None:
        stamps = np.arange(len(recording)) / UNTIMED_RATE
    period = IMPORTED + HELD_OUT
    held = stamps % period >= IMPORTED
    number = (stamps // period).astype(int)
    stretches = tuple(tuple(np.flatnonzero(held & (number == n)).tolist()) for n in np.unique(number[held]))
    if not stretches:
        raise ValueError(f"source: expected a recording of more than {IMPORTED:g} s, got {stamps[-1]:.1f} s")
    return Split(tuple(np.flatnonzero(~held).tolist()), stretches)


def drive(world: World, before: RecordedFrame, stretch: Sequence[RecordedFrame]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Drive a fork along a stretch; return frames uint8 ``[n, H, W, 3]`` and depth ``[n, H, W]``."""
    (fork,) = world.fork(1)
    fork.step(before.camera)
    shown = [fork.step(frame.camera) for frame in stretch]
    return np.stack([each.frame for each in shown]), np.stack([each.depth for each in shown])


def without_keyframes(place: ImportedPlace, model: WorldModel) -> World:
    """Return the imported world on a model that shows decoded latents only."""
    world = World(replace(model, reprojection=None))
    now = place.world.snapshot()
    world.restore(replace(now, state=replace(now.state, keyframes=None)))
    return world


def evaluate(settings: RecordingEvalSettings) -> dict[str, Any]:
    """Evaluate worlds made from recordings.

    Returns:
        ``marks``: means over recordings, with ``_lo`` and ``_hi``; ``recordings``: scores of each.

    Raises:
        FileNotFoundError: for missing files.
        ValueError: for recordings that cannot be read, or are too short.
    """
    model = instantiate(settings.world)
    output, started = Path(settings.output) if settings.output else None, time.perf_counter()
    scores = {}
    for source in sources_of(Path(settings.source)):
        scores[source.name], sheet = score_recording(open_recording(source), model)
        if output:
            output.mkdir(parents=True, exist_ok=True)
            save_image(sheet, output / f"{source.stem}.png")
    result: dict[str, Any] = {"marks": means(list(scores.values())), "recordings": scores}
    result["seconds"] = round(time.perf_counter() - started, 1)
    if output:
        write_json(result, output / "recording.json")
    return result


def sources_of(source: Path) -> list[Path]:
    """Return the recordings of a folder, or the one recording that ``source`` is."""
    if source.is_dir() and not (source / "metadata.yaml").exists():
        inner = sorted(path for path in source.iterdir() if path.suffix in (".safetensors", ".npz", ".mcap", ".db3"))
        inner += sorted(path for path in source.iterdir() if path.is_dir() and path.name not in ("rgb", "depth"))
        own = [name for name in ("rgb.txt", "transforms.json") if (source / name).exists()]
        if inner and not own:
            return inner
    return [source]


def score_recording(recording: Recording, model: WorldModel) -> tuple[dict[str, float | None], Any]:
    """Score one recording; return its scores and a contact sheet."""
    split, level = split_recording(recording), level_from_recording(recording)
    place = import_place(recording, model, split.imported)
    start = import_place(recording, model, split.imported[:1])
    estimated = World(model)
    (first,) = (level_frame(frame, level, model.size) for frame in recording.frames(split.imported[:1]))
    estimated.reset(first.image, camera=first.camera)
    worlds = {WORLD: place.world, START: estimated, LATENTS: without_keyframes(place, model)}
    imported = [level_frame(frame, level, model.size) for frame in recording.frames(list(place.keyframes))]
    rows: list[dict[str, float]] = []
    images: dict[str, list[NDArray[Any]]] = {"recorded": [], **{name: [] for name in (*worlds, NEAREST)}}
    for stretch in split.stretches:
        before = max((n for n in split.imported if n < stretch[0]), default=split.imported[0])
        frames = [level_frame(f, level, model.size) for f in recording.frames([before, *stretch])]
        driven = {name: drive(world, frames[0], frames[1:]) for name, world in worlds.items()}
        for i, frame in enumerate(frames[1:]):
            shown = {name: result[0][i] for name, result in driven.items()}
            shown[NEAREST] = nearest(imported, frame).image
            rows.append(score_frame(frame, shown, driven[WORLD][1][i], observed_mask(frame, imported)))
            images["recorded"].append(frame.image)
            for name, image in shown.items():
                images[name].append(image)
    scores: dict[str, float | None] = {name: _mean([row[name] for row in rows]) for name in rows[0]}
    scores["off_path_psnr"] = off_path_psnr(recording, place.world, split, imported)
    scores |= {
        "keyframes": float(len(place.keyframes)),
        "import_images_per_s": place.images_per_s,
    } | time_steps(place.world, start.world)
    chosen = np.unique(np.linspace(0, len(rows) - 1, _SHOWN).astype(int))
    sheet = contact_sheet({name: [row[i] for i in chosen] for name, row in images.items()}, [str(i) for i in chosen])
    return scores, sheet


def observed_mask(frame: RecordedFrame, imported: Sequence[RecordedFrame]) -> NDArray[np.bool_] | None:
    """Which pixels show a surface that an imported image shows, by measured depth; None where there is none."""
    if frame.depth is None:
        return None
    observed = torch.zeros(frame.camera.size, dtype=torch.bool)
    depth = torch.from_numpy(frame.depth)
    for other in imported:
        if other.depth is not None:
            observed |= seen_from(depth, frame.camera, torch.from_numpy(other.depth), other.camera)
    return np.asarray(observed.numpy())


def nearest(imported: Sequence[RecordedFrame], frame: RecordedFrame) -> RecordedFrame:
    """Return the imported image from the most similar pose."""

    def distance(other: RecordedFrame) -> float:
        moved = (other.camera.c2w[:3, 3] - frame.camera.c2w[:3, 3]).norm()
        turned = (other.camera.c2w[:3, 2] - frame.camera.c2w[:3, 2]).norm()
        return float(moved + _TURN * turned)

    return min(imported, key=distance)


def score_frame(
    frame: RecordedFrame,
    shown: Mapping[str, NDArray[Any]],
    depth: NDArray[Any],
    observed: NDArray[np.bool_] | None,
) -> dict[str, float]:
    """Score one held-out image; NaN where a region is too small or there is no depth."""
    whole = np.ones(frame.camera.size, dtype=bool)
    seen = whole if observed is None else observed
    enough = seen.mean() >= LEAST_SHARE
    row = {"psnr": float(psnr(shown[WORLD], frame.image)), "observed_part": float(seen.mean())}
    for name, image in shown.items():
        row[f"{name}_psnr"] = float(psnr(image, frame.image, seen)) if enough else np.nan
    row["observed_ssim"] = float(ssim(shown[WORLD], frame.image, seen)) if enough else np.nan
    hidden = ~seen
    row["unobserved_psnr"] = float(psnr(shown[WORLD], frame.image, hidden)) if hidden.mean() >= LEAST_SHARE else np.nan
    row["absrel"] = np.nan
    if frame.depth is not None and enough:
        row["absrel"] = float(abs_rel(depth, np.where(seen, frame.depth, 0.0)))
    return row


def off_path_psnr(recording: Recording, world: World, split: Split, imported: Sequence[RecordedFrame]) -> float | None:
    """Return the mean PSNR over observed pixels of cameras off the path; None where no simulator knows the truth."""
    try:
        clip = simulated_clip(recording.source)
        simulator = open_simulator(clip.source["simulator"], clip.source["environment"])
    except (ValueError, ImportError) as error:
        logger.info("nothing is known off the path: %s", error)
        return None
    level = level_from_recording(recording)
    scores: list[float] = []
    for number, true in off_path(clip, simulator, [n for stretch in split.stretches for n in stretch[::_EVERY]]):
        frame = level_frame(true, level, world.model.size)
        (before,) = recording.frames([number])
        (shown,), _ = drive(world, level_frame(before, level, world.model.size), [frame])
        observed = observed_mask(frame, imported)
        if observed is not None and observed.mean() >= LEAST_SHARE:
            scores.append(float(psnr(shown, frame.image, observed)))
    simulator.close()
    return _mean(scores)


def time_steps(imported: World, fresh: World) -> dict[str, float | None]:
    """Time steps in the imported world and in a world of one keyframe, in turns.

    Returns:
        ``step_rate_ratio``, the rate of the first over that of the second; and ``reproject_ms``, the median time in
        the imported world for choosing and showing keyframes, None for a world without them.
    """
    seconds = [0.0, 0.0]
    reproject: list[float] = []
    forks = [world.fork(1)[0] for world in (imported, fresh)]
    for step in range(_STEPS_TIMED + 2):
        for i, fork in enumerate(forks):
            turned = fork.camera.c2w.clone()
            angle = torch.tensor(0.1)
            turned[:3, :3] = turned[:3, :3] @ torch.tensor(
                [[angle.cos(), 0.0, angle.sin()], [0.0, 1.0, 0.0], [-angle.sin(), 0.0, angle.cos()]]
            )
            begun = time.perf_counter()
            shown = fork.step(Camera(turned, fork.camera.K, fork.camera.size))
            if step >= 2:  # the first steps compile
                seconds[i] += time.perf_counter() - begun
                if i == 0 and "reproject" in shown.info["seconds"]:
                    reproject.append(shown.info["seconds"]["reproject"])
    return {
        "step_rate_ratio": round(seconds[1] / seconds[0], 3),
        "reproject_ms": round(1e3 * float(np.median(reproject)), 3) if reproject else None,
    }


def means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Means over recordings with 95 % intervals (``_lo``, ``_hi``); None where nothing was measured."""
    metrics: dict[str, float | None] = {}
    for name in rows[0]:
        values = np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)
        known = values[np.isfinite(values)]
        if not len(known):
            metrics[name] = None
            continue
        interval = bootstrap_mean(known)
        metrics |= {name: round(float(known.mean()), 4)}
        metrics |= {f"{name}_lo": round(interval.low, 4), f"{name}_hi": round(interval.high, 4)}
    return metrics


def _mean(values: Sequence[float]) -> float | None:
    known = np.array(values)[np.isfinite(values)]
    return round(float(known.mean()), 4) if len(known) else None
