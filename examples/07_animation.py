"""Drive out and back, and save an animation of the frames, their depth, and which parts were generated.

python examples/07_animation.py --output drive.gif
"""

import argparse
import math
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import mirage_sim  # noqa: F401  (registers MirageWorld-v0)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--start", type=int, default=57, help="index of a built-in start image")
parser.add_argument("--steps", type=int, default=30, help="steps of the way out; the way back takes as many")
parser.add_argument("--scale", type=int, default=2, help="each pixel is shown as a square of this many")
parser.add_argument("--output", type=Path, default=Path("drive.gif"))
args = parser.parse_args()

ORANGE = np.array([255, 110, 0])
TITLES = "Frame", "Depth: near is red", "Grey: from memory; orange: generated"
BAR = 20  # pixels, the height of a line of text

# The way out is an S: forward while turning right, then left. The way back undoes every action in reverse order.
way_out = [(0.6, -0.8 * math.sin(2 * math.pi * step / args.steps)) for step in range(args.steps)]
way_back = [(-forward, -turn) for forward, turn in reversed(way_out)]

env = gym.make("MirageWorld-v0", observation="dict", task="none")
observations = [env.reset(seed=1, options={"start": args.start})[0]]
for action in way_out + way_back:
    observations.append(env.step(np.array(action, dtype=np.float32))[0])


def panels(observation: dict[str, np.ndarray]) -> np.ndarray:
    """Return the frame, its depth and its origin side by side, uint8 ``[H, 3 W, 3]``."""
    rgb, remembered = observation["rgb"], observation["remembered"].astype(bool)
    nearness = 1 - np.log(observation["depth"].clip(1.0, 10.0)) / math.log(10.0)  # 1 m to 10 m
    depth = cv2.applyColorMap((255 * nearness).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    grey = rgb.mean(-1, keepdims=True).repeat(3, -1)
    origin = np.where(remembered[..., None], grey, 0.4 * grey + 0.6 * ORANGE).astype(np.uint8)
    return np.hstack([rgb, depth, origin])


height, width = observations[0]["rgb"].shape[:2]
title = Image.new("RGB", (3 * width * args.scale, BAR), (24, 24, 28))
for column, text in enumerate(TITLES):
    ImageDraw.Draw(title).text((column * width * args.scale + 6, 3), text, font=ImageFont.load_default(13))
images = []
for observation in observations:
    enlarged = panels(observation).repeat(args.scale, axis=0).repeat(args.scale, axis=1)
    images.append(Image.fromarray(np.vstack([title, enlarged])))

# All frames share one palette, or the colours would flicker.
palette = Image.fromarray(np.vstack(images[::5])).quantize(256, kmeans=1)
images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
pauses = [100] * len(images)  # milliseconds; a step is 0.1 s
pauses[0] = pauses[args.steps] = 600  # at the start and at the turning point
images[0].save(args.output, save_all=True, append_images=images[1:], duration=pauses, loop=0)
print(f"saved {args.output}, {args.output.stat().st_size / 1e6:.1f} MB")
