"""Start from your own image, look around a full circle, and come back to the start view.

python examples/01_own_picture.py kitchen.jpg --fov 55
"""

import argparse

import gymnasium as gym
import numpy as np
from PIL import Image

import mirage_sim  # noqa: F401  (registers MirageWorld-v0)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("image", help="path of an image; it is cropped to the frame's aspect ratio")
parser.add_argument("--fov", type=float, default=60.0, help="vertical field of view of the image, in degrees")
parser.add_argument("--steps", type=int, default=60, help="steps of the circle; a step turns 6 degrees at most")
parser.add_argument("--output", default="own_picture.png")
args = parser.parse_args()

env = gym.make("MirageWorld-v0", task="none")
first, _ = env.reset(seed=0, options={"image": args.image, "fov_deg": args.fov})

# An action is (forward, turn), each in [-1, 1]; a full turn to the left is 60 steps of 6 degrees.
turn = np.array([0.0, min(60 / args.steps, 1.0)], dtype=np.float32)
frames, remembered = [first], []
for _ in range(args.steps):
    frame, _, _, _, info = env.step(turn)
    frames.append(frame)
    remembered.append(info["remembered"])

# On the way round, everything is generated; where the circle closes, the memory shows the start view again.
half = args.steps // 2
print(f"remembered: {np.mean(remembered[:half]):.0%} of the first half circle, {remembered[-1]:.0%} of the last frame")
shown = np.linspace(0, len(frames) - 1, 8).round().astype(int)
Image.fromarray(np.hstack([frames[i] for i in shown])).save(args.output)
print(f"saved {args.output}")
