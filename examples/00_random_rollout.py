"""Walk at random through a generated world and save a strip of frames.

python examples/00_random_rollout.py --steps 100 --seed 3
"""

import argparse

import gymnasium as gym
import numpy as np
from PIL import Image

import mirage_sim  # noqa: F401  (registers MirageWorld-v0)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--output", default="random_rollout.png")
args = parser.parse_args()

env = gym.make("MirageWorld-v0", task="explore")
env.action_space.seed(args.seed)

# The seed decides the start image and everything that is generated.
frame, info = env.reset(seed=args.seed)
frames, explored = [frame], 0.0
for _ in range(args.steps):
    frame, reward, terminated, truncated, info = env.step(env.action_space.sample())
    frames.append(frame)
    explored += reward  # square metres seen for the first time

print(f"explored {explored:.1f} m2; {info['remembered']:.0%} of the last frame was remembered, the rest generated")
shown = np.linspace(0, len(frames) - 1, 8).round().astype(int)
Image.fromarray(np.hstack([frames[i] for i in shown])).save(args.output)
print(f"saved {args.output}")
