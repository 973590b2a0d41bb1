"""Images of an episode: a video, a contact sheet and a map from above."""

import math
from pathlib import Path

import numpy as np

from mirage_sim.agents.episodes import Episode
from mirage_sim.envs.window import frames_per_second
from mirage_sim.evaluation.media import (
    contact_sheet,
    save_image,
    save_video,
    side_by_side,
    tint_generated,
    top_down,
)
from mirage_sim.memory import LatentMap
from mirage_sim.memory.latent_map import GENERATED

GREY = (128, 128, 128)
SHEET_COLUMNS = 9


def save_pictures(episode: Episode, output: Path) -> None:
    """Write ``rollout.mp4``, ``sheet.png`` and ``map.png``."""
    truth = {"truth": episode.truth} if episode.truth else {}
    tinted = [tint_generated(*pair) for pair in zip(episode.frames, episode.remembered, strict=True)]
    rows = truth | {"generated": episode.shown, "remembered": tinted}
    titles = {"remembered": "remembered (orange: generated)"}
    moments = (
        dict(zip((titles.get(row, row) for row in rows), column, strict=True))
        for column in zip(*rows.values(), strict=True)
    )
    save_video(map(side_by_side, moments), output / "rollout.mp4", frames_per_second(episode.dt))

    times = sorted({round(step) for step in np.linspace(0, len(episode.frames) - 1, SHEET_COLUMNS)})
    sheet = contact_sheet({row: [frames[step] for step in times] for row, frames in rows.items()}, times)
    save_image(sheet, output / "sheet.png")

    points, colours = coloured_points(episode.last.state.map, episode.frames, episode.latents)
    c2w = episode.c2w
    save_image(top_down(points, colours, c2w[:, :3, 3], c2w[:, :3, 2]), output / "map.png")


def coloured_points(map: LatentMap, frames: list[np.ndarray], latents: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of the memory, and their colours in the frames that they were written from.

    A point's id identifies the frame and the cell that it was written from (:class:`~mirage_sim.memory.LatentMap`). If
    a step has several latent frames, all of them take the colours of its last frame. Points of other observations than
    the first frame are grey.

    Args:
        map: the memory after the last frame.
        frames: the first frame and the last one of each step since then, uint8 ``[H, W, 3]``.
        latents: latent frames per step.

    Returns:
        Points ``[N, 3]`` in metres, and colours uint8 ``[N, 3]``.
    """
    height, width = frames[0].shape[:2]
    points, ids = map.xyz().cpu().numpy(), map.ids().cpu().numpy()
    if not len(ids):
        return points, np.zeros((0, 3), dtype=np.uint8)
    generated = latents * (len(frames) - 1)  # latent frames
    cells = (map.next_id - GENERATED) // generated if generated else map.next_observed  # per latent frame
    side = round(math.sqrt(height * width / cells))  # pixels per cell
    numbers, places = np.divmod(ids % GENERATED, cells)
    steps = np.where(ids < GENERATED, 0, 1 + numbers // latents)
    rows, columns = np.divmod(places, width // side)
    means = np.stack(frames).reshape(len(frames), height // side, side, width // side, side, 3).mean((2, 4))
    colours = means[steps, rows, columns].astype(np.uint8)
    if map.next_observed != cells:
        colours[ids < GENERATED] = GREY
    return points, colours
