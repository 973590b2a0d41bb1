"""Pictures and numbers of an evaluation for a person to look at."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import imageio.v2 as imageio
import numpy as np

from mirage_sim.data.clips import Clip
from mirage_sim.evaluation.rollout import VARIANTS, Rollout

SHEET_STEPS = (0, 1, 2, 4, 8, 16, 24)
FPS = 10
_TITLE_HEIGHT = 14


def _titled(picture: np.ndarray, title: str) -> np.ndarray:
    """The picture under a dark bar with a title."""
    bar = np.full((_TITLE_HEIGHT, picture.shape[1], 3), 32, np.uint8)
    cv2.putText(bar, title, (3, _TITLE_HEIGHT - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


def _rows(clip: Clip, rollouts: Mapping[str, Rollout], steps: Sequence[int]) -> np.ndarray:
    """Truth and each variant as rows, the steps as columns, with a title that names the rows."""
    rows = [np.concatenate(list(clip.frames[list(steps)].numpy()), axis=1)]
    names = [name for name in VARIANTS if name in rollouts]
    rows += [np.concatenate(list(rollouts[name].frames[list(steps)]), axis=1) for name in names]
    title = f"{clip.source['environment']} {clip.source['seed']}: true, {', '.join(names)}; steps {list(steps)}"
    return _titled(np.concatenate(rows), title)


def _columns(blocks: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Blocks of different width side by side, row by row; the rest stays dark."""
    width, height = max(block.shape[1] for block in blocks), max(block.shape[0] for block in blocks)
    count = -(-len(blocks) // columns)
    page = np.full((count * (height + 6), columns * (width + 6), 3), 32, np.uint8)
    for i, block in enumerate(blocks):
        top, left = i // columns * (height + 6), i % columns * (width + 6)
        page[top : top + block.shape[0], left : left + block.shape[1]] = block
    return page


def first_of_each(clips: Sequence[Clip]) -> list[int]:
    """Position of the first clip of every environment."""
    found: dict[str, int] = {}
    for i, clip in enumerate(clips):
        found.setdefault(clip.source["environment"], i)
    return list(found.values())


def _of(rollouts: Mapping[str, Sequence[Rollout]], i: int) -> dict[str, Rollout]:
    return {name: own[i] for name, own in rollouts.items()}


def walk_sheet(clips: Sequence[Clip], rollouts: Mapping[str, Sequence[Rollout]]) -> np.ndarray:
    """One walk per environment: truth and variants at the protocol's steps, uint8 ``[H, W, 3]``."""
    last = min(len(rollout.frames) for own in rollouts.values() for rollout in own) - 1
    steps = [step for step in SHEET_STEPS if step <= last]
    return _columns([_rows(clips[i], _of(rollouts, i), steps) for i in first_of_each(clips)], columns=2)


def circuit_sheet(clips: Sequence[Clip], rollouts: Mapping[str, Sequence[Rollout]]) -> np.ndarray:
    """One circuit per environment: truth and variants at A, B, A, B, uint8 ``[H, W, 3]``."""
    blocks = []
    for i in first_of_each(clips):
        leg = (len(clips[i]) - 1) // 3
        blocks.append(_rows(clips[i], _of(rollouts, i), [0, leg, 2 * leg, 3 * leg]))
    return _columns(blocks, columns=3)


def write_video(path: Path, clips: Sequence[Clip], rollouts: Mapping[str, Sequence[Rollout]]) -> None:
    """One walk per environment, one after the other: truth and the variants side by side, enlarged twice."""
    names = [name for name in VARIANTS if name in rollouts]
    partial = path.with_name(f"partial-{path.name}")
    # sizes are kept as they are: every player scales, and macro blocks of 2 are all that yuv420p needs
    writer: Any  # the class depends on the suffix
    with imageio.get_writer(partial, fps=FPS, macro_block_size=2) as writer:
        for i in first_of_each(clips):
            label = f"{clips[i].source['environment']} true"
            for step in range(len(rollouts[names[0]][i].frames)):
                panels = [(label, clips[i].frames[step].numpy())]
                panels += [(name, rollouts[name][i].frames[step]) for name in names]
                doubled = [
                    _titled(cv2.resize(p, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST), t) for t, p in panels
                ]
                writer.append_data(np.concatenate(doubled, axis=1))
    partial.replace(path)


def _write_png(path: Path, picture: np.ndarray) -> None:
    partial = path.with_name(f"partial-{path.name}")
    imageio.imwrite(partial, picture)
    partial.replace(path)


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    walks: Sequence[Clip],
    circuits: Sequence[Clip],
    on_walks: Mapping[str, Sequence[Rollout]],
    on_circuits: Mapping[str, Sequence[Rollout]],
) -> None:
    """Write ``fidelity.json``, ``sheet.png``, ``revisit.png`` and ``walks.mp4``, each of them atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "partial-fidelity.json"
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(folder / "fidelity.json")
    _write_png(folder / "sheet.png", walk_sheet(walks, on_walks))
    _write_png(folder / "revisit.png", circuit_sheet(circuits, on_circuits))
    write_video(folder / "walks.mp4", walks, on_walks)
