"""Pictures and numbers of an evaluation for a person to look at."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mirage_sim.data.clips import Clip
from mirage_sim.evaluation.pictures import contact_sheet, save_picture, save_video, side_by_side, titled
from mirage_sim.evaluation.rollout import VARIANTS, Rollout

SHEET_STEPS = (0, 1, 2, 4, 8, 16, 24)
FPS = 10


def _block(clip: Clip, rollouts: Mapping[str, Rollout], steps: Sequence[int]) -> np.ndarray:
    """Truth and each variant as rows, the steps as columns, under the clip's name."""
    at = list(steps)
    rows = {"true": clip.frames[at].numpy()}
    rows |= {name: rollouts[name].frames[at] for name in VARIANTS if name in rollouts}
    sheet = contact_sheet({name: list(frames) for name, frames in rows.items()}, steps, scale=1)
    return titled(np.asarray(sheet), f"{clip.source['environment']} {clip.source['seed']}")


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
    return _columns([_block(clips[i], _of(rollouts, i), steps) for i in first_of_each(clips)], columns=2)


def circuit_sheet(clips: Sequence[Clip], rollouts: Mapping[str, Sequence[Rollout]]) -> np.ndarray:
    """One circuit per environment: truth and variants at A, B, A, B, uint8 ``[H, W, 3]``."""
    blocks = []
    for i in first_of_each(clips):
        leg = (len(clips[i]) - 1) // 3
        blocks.append(_block(clips[i], _of(rollouts, i), [0, leg, 2 * leg, 3 * leg]))
    return _columns(blocks, columns=3)


def walk_video(clips: Sequence[Clip], rollouts: Mapping[str, Sequence[Rollout]]) -> Iterator[np.ndarray]:
    """One walk per environment, one after the other: truth and the variants side by side, enlarged twice."""
    names = [name for name in VARIANTS if name in rollouts]
    for i in first_of_each(clips):
        label = f"{clips[i].source['environment']} true"
        for step in range(len(rollouts[names[0]][i].frames)):
            shown = {name: rollouts[name][i].frames[step] for name in names}
            yield side_by_side({label: clips[i].frames[step].numpy()} | shown, scale=2)


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
    save_picture(Image.fromarray(walk_sheet(walks, on_walks)), folder / "sheet.png")
    save_picture(Image.fromarray(circuit_sheet(circuits, on_circuits)), folder / "revisit.png")
    save_video(walk_video(walks, on_walks), folder / "walks.mp4", FPS)
