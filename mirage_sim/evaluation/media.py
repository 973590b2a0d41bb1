"""Images and videos for people: contact sheets, side-by-side videos, and maps seen from above."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mirage_sim.data.clips import Clip
from mirage_sim.evaluation.rollout import TITLES
from mirage_sim.evaluation.scores import Run, leg_of
from mirage_sim.io import atomic_write

SCALE = 3  # of videos, because generated frames are small
SHOWN = 12  # clips of a kind to show, spread over its environments
SHEET_STEPS = (0, 1, 4, 8, 16, 24)
FPS = 5  # half of the walk's own rate, because a video shows up to five images side by side
IN_VIDEO, QUALITY = 6, 5  # clips and compression, so that a page with two videos stays below 10 MB
_GENERATED = np.array([255.0, 110.0, 0.0])
_BAR = 20  # pixels, height of a line of text
_BACKGROUND, _INK = (24, 24, 28), (230, 230, 230)


def tint_generated(frame: np.ndarray, remembered: np.ndarray) -> np.ndarray:
    """Show a frame in grey where it was remembered, and in orange where it was generated.

    Args:
        frame: uint8 ``[H, W, 3]``.
        remembered: bool ``[H, W]``.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    grey = np.repeat(frame.astype(np.float64).mean(-1, keepdims=True), 3, axis=-1)
    return np.where(remembered[..., None], grey, 0.4 * grey + 0.6 * _GENERATED).astype(np.uint8)


def magnify(frame: np.ndarray, scale: int) -> np.ndarray:
    """Repeat every pixel ``scale`` times in both directions."""
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, fill: tuple[int, int, int] = _INK) -> None:
    draw.text(at, text, fill=fill, font=_font())


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """Put a dark bar with a title above an image, uint8 ``[H, W, 3]``; a title that is too long is cut."""
    bar = Image.new("RGB", (image.shape[1], _BAR), _BACKGROUND)
    _write(ImageDraw.Draw(bar), (6, 2), title)
    return np.concatenate([np.asarray(bar), image])


