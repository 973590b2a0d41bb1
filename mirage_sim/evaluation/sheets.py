"""What an evaluation leaves for people to look at: contact sheets and side-by-side videos of a few clips."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mirage_sim.data.clips import Clip
from mirage_sim.evaluation.pictures import contact_sheet, save_picture, save_video, side_by_side
from mirage_sim.evaluation.rollout import LATENT, NO_MEMORY, RGB_MEMORY, TRUE_DEPTH
from mirage_sim.evaluation.scores import Run, leg_of

SHOWN = 12  # clips of a kind, spread over its environments
SHEET_STEPS = (0, 1, 4, 8, 16, 24)
FPS = 5  # half of the walk's own pace: there are up to four pictures to follow
IN_VIDEO = 6  # clips, and compression, so that a page with two videos stays below 10 MB; sheets are exact
QUALITY = 5
NAMES = {LATENT: "latent memory", NO_MEMORY: "no memory", RGB_MEMORY: "RGB memory", TRUE_DEPTH: "true depth"}


def to_show(clips: Sequence[Clip]) -> list[int]:
    """Positions of the first clips of every environment, equally many of each."""
    found: dict[str, list[int]] = {}
    for i, clip in enumerate(clips):
        found.setdefault(clip.source["environment"], []).append(i)
    each = max(SHOWN // max(len(found), 1), 1)
    return sorted(i for own in found.values() for i in own[:each])


def _sheet(clip: Clip, shown: Mapping[str, np.ndarray], columns: Mapping[str, int]) -> Image.Image:
    """Truth and each variant as rows, the named steps as columns."""
    at = list(columns.values())
    rows = {"truth": list(clip.frames[at].numpy())}
    rows |= {name: list(shown[variant][at]) for variant, name in NAMES.items() if variant in shown}
    return contact_sheet(rows, list(columns), scale=1)


def walk_sheet(clip: Clip, shown: Mapping[str, np.ndarray]) -> Image.Image:
    """A walk at steps 0, 1, 4, 8, 16 and 24.

    Args:
        clip: the true walk.
        shown: per variant frames uint8 ``[S + 1, H, W, 3]``.
    """
    last = min(len(frames) for frames in shown.values()) - 1
    return _sheet(clip, shown, {f"step {step}": step for step in SHEET_STEPS if step <= last})


def circuit_sheet(clip: Clip, shown: Mapping[str, np.ndarray]) -> Image.Image:
    """A circuit at A, B, A again and B again; arguments as of :func:`walk_sheet`."""
    leg = leg_of(clip)
    names = ("A", "B", "A again", "B again")
    return _sheet(clip, shown, {f"{name} (step {i * leg})": i * leg for i, name in enumerate(names)})


def video(run: Run) -> Iterator[np.ndarray]:
    """Up to six of the shown clips, one after the other: truth and the variants side by side, enlarged twice."""
    chosen = list(run.shown)
    for position in np.linspace(0, len(chosen) - 1, min(IN_VIDEO, len(chosen))).round().astype(int):
        clip, shown = run.clips[chosen[position]], run.shown[chosen[position]]
        for step in range(min(len(frames) for frames in shown.values())):
            panels = {f"truth: {clip.source['environment']}, step {step}": clip.frames[step].numpy()}
            panels |= {name: shown[variant][step] for variant, name in NAMES.items() if variant in shown}
            yield side_by_side(panels, scale=2)


def write_pictures(folder: Path, walks: Run | None, circuits: Run | None) -> None:
    """Write ``walk-NAME.png`` and ``circuit-NAME.png`` of the shown clips, and a video of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, run, draw in (("walk", walks, walk_sheet), ("circuit", circuits, circuit_sheet)):
        if run is None:
            continue
        for i, shown in run.shown.items():
            source = run.clips[i].source
            save_picture(draw(run.clips[i], shown), folder / f"{kind}-{source['environment']}-{source['seed']}.png")
        save_video(video(run), folder / f"{kind}s.mp4", FPS, QUALITY)
