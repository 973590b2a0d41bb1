"""What people look at: videos, contact sheets, maps. Pillow draws; it needs no system library."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mirage_sim.io import atomic_write

SCALE = 3  # of the video: generated frames are small
_INVENTED = np.array([255.0, 110.0, 0.0])
_BAR = 20  # pixels, height of a line of text
_BACKGROUND, _INK = (24, 24, 28), (230, 230, 230)


def tint_invented(frame: np.ndarray, remembered: np.ndarray) -> np.ndarray:
    """The frame in grey where it was remembered, and under orange where it was invented.

    Args:
        frame: uint8 ``[H, W, 3]``.
        remembered: bool ``[H, W]``.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    grey = np.repeat(frame.astype(np.float64).mean(-1, keepdims=True), 3, axis=-1)
    return np.where(remembered[..., None], grey, 0.4 * grey + 0.6 * _INVENTED).astype(np.uint8)


def magnify(frame: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel ``scale`` times in both directions."""
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, fill: tuple[int, int, int] = _INK) -> None:
    draw.text(at, text, fill=fill, font=_font())


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    """The picture, uint8 ``[H, W, 3]``, under a dark bar with a title, which is cut where it is too long."""
    bar = Image.new("RGB", (picture.shape[1], _BAR), _BACKGROUND)
    _write(ImageDraw.Draw(bar), (6, 2), title)
    return np.concatenate([np.asarray(bar), picture])


def side_by_side(panels: Mapping[str, np.ndarray], scale: int = SCALE) -> np.ndarray:
    """Frames of one moment beside each other, magnified, each under its name; sides are even numbers.

    Args:
        panels: uint8 ``[H, W, 3]`` of one size, by name.
        scale: whole number of times.
    """
    whole = np.concatenate([titled(magnify(frame, scale), name) for name, frame in panels.items()], axis=1)
    return whole[: whole.shape[0] // 2 * 2, : whole.shape[1] // 2 * 2]


def contact_sheet(rows: Mapping[str, Sequence[np.ndarray]], steps: Sequence[int | str], scale: int = 2) -> Image.Image:
    """Rows of frames over time, each row named on the left, each column headed by its step.

    Args:
        rows: by name, as many uint8 ``[H, W, 3]`` as there are steps.
        steps: what the columns show: steps, or headings.
        scale: whole number of times.
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
    """The memory seen from above, with the way walked: start green, end red, ticks where the camera looked.

    The picture's up is where the first camera looked. Points higher than half a metre above the first camera (ceilings)
    are left out, or nothing else would be seen; of the rest, the highest is on top.

    Args:
        points: ``[N, 3]`` metres, world frame (first camera's: +x right, +y down, +z forward).
        colours: uint8 ``[N, 3]``.
        path: camera centres ``[S, 3]``.
        forward: camera directions ``[S, 3]``.
        size: pixels of the longer side.
        reach: metres around the path that are shown.
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
    order = np.argsort(-points[:, 1], kind="stable")  # y points down: low points first, high ones over them
    columns, lines = pixels(points[order]).astype(int).T
    dot = max(1, round(0.08 * per_metre))
    for dy in range(dot):
        for dx in range(dot):
            canvas[np.clip(lines + dy, 0, height - 1), np.clip(columns + dx, 0, width - 1)] = colours[order]

    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    way, ahead = pixels(path), pixels(path + 0.4 * forward)
    for at, towards in list(zip(way, ahead, strict=True))[:: max(1, len(way) // 40)]:
        draw.line([tuple(at), tuple(towards)], fill=(120, 200, 255), width=1)
    draw.line([tuple(at) for at in way], fill=(255, 255, 255), width=2)
    for at, fill in ((way[-1], (235, 60, 60)), (way[0], (60, 210, 90))):
        draw.ellipse([at[0] - 4, at[1] - 4, at[0] + 4, at[1] + 4], fill=fill)
    draw.line([(10, height - 10), (10 + per_metre, height - 10)], fill=_INK, width=3)
    _write(draw, (10, height - 30), "1 m")
    return picture


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG; the file appears whole or not at all."""
    with atomic_write(path) as partial:
        picture.save(partial)


def save_video(frames: Iterable[np.ndarray], path: Path, fps: float, quality: float = 8) -> None:
    """Write an MP4 (H.264, yuv420p, which every player knows); the file appears whole or not at all.

    Args:
        frames: uint8 ``[H, W, 3]``, both sides even.
        path: of the file.
        fps: frames per second.
        quality: 0 (smallest) to 10.

    Raises:
        OSError: naming the file, if it could not be written.
    """
    import imageio_ffmpeg

    frames = iter(frames)
    first = next(frames)
    size, count = (first.shape[1], first.shape[0]), 0
    # an absolute path: of others, ffmpeg takes a leading dash for an option and what is before a colon for a protocol
    with atomic_write(path) as partial:
        writer = imageio_ffmpeg.write_frames(
            str(partial), size, fps=fps, codec="libx264", pix_fmt_out="yuv420p", macro_block_size=2, quality=quality
        )
        with closing(writer):
            writer.send(None)
            for frame in chain([first], frames):
                writer.send(np.ascontiguousarray(frame).tobytes())
                count += 1
        try:
            written, _ = imageio_ffmpeg.count_frames_and_secs(partial)
        except RuntimeError as error:  # unreadable
            raise OSError("ffmpeg wrote no video, as it does where a disk is full") from error
        if written < count:  # nobody is told when ffmpeg stops in the middle
            raise OSError(f"ffmpeg wrote {written} of {count} frames")