def side_by_side(panels: Mapping[str, np.ndarray], scale: int = SCALE) -> np.ndarray:
    """Place frames of one time step side by side, magnified and titled; both sides are even numbers of pixels.

    Args:
        panels: uint8 ``[H, W, 3]`` of one size, by name.
        scale: integer magnification.
    """
    row = np.concatenate([titled(magnify(frame, scale), name) for name, frame in panels.items()], axis=1)
    return row[: row.shape[0] // 2 * 2, : row.shape[1] // 2 * 2]


def contact_sheet(rows: Mapping[str, Sequence[np.ndarray]], steps: Sequence[int | str], scale: int = 2) -> Image.Image:
    """Draw rows of frames over time, with names on the left and steps above.

    Args:
        rows: frames uint8 ``[H, W, 3]`` by name, one for each step.
        steps: of the columns, or their headings.
        scale: integer magnification.
    """
    margin, gap = max(90, *(12 + round(_font().getlength(name)) for name in rows)), 4
    height, width = (side * scale for side in next(iter(rows.values()))[0].shape[:2])
    sheet = Image.new("RGB", (margin + (width + gap) * len(steps), _BAR + (height + gap) * len(rows)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, step in enumerate(steps):
        _write(draw, (margin + column * (width + gap), 2), step if isinstance(step, str) else f"step {step}")
    for row, (name, frames) in enumerate(rows.items()):
        top = _BAR + row * (height + gap)
        _write(draw, (6, top + height / 2 - 8), name)
        for column, frame in enumerate(frames):
            sheet.paste(Image.fromarray(magnify(frame, scale)), (margin + column * (width + gap), top))
    return sheet


def top_down(
    points: np.ndarray, colours: np.ndarray, path: np.ndarray, forward: np.ndarray, size: int = 720, reach: float = 12.0
) -> Image.Image:
    """Draw the memory seen from above, and the path: start green, end red, ticks in viewing directions.

    The first camera looks towards the top of the image. Points more than half a metre above the first camera, such as
    ceilings, are left out, because they would hide everything else. Higher points cover lower ones.

    Args:
        points: ``[N, 3]`` metres, world frame (first camera's: +x right, +y down, +z forward).
        colours: uint8 ``[N, 3]``.
        path: camera centres ``[S, 3]``.
        forward: camera directions ``[S, 3]``.
        size: pixels of the longer side.
        reach: metres around the path to show.
    """
    x, y, z = points.T
    near = (x > path[:, 0].min() - reach) & (x < path[:, 0].max() + reach)
    near &= (z > path[:, 2].min() - reach) & (z < path[:, 2].max() + reach) & (y > path[0, 1] - 0.5)
    points, colours = points[near], colours[near]
    everything = np.concatenate([points, path])
    low, high = everything.min(0) - 0.5, everything.max(0) + 0.5
    per_metre = size / max(high[0] - low[0], high[2] - low[2])
    width, height = (max(int(np.ceil((high[axis] - low[axis]) * per_metre)), 160) for axis in (0, 2))

    def pixels(at: np.ndarray) -> np.ndarray:
        return np.stack([(at[:, 0] - low[0]) * per_metre, (high[2] - at[:, 2]) * per_metre], axis=1)

    canvas = np.full((height, width, 3), _BACKGROUND, dtype=np.uint8)
    order = np.argsort(-points[:, 1], kind="stable")  # +y points down: draw low points first
    columns, lines = pixels(points[order]).astype(int).T
    dot = max(1, round(0.08 * per_metre))
    for dy in range(dot):
        for dx in range(dot):
            canvas[np.clip(lines + dy, 0, height - 1), np.clip(columns + dx, 0, width - 1)] = colours[order]

    image = Image.fromarray(canvas)
    _draw_path(ImageDraw.Draw(image), pixels(path), pixels(path + 0.4 * forward), per_metre)
    return image


def _draw_path(draw: ImageDraw.ImageDraw, path: np.ndarray, ahead: np.ndarray, per_metre: float) -> None:
    """Draw a path and its viewing directions, both ``[S, 2]`` in pixels, and a scale bar of one metre."""
    for start, end in list(zip(path, ahead, strict=True))[:: max(1, len(path) // 40)]:
        draw.line([tuple(start), tuple(end)], fill=(120, 200, 255), width=1)
    draw.line([tuple(point) for point in path], fill=(255, 255, 255), width=2)
    for (x, y), fill in ((path[-1], (235, 60, 60)), (path[0], (60, 210, 90))):
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=fill)
    height = draw.im.size[1]
    draw.line([(10, height - 10), (10 + per_metre, height - 10)], fill=_INK, width=3)
    _write(draw, (10, height - 30), "1 m")


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically."""
    with atomic_write(path) as partial:
        image.save(partial)


def save_video(
    frames: Iterable[np.ndarray], path: Path, fps: float, quality: float | None = 8, **encoding: Any
) -> None:
    """Write an MP4 (H.264, yuv420p, which every player supports) atomically.

    Args:
        frames: uint8 ``[H, W, 3]``, both sides even.
        path: of the file.
        fps: frames per second.
        quality: 0 (smallest) to 10; None if ``encoding`` has it.
        encoding: other arguments of ``imageio_ffmpeg.write_frames``, for frames or files of another kind.

    Raises:
        OSError: naming the file, if it could not be written.
    """
    import imageio_ffmpeg

    frames = iter(frames)
    first = next(frames)
    size, count = (first.shape[1], first.shape[0]), 0
    # the path is absolute: in others, ffmpeg reads a leading dash as an option and a prefix with a colon as a protocol
    with atomic_write(path) as partial:
        encoding = {"codec": "libx264", "pix_fmt_out": "yuv420p", "macro_block_size": 2} | encoding
        writer = imageio_ffmpeg.write_frames(str(partial), size, fps=fps, quality=quality, **encoding)
        with closing(writer):
            writer.send(None)
            for frame in chain([first], frames):
                writer.send(np.ascontiguousarray(frame).tobytes())
                count += 1
        try:
            written, _ = imageio_ffmpeg.count_frames_and_secs(partial)
        except RuntimeError as error:  # unreadable
            raise OSError("ffmpeg wrote no video; is the disk full?") from error
        if written < count:  # ffmpeg reports no error when it stops early
            raise OSError(f"ffmpeg wrote {written} of {count} frames")


def to_show(clips: Sequence[Clip]) -> list[int]:
    """Indices of the clips to show: the first ones of every environment, equally many of each."""
    found: dict[str, list[int]] = {}
    for i, clip in enumerate(clips):
        found.setdefault(clip.source["environment"], []).append(i)
    each = max(SHOWN // max(len(found), 1), 1)
    return sorted(i for indices in found.values() for i in indices[:each])


def _sheet(clip: Clip, shown: Mapping[str, np.ndarray], columns: Mapping[str, int]) -> Image.Image:
    """Draw the truth and each variant as rows, the named steps as columns."""
    steps = list(columns.values())
    rows = {"truth": list(clip.frames[steps].numpy())}
    rows |= {name: list(shown[variant][steps]) for variant, name in TITLES.items() if variant in shown}
    return contact_sheet(rows, list(columns), scale=1)


def walk_sheet(clip: Clip, shown: Mapping[str, np.ndarray]) -> Image.Image:
    """Draw a walk at steps 0, 1, 4, 8, 16 and 24.

    Args:
        clip: the true walk.
        shown: frames uint8 ``[S + 1, H, W, 3]`` of each variant.
    """
    last = min(len(frames) for frames in shown.values()) - 1
    return _sheet(clip, shown, {f"step {step}": step for step in SHEET_STEPS if step <= last})


def circuit_sheet(clip: Clip, shown: Mapping[str, np.ndarray]) -> Image.Image:
    """Draw a circuit at A, B, A again and B again; arguments as for :func:`walk_sheet`."""
    leg = leg_of(clip)
    names = ("A", "B", "A again", "B again")
    return _sheet(clip, shown, {f"{name} (step {i * leg})": i * leg for i, name in enumerate(names)})


def video(run: Run) -> Iterator[np.ndarray]:
    """Frames of up to six shown clips, one after the other: truth and variants side by side, magnified by 2."""
    chosen = list(run.shown)
    for position in np.linspace(0, len(chosen) - 1, min(IN_VIDEO, len(chosen))).round().astype(int):
        clip, shown = run.clips[chosen[position]], run.shown[chosen[position]]
        for step in range(min(len(frames) for frames in shown.values())):
            panels = {f"truth: {clip.source['environment']}, step {step}": clip.frames[step].numpy()}
            panels |= {name: shown[variant][step] for variant, name in TITLES.items() if variant in shown}
            yield side_by_side(panels, scale=2)


def write_media(folder: Path, walks: Run | None, circuits: Run | None) -> None:
    """Write a contact sheet of each shown clip (``walk-NAME.png``, ``circuit-NAME.png``), and a video of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, run, draw in (("walk", walks, walk_sheet), ("circuit", circuits, circuit_sheet)):
        if run is None:
            continue
        for i, shown in run.shown.items():
            source = run.clips[i].source
            save_image(draw(run.clips[i], shown), folder / f"{kind}-{source['environment']}-{source['seed']}.png")
        save_video(video(run), folder / f"{kind}s.mp4", FPS, QUALITY)
